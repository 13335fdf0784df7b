"""The walker: a planar robot with two legs and six joints."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.robots.legged import LeggedRobot, planar_motion
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class Walker2d(LeggedRobot):
    """MJX walker; 17 observations, 6 torques, 0.008 s a control step.

    Observation: qpos without x `[8]`, qvel within +-10 `[9]`; no torso position.

    Attributes:
      can_fall: end the episode when the torso is not between 0.8 and 2 m high or
        leans by 1 rad.
      alive_bonus: reward per step.
    """

    can_fall: bool = True
    alive_bonus: float = 1.0

    @property
    def source(self) -> ModelFile:
        """See `Simulated.source`."""
        return ModelFile(
            "walker2d.xml",
            substeps=4,
            iterations=4,
            ls_iterations=4,
            readings=("xpos",),
        )

    def reset(self, key: Array) -> PhysicsState:
        """See `Robot.reset`."""
        start = engines.perturbed_start(
            self.simulator, key, 0.005, engines.uniform_noise
        )
        return self.simulator.start(*start)

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """See `LeggedRobot.motion`."""
        cost = 1e-3 * self.squared_control(action)
        return planar_motion(self, before, after, cost=cost, bonus=self.alive_bonus)

    def observe(self, physics: PhysicsState) -> Array:
        """See `Robot.observe`."""
        return jnp.concatenate([physics.qpos[1:], jnp.clip(physics.qvel, -10, 10)])

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        height, pitch = physics.qpos[1], physics.qpos[2]
        upright = (height > 0.8) & (height < 2) & (jnp.abs(pitch) < 1)
        return self.can_fall & ~upright
