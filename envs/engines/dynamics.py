"""A physics step of MJX in few operations: its stages with a solver of our own.

See `newton` for why. Each stage is one of MJX's public functions.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jax import Array

from cemrl_jax.envs.engines import newton

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco import mjx


def handles(model: Any) -> bool:
    """Returns whether this module can step a model; `mjx.step` takes the others.

    It has pyramids of friction, no elliptic cones and no dry friction of joints, as all
    robots of gymnasium; matrices are dense; actuators have no state.
    """
    return (
        model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
        and model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
        and model.opt.integrator in _INTEGRATORS
        and model.opt.disableflags == 0
        and not model._impl.dof_hasfrictionloss.any()
        and not model._impl.tendon_hasfrictionloss.any()
        and not mjx.is_sparse(model)
        and model.na == 0
    )


def step(model: Any, data: Any) -> Any:
    """Takes a step, as `mjx.step` does."""
    return _INTEGRATORS[model.opt.integrator](model, data)


def forward(model: Any, data: Any) -> Any:
    """Computes forces and accelerations of a state, as `mjx.forward` does."""
    for stage in (
        mjx.kinematics,
        mjx.com_pos,
        mjx.tendon,
        mjx.crb,
        mjx.tendon_armature,
        mjx.collision,
        mjx.make_constraint,
        mjx.transmission,
        mjx.fwd_velocity,
        mjx.fwd_actuation,
    ):
        with jax.named_scope(stage.__name__):
            data = stage(model, data)
    smooth = data.qfrc_passive - data.qfrc_bias + data.qfrc_actuator
    # What is left of the forward dynamics is the solver.
    inertia = data._impl.M
    free = newton.solve_symmetric(inertia, smooth)
    data = data.replace(qfrc_smooth=smooth, qacc_smooth=free)
    jacobian = data._impl.efc_J.T
    problem = newton.Problem(
        inertia=inertia,
        jacobian=jacobian,
        stiffness=data._impl.efc_D,
        residual=newton.combine(jacobian, free) - data._impl.efc_aref,
        num_equalities=data._impl.ne,
    )
    x, forces = newton.solve(
        problem,
        data.qacc_warmstart - free,
        model.opt.iterations,
        model.opt.ls_iterations,
    )
    return data.tree_replace(
        {
            "qacc": free + x,
            "qfrc_constraint": jacobian @ forces,
            "_impl.efc_force": forces,
        }
    )


def _euler(model: Any, data: Any) -> Any:
    """Takes a step: velocities first, with implicit damping, then positions."""
    data = forward(model, data)
    damped = data._impl.M + jnp.diag(model.opt.timestep * model.dof_damping)
    force = data.qfrc_smooth + data.qfrc_constraint
    acceleration = newton.solve_symmetric(damped, force)
    velocity = data.qvel + model.opt.timestep * acceleration
    return data.replace(
        qpos=_moved(model, data.qpos, model.opt.timestep * velocity),
        qvel=velocity,
        qacc_warmstart=data.qacc,
    )


def _rungekutta4(model: Any, data: Any) -> Any:
    """Takes a step by the classical Runge-Kutta method.

    All solvers start from the same accelerations; derived fields are the last stage's.
    """
    position, velocity = data.qpos, data.qvel
    dt = model.opt.timestep

    def stage(number: Array, carry: tuple[Any, Array, Array]) -> Any:
        data, mean_velocity, mean_acceleration = carry
        ahead, weight = jnp.array(_AHEAD)[number], jnp.array(_WEIGHTS)[number]
        data = forward(
            model,
            data.replace(
                qpos=_moved(model, position, dt * ahead * data.qvel),
                qvel=velocity + dt * ahead * data.qacc,
            ),
        )
        mean_velocity += weight * data.qvel
        mean_acceleration += weight * data.qacc
        return data, mean_velocity, mean_acceleration

    zeros = jnp.zeros_like(velocity)
    carry = data.replace(qacc=zeros), zeros, zeros
    data, mean_velocity, mean_acceleration = jax.lax.fori_loop(0, 4, stage, carry)
    return data.replace(
        qpos=_moved(model, position, dt * mean_velocity),
        qvel=velocity + dt * mean_acceleration,
        qacc_warmstart=data.qacc,
    )


_AHEAD = (0.0, 0.5, 0.5, 1.0)
"""How far into the step each stage of the Runge-Kutta method looks."""
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
"""How much each stage counts."""


_INTEGRATORS = {
    mujoco.mjtIntegrator.mjINT_EULER: _euler,
    mujoco.mjtIntegrator.mjINT_RK4: _rungekutta4,
}


def _moved(model: Any, position: Array, way: Array) -> Array:
    """Returns positions `[nq]` after moving by `way` `[nv]`, rotations by angle."""
    parts = []
    for kind, first, dof in zip(model.jnt_type, model.jnt_qposadr, model.jnt_dofadr):
        kind = mjx.JointType(kind)
        if kind == mjx.JointType.FREE:
            parts.append(position[first : first + 3] + way[dof : dof + 3])
            first, dof = first + 3, dof + 3
        if kind in (mjx.JointType.FREE, mjx.JointType.BALL):
            turn = way[dof : dof + 3]
            parts.append(_turned(position[first : first + 4], turn))
        else:
            parts.append(position[first : first + 1] + way[dof : dof + 1])
    return jnp.concatenate(parts)


def _turned(quaternion: Array, turn: Array) -> Array:
    """Returns a quaternion `[4]` turned about its own axes by `[3]`, rad."""
    angle = jnp.sqrt(newton.dot(turn, turn))
    # sin(a / 2) / a, which is a half for small angles
    factor = jnp.where(
        angle > 1e-6, jnp.sin(0.5 * angle) / jnp.maximum(angle, 1e-6), 0.5
    )
    w, x, y, z = quaternion
    a, (b, c, d) = jnp.cos(0.5 * angle), factor * turn
    product = jnp.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ]
    )
    return product * jax.lax.rsqrt(newton.dot(product, product))
