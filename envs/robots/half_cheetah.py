"""The half-cheetah: a planar runner with two legs and six joints."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.robots.legged import LeggedRobot, planar_motion
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class HalfCheetah(LeggedRobot):
    """MJX half-cheetah; 20 observations, 6 torques, 0.05 s a control step.

    Observation: qpos without x `[8]`, torso position `[3]` (one sub-step old, as in
    the original), qvel `[9]`.

    Attributes:
      can_fall: end the episode when the pitch exceeds 2.5 rad.
    """

    can_fall: bool = False

    @property
    def source(self) -> ModelFile:
        """See `Simulated.source`."""
        return ModelFile(
            "half_cheetah.xml",
            substeps=5,
            iterations=4,
            ls_iterations=4,
            readings=("xpos",),
        )

    def reset(self, key: Array) -> PhysicsState:
        """See `Robot.reset`."""
        return self.simulator.start(*engines.perturbed_start(self.simulator, key, 0.1))

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """See `LeggedRobot.motion`."""
        cost = 0.05 * self.squared_control(action)
        return planar_motion(self, before, after, cost=cost, bonus=0.0)

    def observe(self, physics: PhysicsState) -> Array:
        """See `Robot.observe`."""
        return jnp.concatenate([physics.qpos[1:], self.torso(physics), physics.qvel])

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        return self.can_fall & (jnp.abs(physics.qpos[2]) > 2.5)
