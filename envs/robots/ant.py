"""The ant: a free body with four legs and eight joints."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.robots.legged import LeggedRobot
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class Ant(LeggedRobot):
    """MJX ant; 30 observations, 8 torques, 0.05 s a control step.

    Observation: qpos without x and y `[13]`, torso position `[3]`, qvel `[14]`; the
    original's velocity tasks have the torso position last.

    Attributes:
      can_fall: end the episode when the torso is not between 0.3 and 10 m high.
      torso_last: put the torso position at the end of the observation.
      contact_forces: charge for contact forces, as under the original's pinned
        mujoco-py 1.50; MuJoCo 2.0 left them zero.
    """

    can_fall: bool = True
    torso_last: bool = False
    contact_forces: bool = True

    @property
    def source(self) -> ModelFile:
        """See `Simulated.source`."""
        return ModelFile(
            "ant.xml",
            substeps=5,
            iterations=4,
            ls_iterations=4,
            readings=("xpos", "cfrc_ext") if self.contact_forces else ("xpos",),
        )

    def reset(self, key: Array) -> PhysicsState:
        """See `Robot.reset`."""
        return self.simulator.start(*engines.perturbed_start(self.simulator, key, 0.1))

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """See `LeggedRobot.motion`; the original weighs direction tasks by 10."""
        cost = 0.5 * self.squared_control(action)
        if self.contact_forces:
            forces = jnp.clip(after.readings["cfrc_ext"], -1, 1)
            cost += 0.5e-3 * jnp.square(forces).sum()
        return Motion(
            position=after.qpos[:2],
            velocity=(after.qpos[:2] - before.qpos[:2]) / self.control_dt,
            height=after.qpos[2],
            pitch_velocity=after.qvel[4],
            cost=cost,
            bonus=jnp.float32(1),
            direction_weight=jnp.float32(10),
        )

    def observe(self, physics: PhysicsState) -> Array:
        """See `Robot.observe`."""
        parts = [physics.qpos[2:], self.torso(physics), physics.qvel]
        if self.torso_last:
            parts[1], parts[2] = parts[2], parts[1]
        return jnp.concatenate(parts)

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        height = physics.qpos[2]
        return self.can_fall & ~((height >= 0.3) & (height <= 10))
