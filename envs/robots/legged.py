"""What robots with a torso, joints and motors have in common."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.base import Task
from cemrl_jax.envs.engines import PhysicsState
from cemrl_jax.envs.engines.simulated import Simulated
from cemrl_jax.envs.robots import locomotion
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class LeggedRobot(Simulated):
    """The part of the `Robot` protocol that follows from a simulator.

    A robot adds its model file (with at least `xpos` among the readings), `reset`,
    `motion`, `observe` and `terminated`.
    """

    @property
    def action_size(self) -> int:
        """See `Robot.action_size`."""
        return self.simulator.model.nu

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Nominal values of what tasks may change, by name of the model's field."""
        return engines.nominal_parameters(self.simulator)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Number of the body that each row of `parameters` belongs to, by name."""
        return engines.body_parts(self.simulator)

    def step(
        self, physics: PhysicsState, action: Array, overrides: dict[str, Array]
    ) -> PhysicsState:
        """See `Robot.step`."""
        return self.simulator.step(physics, action, overrides)

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """Summarises a control step for the reward."""
        raise NotImplementedError

    def reward(
        self, before: PhysicsState, after: PhysicsState, action: Array, task: Task
    ) -> Array:
        """See `Robot.reward`."""
        return locomotion.reward(task, self.motion(before, after, action))

    def x_position(self, physics: PhysicsState) -> Array:
        """See `Robot.x_position`."""
        return self.torso(physics)[0]

    def torso(self, physics: PhysicsState) -> Array:
        """Returns the position of the torso `[3]`, m, as old as the readings."""
        return physics.readings["xpos"][self.simulator.body("torso")]

    def squared_control(self, action: Array) -> Array:
        """Returns the sum of the squared controls `[]` of an action `[nu]`."""
        return jnp.square(self.simulator.control(action)).sum()

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        return []


def planar_motion(
    robot: LeggedRobot,
    before: PhysicsState,
    after: PhysicsState,
    *,
    cost: Array,
    bonus: float,
) -> Motion:
    """Returns the motion of a root that slides along x and z and turns about y."""
    change = (after.qpos[:3] - before.qpos[:3]) / robot.control_dt
    return Motion(
        position=jnp.stack([after.qpos[0], jnp.zeros(())]),
        velocity=jnp.stack([change[0], jnp.zeros(())]),
        height=after.qpos[1],
        pitch_velocity=change[2],
        cost=cost,
        bonus=jnp.float32(bonus),
        direction_weight=jnp.float32(1),
    )
