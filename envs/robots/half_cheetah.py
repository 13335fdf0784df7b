"""The half-cheetah: a planar runner with two legs and six joints."""

import dataclasses
import functools

import jax.numpy as jnp
from jax import Array

from envs import physics
from envs.base import Motion
from envs.physics import PhysicsState


@dataclasses.dataclass
class HalfCheetah:
    """MJX half-cheetah; 20 observations, 6 torques, 0.05 s a control step.

    Observation: qpos without x `[8]`, torso position `[3]` (one sub-step old, as in
    the original), qvel `[9]`.

    Attributes:
      can_fall: end the episode when the pitch exceeds 2.5 rad.
    """

    can_fall: bool = False

    @functools.cached_property
    def simulator(self) -> physics.Simulator:
        """The compiled model."""
        return physics.load(
            "half_cheetah.xml",
            substeps=5,
            iterations=4,
            ls_iterations=4,
            readings=("xpos",),
        )

    @property
    def action_size(self) -> int:
        """See `Robot.action_size`."""
        return self.simulator.model.nu

    @property
    def control_dt(self) -> float:
        """See `Robot.control_dt`."""
        return self.simulator.control_dt

    def reset(self, key: Array) -> PhysicsState:
        """See `Robot.reset`."""
        qpos, qvel = physics.uniform_start(self.simulator, key, 0.1, 0.1)
        return self.simulator.start(qpos, qvel)

    def step(
        self, physics: PhysicsState, action: Array, model: dict[str, Array]
    ) -> PhysicsState:
        """See `Robot.step`."""
        return self.simulator.step(physics, action, model)

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """See `Robot.motion`."""
        change = (after.qpos - before.qpos) / self.control_dt
        return Motion(
            x_position=after.qpos[0],
            x_velocity=change[0],
            height=after.qpos[1],
            pitch_velocity=change[2],
            cost=0.05 * jnp.square(self.simulator.control(action)).sum(),
            bonus=jnp.float32(0),
            direction_weight=jnp.float32(1),
        )

    def observe(self, physics: PhysicsState) -> Array:
        """See `Robot.observe`."""
        torso = physics.readings["xpos"][self.simulator.body("torso")]
        return jnp.concatenate([physics.qpos[1:], torso, physics.qvel])

    def x_position(self, physics: PhysicsState) -> Array:
        """See `Robot.x_position`."""
        return physics.readings["xpos"][self.simulator.body("torso"), 0]

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        return self.can_fall & (jnp.abs(physics.qpos[2]) > 2.5)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings: never anything."""
        return []
