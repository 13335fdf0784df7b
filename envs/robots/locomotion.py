"""Locomotion: what happened in a step, and the rewards for it."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.envs.base import Task


class Motion(struct.PyTreeNode):
    """What a reward may look at: one control step, in SI units.

    Attributes:
      position: `[2]` position of the root on the ground after the step, m.
      velocity: `[2]` mean velocity on the ground over the step, m/s; of the root, or
        of the centre of mass where the original rewards that.
      height: `[]` vertical position of the root after the step, m; from its initial
        height where the model counts so (half-cheetah).
      pitch_velocity: `[]` angular velocity about the y-axis, rad/s. For planar robots
        its mean over the step; for free bodies (ant, humanoid) as it is after the
        step and about the torso's own y-axis, not the world's.
      cost: `[]` price of the control and of contacts, subtracted from the reward.
      bonus: `[]` reward for being alive.
      direction_weight: `[]` factor on the forward term of direction tasks.
    """

    position: Array
    velocity: Array
    height: Array
    pitch_velocity: Array
    cost: Array
    bonus: Array
    direction_weight: Array

    @property
    def x_position(self) -> Array:
        """Position along the x-axis `[]`, m."""
        return self.position[0]

    @property
    def x_velocity(self) -> Array:
        """Velocity along the x-axis `[]`, m/s."""
        return self.velocity[0]


def velocity(motion: Motion, spec: Array) -> Array:
    """Minus the distance to the goal velocity `spec` `[1]` (m/s)."""
    return -jnp.abs(motion.x_velocity - spec[0])


def direction(motion: Motion, spec: Array) -> Array:
    """Velocity towards `spec` `[1]` (+1 forward, -1 backward)."""
    return motion.direction_weight * motion.x_velocity * spec[0]


def planar_angle(motion: Motion, spec: Array) -> Array:
    """Velocity on the ground towards the angle `spec` `[1]` (rad, 0 is forward)."""
    heading = jnp.stack([jnp.cos(spec[0]), jnp.sin(spec[0])])
    return motion.direction_weight * (motion.velocity * heading).sum()


def goal(motion: Motion, spec: Array) -> Array:
    """Minus the distance to a place `spec` `[1]` (x) or `[2]` (x, y), m.

    The original's is x - goal, which rewards running past the goal.
    """
    return -jnp.linalg.norm(motion.position[: spec.shape[0]] - spec)


def flipping(motion: Motion, spec: Array) -> Array:
    """Angular velocity of the pitch towards `spec` `[1]` (+1 or -1)."""
    return motion.pitch_velocity * spec[0]


def jumping(motion: Motion, spec: Array) -> Array:
    """Height; `spec` does not matter."""
    del spec
    return motion.height


REWARDS = {
    "velocity": velocity,
    "direction": direction,
    "planar_angle": planar_angle,
    "goal": goal,
    "flipping": flipping,
    "jumping": jumping,
}
"""Name -> term of the reward that depends on the task; `Task.kind` is its index."""


def kind_of(name: str) -> int:
    """Returns the index of a reward, for `Task.kind`."""
    return list(REWARDS).index(name)


def reward(task: Task, motion: Motion) -> Array:
    """Returns the whole reward `[]` of a step: task term, minus cost, plus bonus."""
    spec = jnp.atleast_1d(task.spec)
    term = jax.lax.switch(task.kind, list(REWARDS.values()), motion, spec)
    return term - motion.cost + motion.bonus
