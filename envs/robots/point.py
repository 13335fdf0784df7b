"""A point mass on a line: no physics engine, for tests and a first look."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.robots import locomotion
from cemrl_jax.envs.robots.locomotion import Motion


class PointState(struct.PyTreeNode):
    """Attributes: x: `[]` position, m. velocity: `[]` m/s."""

    x: Array
    velocity: Array


@dataclasses.dataclass
class Point:
    """A point with mass and friction, pushed along the x-axis.

    One control step of 0.05 s moves the velocity `gain` of the way towards
    `max_speed * action`. Observation: position / 10 m and velocity.

    Attributes:
      max_speed: speed at full action, m/s.
      gain: share of the way to the commanded speed made in a step.
    """

    max_speed: float = 3.0
    gain: float = 0.5

    @property
    def can_fall(self) -> bool:
        """See `Robot`."""
        return False

    @property
    def action_size(self) -> int:
        """See `Robot.action_size`."""
        return 1

    @property
    def control_dt(self) -> float:
        """See `Robot.control_dt`."""
        return 0.05

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Nominal values of what tasks may change."""
        return {"gain": np.array([self.gain], np.float32)}

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Number of the body that each row of `parameters` belongs to, by name."""
        return {"gain": np.array([0])}

    def reset(self, key: Array) -> PointState:
        """See `Robot.reset`."""
        velocity = jax.random.uniform(key, minval=-0.1, maxval=0.1)
        return PointState(x=jnp.float32(0), velocity=velocity)

    def step(
        self, physics: PointState, action: Array, overrides: dict[str, Array]
    ) -> PointState:
        """See `Robot.step`; `overrides` may hold `gain` `[1]`."""
        goal = self.max_speed * jnp.clip(action[0], -1, 1)
        gain = overrides["gain"][0] if "gain" in overrides else self.gain
        velocity = physics.velocity + gain * (goal - physics.velocity)
        return PointState(x=physics.x + self.control_dt * velocity, velocity=velocity)

    def motion(self, before: PointState, after: PointState, action: Array) -> Motion:
        """Summarises a control step for the reward."""
        zero = jnp.float32(0)
        return Motion(
            position=jnp.stack([after.x, zero]),
            velocity=jnp.stack([(after.x - before.x) / self.control_dt, zero]),
            height=zero,
            pitch_velocity=zero,
            cost=0.01 * jnp.square(action).sum(),
            bonus=zero,
            direction_weight=jnp.float32(1),
        )

    def reward(
        self, before: PointState, after: PointState, action: Array, task: Task
    ) -> Array:
        """See `Robot.reward`."""
        return locomotion.reward(task, self.motion(before, after, action))

    def observe(self, physics: PointState) -> Array:
        """See `Robot.observe`."""
        return jnp.stack([physics.x / 10, physics.velocity])

    def x_position(self, physics: PointState) -> Array:
        """See `Robot.x_position`."""
        return physics.x

    def terminated(self, physics: PointState) -> Array:
        """See `Robot.terminated`: a point cannot fall."""
        del physics
        return jnp.bool_(False)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        if not 0 < self.gain <= 1:
            return [f"gain={self.gain} must be above 0 and at most 1"]
        return []
