"""The hopper: a planar robot with one leg and three joints."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.robots.legged import LeggedRobot, planar_motion
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class Hopper(LeggedRobot):
    """MJX hopper; 14 observations, 3 torques, 0.008 s a control step.

    Observation: qpos without x `[5]`, torso position `[3]`, qvel within +-10 `[6]`.

    Attributes:
      can_fall: end the episode when the torso is below 0.7 m, leans by more than
        0.2 rad, or any other position or velocity reaches 100.
      alive_bonus: reward per step; the original's presets give the top velocity.
    """

    can_fall: bool = True
    alive_bonus: float = 3.0

    @property
    def source(self) -> ModelFile:
        """See `Simulated.source`."""
        return ModelFile(
            "hopper.xml", substeps=4, iterations=4, ls_iterations=4, readings=("xpos",)
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
        velocity = jnp.clip(physics.qvel, -10, 10)
        return jnp.concatenate([physics.qpos[1:], self.torso(physics), velocity])

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        state = jnp.concatenate([physics.qpos, physics.qvel])
        upright = (state[1] > 0.7) & (jnp.abs(state[2]) < 0.2)
        sound = (jnp.abs(state[2:]) < 100).all()
        return self.can_fall & ~(upright & sound)
