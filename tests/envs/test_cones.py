"""The solver's problem with elliptic cones: its derivatives, and against C MuJoCo."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import copy
import types

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import HAS_METAWORLD
from jax import Array

from cemrl_jax.envs.engines import cones, newton
from cemrl_jax.envs.metaworld.arm import Sawyer


def cone_cost(residual: Array, stiffness: Array, friction: Array) -> Array:
    """Returns the cost of a contact's rows, all `[dim]`, zone by zone."""
    mu = friction[0]
    normal, slip = mu * residual[0], jnp.linalg.norm(friction[1:] * residual[1:])
    stick = 0.5 * (stiffness * residual**2).sum()
    share = stiffness[0] / (mu**2 * (1 + mu**2))
    slide = 0.5 * share * (normal - mu * slip) ** 2
    free = jnp.where(normal >= mu * slip, 0, slide)
    return jnp.where(mu * normal + slip <= 0, stick, free)


@pytest.mark.parametrize("dim", [3, 4, 6])
def test_weights_are_the_costs_derivatives(dim):
    keys = jax.random.split(jax.random.key(dim), 3)
    count = 400
    residual = jax.random.normal(keys[0], (count, dim)).at[:, 0].add(-0.3)
    # As MuJoCo makes them: all zones meet where D goes with the square of friction.
    friction = jax.random.uniform(keys[1], (count, dim), minval=0.2, maxval=1.0)
    friction = friction.at[:, 1].set(friction[:, 0])
    normal = jax.random.uniform(keys[2], (count, 1), minval=0.5, maxval=2.0)
    stiffness = normal * (friction / friction[:, :1]) ** 2
    stiffness = stiffness.at[:, 0].set(normal[:, 0])
    mu = friction[:, 0]
    slip = jnp.linalg.norm(friction[:, 1:] * residual[:, 1:], axis=1)
    press = mu * residual[:, 0]
    zones = [press >= mu * slip, mu * press + slip <= 0]
    assert min(zone.sum() for zone in (*zones, ~zones[0] & ~zones[1])) > 10

    problem = cones.Problem(
        inertia=jnp.eye(1),
        jacobian=jnp.zeros((1, count * dim)),
        stiffness=stiffness.T.reshape(-1),
        friction=(friction.T,),
        both_sides=0,
    )
    flat = residual.T.reshape(-1)
    weigh = jax.jit(problem.weigh)
    forces = weigh(flat, flat).reshape(dim, count).T
    slopes = jax.jit(jax.vmap(jax.grad(cone_cost)))(residual, stiffness, friction)
    np.testing.assert_allclose(forces, slopes, rtol=1e-4, atol=1e-5)
    unit = jnp.repeat(jnp.eye(dim)[..., None], count, -1).reshape(dim, -1)
    weights = weigh(flat, unit).reshape(dim, dim, count).transpose(2, 0, 1)
    hessian = jax.jit(jax.vmap(jax.hessian(cone_cost)))
    curvature = hessian(residual, stiffness, friction)
    np.testing.assert_allclose(weights, curvature, rtol=1e-4, atol=1e-4)


def test_plain_rows_push_or_do_both():
    problem = cones.Problem(
        inertia=jnp.eye(1),
        jacobian=jnp.zeros((1, 4)),
        stiffness=jnp.array([2.0, 3.0, 4.0, 5.0]),
        friction=(),
        both_sides=2,
    )
    residual = jnp.array([1.0, -1.0, 1.0, -1.0])
    found = problem.weigh(residual, residual)
    np.testing.assert_array_equal(found, [2, -3, 0, -5])


@pytest.mark.skipif(not HAS_METAWORLD, reason="needs the metaworld package")
def test_an_arm_that_touches_things_has_the_accelerations_of_mujoco():
    """Constraint rows are C MuJoCo's, and so is the solution that is compared."""
    model = copy.copy(Sawyer().on_engine("mjx").simulator.model)
    model.opt.iterations, model.opt.ls_iterations = 100, 50
    data, rng, solved = mujoco.MjData(model), np.random.default_rng(0), 0
    solve = jax.jit(newton.solve, static_argnums=(2, 3))
    for _ in range(30):
        data.mocap_pos[0] += rng.uniform([-0.01, -0.01, -0.02], 0.01)
        data.mocap_pos[0, 2] = max(data.mocap_pos[0, 2], 0.02)
        for _ in range(20):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        if data.nefc != data.ne + 12 or solved == 6:  # compiled for three contacts
            continue
        solved += 1
        inertia = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, inertia)
        made = types.SimpleNamespace(
            M=jnp.asarray(inertia, jnp.float32),
            ne=data.ne,
            nl=data.nl,
            efc_J=jnp.asarray(data.efc_J.reshape(-1, model.nv), jnp.float32),
            efc_D=jnp.asarray(data.efc_D, jnp.float32),
            contact=data.contact,
        )
        problem, order = cones.make_problem(made, model.opt.impratio)
        assert len(order) == data.nefc
        free = jnp.asarray(data.qacc_smooth, jnp.float32)
        residual = free @ problem.jacobian - data.efc_aref[order]
        start = newton.Point(jnp.zeros(model.nv), jnp.zeros(model.nv), residual)
        x, forces = solve(problem, (start, start), 12, 8)
        scale = np.abs(data.efc_force).max()
        np.testing.assert_allclose(forces, data.efc_force[order], atol=1e-3 * scale)
        scale = np.abs(data.qacc - data.qacc_smooth).max()
        np.testing.assert_allclose(free + x, data.qacc, atol=1e-3 * scale)
    assert solved == 6
