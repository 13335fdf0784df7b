"""The humanoid: a free body with arms and legs and seventeen joints."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.robots.legged import LeggedRobot
from cemrl_jax.envs.robots.locomotion import Motion


@dataclasses.dataclass
class Humanoid(LeggedRobot):
    """MJX humanoid; 376 observations, 17 torques, 0.015 s a control step.

    Observation: qpos without x and y `[22]`, qvel `[23]`, the bodies' inertias
    `[14, 10]` and velocities `[14, 6]`, actuator torques `[23]` and contact forces
    `[14, 6]`. Velocity rewards look at the centre of mass.

    Attributes:
      can_fall: end the episode when the torso is not between 1 and 2 m high; the
        original always does.
      contact_forces: observe and charge for contact forces, as under the original's
        pinned mujoco-py 1.50; MuJoCo 2.0 left them zero.
    """

    can_fall: bool = True
    contact_forces: bool = True

    @property
    def source(self) -> ModelFile:
        """The compiled model; its file asks for a solver that MJX does not have.

        Error of a control step against C MuJoCo over 1,600 random and held actions,
        p50 / p95 / p99 of qpos: 7e-7 / 6e-6 / 5e-4 with 6/8 iterations, the same with
        12/20, and 9e-7 / 2e-4 / 1e-3 with 4/4.
        """
        readings = ("xpos", "subtree_com", "cinert", "cvel", "qfrc_actuator")
        return ModelFile(
            "humanoid.xml",
            substeps=5,
            iterations=6,
            ls_iterations=8,
            readings=(*readings, "cfrc_ext") if self.contact_forces else readings,
        )

    def reset(self, key: Array) -> PhysicsState:
        """See `Robot.reset`."""
        start = engines.perturbed_start(
            self.simulator, key, 0.01, engines.uniform_noise
        )
        return self.simulator.start(*start)

    def motion(
        self, before: PhysicsState, after: PhysicsState, action: Array
    ) -> Motion:
        """See `LeggedRobot.motion`.

        The original multiplies the centre of mass's way in a control step by
        0.25 / sub-step, which is 0.25 * sub-steps times its velocity. Where masses
        have changed, both centres are those of the masses now in force.
        """
        way = _mass_centre(after) - _mass_centre(before)
        way -= _shift(before.readings["cinert"], after.readings["cinert"][:, 9])
        impact = 0.5e-6 * jnp.square(self._contact_forces(after)).sum()
        return Motion(
            position=after.qpos[:2],
            velocity=way / self.control_dt,
            height=after.qpos[2],
            pitch_velocity=after.qvel[4],
            cost=0.1 * self.squared_control(action) + jnp.minimum(impact, 10),
            bonus=jnp.float32(5),
            direction_weight=jnp.float32(0.25 * self.simulator.substeps),
        )

    def observe(self, physics: PhysicsState) -> Array:
        """See `Robot.observe`."""
        readings = physics.readings
        return jnp.concatenate(
            [
                physics.qpos[2:],
                physics.qvel,
                readings["cinert"].ravel(),
                readings["cvel"].ravel(),
                readings["qfrc_actuator"],
                self._contact_forces(physics).ravel(),
            ]
        )

    def terminated(self, physics: PhysicsState) -> Array:
        """See `Robot.terminated`."""
        height = physics.qpos[2]
        return self.can_fall & ((height < 1) | (height > 2))

    def _contact_forces(self, physics: PhysicsState) -> Array:
        """Returns the contact forces on the bodies `[14, 6]`, or zeros."""
        if not self.contact_forces:
            return jnp.zeros((self.simulator.model.nbody, 6))
        return physics.readings["cfrc_ext"]


def _mass_centre(physics: PhysicsState) -> Array:
    """Returns the whole body's centre of mass on the ground `[2]`, m."""
    return physics.readings["subtree_com"][0, :2]


def _shift(inertia: Array, mass: Array) -> Array:
    """Returns how the centre of mass moves if bodies get other masses `[2]`, m.

    `inertia` `[nbody, 10]` is `cinert` under the old ones: a body's place from the
    centre, times its mass, and its mass are the last entries. Without a change the
    result is exactly zero.
    """
    old = inertia[:, 9]
    growth = jnp.where(old > 0, mass / jnp.where(old > 0, old, 1) - 1, 0)
    return (growth[:, None] * inertia[:, 6:8]).sum(0) / mass.sum()
