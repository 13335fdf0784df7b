"""The constraint solver on problems of its own, against what must hold at a minimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs.engines import newton

SIZE, ROWS = 6, 20


def symmetric(random, size):
    factor = random.normal(size=(size, size))
    return (factor @ factor.T + size * np.eye(size)).astype(np.float32)


def problem(seed):
    """A problem and the residual of its rows at zero."""
    random = np.random.default_rng(seed)
    return newton.Problem(
        inertia=jnp.asarray(symmetric(random, SIZE)),
        jacobian=jnp.asarray(random.normal(size=(SIZE, ROWS)), jnp.float32),
        stiffness=jnp.asarray(random.uniform(1, 100, ROWS), jnp.float32),
    ), jnp.asarray(10 * random.normal(size=ROWS), jnp.float32)


@functools.partial(jax.jit, static_argnames="iterations")
def solve(case, residual, x, iterations):
    """Solves a problem from `x` or zero, whichever is better."""
    zero = newton.Point(jnp.zeros(SIZE), jnp.zeros(SIZE), residual)
    start = zero.moved(case.direction(x), jnp.float32(1))
    return newton.solve(case, (zero, start), iterations, 4)


def cost(case, residual, x):
    """The function to be minimised and its gradient, in float64."""
    x, inertia, jacobian, stiffness, residual = (
        np.asarray(a, np.float64)
        for a in (x, case.inertia, case.jacobian, case.stiffness, residual)
    )
    rows = residual + x @ jacobian
    force = np.where(rows < 0, stiffness * rows, 0)
    return 0.5 * (x @ inertia @ x + force @ rows), inertia @ x + jacobian @ force


@pytest.mark.parametrize("size", [1, 2, 9, newton.UNROLLED_SIZE, 20])
def test_a_symmetric_system_has_the_solution_of_numpy(size):
    random = np.random.default_rng(size)
    matrix, vector = symmetric(random, size), random.normal(size=size)
    x = jax.jit(newton.solve_symmetric)(matrix, jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(x, np.linalg.solve(matrix, vector), atol=1e-5)


def test_the_gradient_is_zero_at_the_solution():
    for seed in range(10):
        case, residual = problem(seed)
        x, forces = solve(case, residual, jnp.zeros(SIZE), 8)
        before = np.abs(cost(case, residual, np.zeros(SIZE))[1]).max()
        assert np.abs(cost(case, residual, x)[1]).max() < 1e-5 * before
        assert (forces >= 0).all()
        assert (forces > 0).any()
        momentum = case.inertia @ x
        np.testing.assert_allclose(momentum, case.jacobian @ forces, atol=1e-2)


def test_each_iteration_lowers_the_cost_or_leaves_it():
    for seed in range(5):
        case, residual = problem(seed)
        costs = [
            cost(case, residual, solve(case, residual, jnp.zeros(SIZE), count)[0])[0]
            for count in (0, 1, 3)
        ]
        assert costs[1] < costs[0]
        assert (np.diff(costs) <= 1e-5 * costs[0]).all()


def test_a_warm_start_is_taken_where_it_is_better_than_none():
    case, residual = problem(0)
    solution = solve(case, residual, jnp.zeros(SIZE), 8)[0]
    np.testing.assert_array_equal(solve(case, residual, solution, 0)[0], solution)
    far = jnp.full(SIZE, 1e3)
    np.testing.assert_array_equal(solve(case, residual, far, 0)[0], jnp.zeros(SIZE))


def test_rows_that_are_not_violated_change_nothing():
    case, _ = problem(0)
    x, forces = solve(case, jnp.full(ROWS, 10.0), jnp.zeros(SIZE), 3)
    np.testing.assert_array_equal(x, jnp.zeros(SIZE))
    np.testing.assert_array_equal(forces, jnp.zeros(ROWS))
