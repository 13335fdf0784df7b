"""A physics step of MJX in few operations, as an accelerator likes it.

A step is as slow as it has kernels, as long as there are not thousands of environments.
MJX's public functions compute contacts, actuators and the places of free bodies; how
constraint rows, the solver and the trees of planar robots differ, `constraints`,
`newton` and `tree` say.
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

from cemrl_jax.envs.engines import constraints, newton, tree

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco import mjx


def handles(model: mujoco.MjModel) -> bool:
    """Returns whether this module can step a model; `mjx.step` takes the others.

    All robots of gymnasium are such: trees of free, slide and hinge joints, contacts
    with pyramids of friction, motors without state at single joints.
    """
    return (
        model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
        and model.opt.integrator in _INTEGRATORS
        and model.opt.disableflags == 0
        and model.na == 0
        and bool((model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT).all())
        and constraints.handles(model)
        and not any(
            field.any()
            for field in (
                model.tendon_stiffness,
                model.tendon_damping,
                model.tendon_armature,
            )
        )
    )


def step(model: tree.Model, mjx_model: Any, data: Any) -> Any:
    """Takes a step, as `mjx.step` does."""
    return _INTEGRATORS[model.host.opt.integrator](model, mjx_model, data)


def forward(model: tree.Model, mjx_model: Any, data: Any) -> Any:
    """Computes forces and accelerations of a state, as `mjx.forward` does."""
    with jax.named_scope("tree"):
        if tree.handles(model.host):
            data = data.tree_replace(tree.fields(model, data.qpos, data.qvel))
        else:
            for stage in _TREE:
                data = stage(mjx_model, data)
    with jax.named_scope("constraints"):
        data = mjx.collision(mjx_model, data)
        rows = constraints.rows(model, data)
    with jax.named_scope("actuation"):
        for stage in (mjx.transmission, mjx.passive):
            data = stage(mjx_model, data)
        moment = data._impl.actuator_moment
        data = data.tree_replace({"_impl.actuator_velocity": moment @ data.qvel})
        data = mjx.fwd_actuation(mjx_model, data)
    return _solved(mjx_model.opt, data, rows)


_TREE = (mjx.kinematics, mjx.com_pos, mjx.crb, mjx.com_vel, mjx.rne)
"""MJX's stages that compute what `tree.fields` does."""


def _solved(options: Any, data: Any, rows: constraints.Rows) -> Any:
    """Computes accelerations and constraint forces."""
    smooth = data.qfrc_passive - data.qfrc_bias + data.qfrc_actuator
    inertia = data._impl.M
    free = newton.solve_symmetric(inertia, smooth)
    jacobian, warm = rows.jacobian, data.qacc_warmstart
    # One product of all three: each would compute the Jacobian again.
    rates = jnp.stack([data.qvel, free, warm]) @ jacobian
    reference = -rows.damping * rates[0] - rows.pull
    problem = newton.Problem(inertia, jacobian, rows.stiffness)
    starts = problem.starts(warm - free, rates[1:] - reference)
    x, forces = newton.solve(problem, starts, options.iterations, options.ls_iterations)
    return data.tree_replace(
        {
            "qfrc_smooth": smooth,
            "qacc_smooth": free,
            "qacc": free + x,
            "qfrc_constraint": jacobian @ forces,
            "_impl.efc_force": forces,
        }
    )


def _euler(model: tree.Model, mjx_model: Any, data: Any) -> Any:
    """Takes a step: velocities first, with implicit damping, then positions."""
    data = forward(model, mjx_model, data)
    dt = mjx_model.opt.timestep
    damped = data._impl.M + jnp.diag(dt * mjx_model.dof_damping)
    force = data.qfrc_smooth + data.qfrc_constraint
    velocity = data.qvel + dt * newton.solve_symmetric(damped, force)
    return data.replace(
        qpos=_moved(mjx_model, data.qpos, dt * velocity),
        qvel=velocity,
        qacc_warmstart=data.qacc,
    )


def _rungekutta4(model: tree.Model, mjx_model: Any, data: Any) -> Any:
    """Takes a step by the classical Runge-Kutta method.

    All solvers start from the same accelerations; derived fields are the last stage's.
    """
    position, velocity = data.qpos, data.qvel
    dt = mjx_model.opt.timestep

    def stage(number: Array, carry: tuple[Any, Array, Array]) -> Any:
        data, mean_velocity, mean_acceleration = carry
        ahead, weight = jnp.array(_AHEAD)[number], jnp.array(_WEIGHTS)[number]
        data = forward(
            model,
            mjx_model,
            data.replace(
                qpos=_moved(mjx_model, position, dt * ahead * data.qvel),
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
        qpos=_moved(mjx_model, position, dt * mean_velocity),
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
