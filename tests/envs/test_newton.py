"""The constraint solver on problems of its own, against what must hold at a minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs.engines import newton

SIZE, ROWS = 6, 20


def symmetric(random, size):
    factor = random.normal(size=(size, size))
    return (factor @ factor.T + size * np.eye(size)).astype(np.float32)


def problem(seed, equalities=0):
    random = np.random.default_rng(seed)
    return newton.Problem(
        inertia=jnp.asarray(symmetric(random, SIZE)),
        jacobian=jnp.asarray(random.normal(size=(SIZE, ROWS)), jnp.float32),
        stiffness=jnp.asarray(random.uniform(1, 100, ROWS), jnp.float32),
        residual=jnp.asarray(10 * random.normal(size=ROWS), jnp.float32),
        num_equalities=equalities,
    )


def cost(problem, x):
    """The function to be minimised and its gradient, in float64."""
    inertia, jacobian, stiffness, residual = (
        np.asarray(a, np.float64)
        for a in (
            problem.inertia,
            problem.jacobian,
            problem.stiffness,
            problem.residual,
        )
    )
    rows = residual + x @ jacobian
    force = np.where(
        (rows < 0) | (np.arange(ROWS) < problem.num_equalities), stiffness * rows, 0
    )
    return 0.5 * (x @ inertia @ x + force @ rows), inertia @ x + jacobian @ force


@pytest.mark.parametrize("size", [1, 2, 9, newton.UNROLLED_SIZE, 20])
def test_a_symmetric_system_has_the_solution_of_numpy(size):
    random = np.random.default_rng(size)
    matrix, vector = symmetric(random, size), random.normal(size=size)
    x = jax.jit(newton.solve_symmetric)(matrix, jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(x, np.linalg.solve(matrix, vector), atol=1e-5)


@pytest.mark.parametrize("equalities", [0, 5])
def test_the_gradient_is_zero_at_the_solution(equalities):
    solve = jax.jit(lambda problem: newton.solve(problem, jnp.zeros(SIZE), 8, 4))
    for seed in range(10):
        case = problem(seed, equalities)
        x, forces = solve(case)
        before = np.abs(cost(case, np.zeros(SIZE))[1]).max()
        assert np.abs(cost(case, np.asarray(x, np.float64))[1]).max() < 1e-5 * before
        assert (forces[equalities:] >= 0).all()
        momentum = case.inertia @ x
        np.testing.assert_allclose(momentum, case.jacobian @ forces, atol=1e-2)


def test_each_iteration_lowers_the_cost_or_leaves_it():
    solve = jax.jit(newton.solve, static_argnums=(2, 3))
    for seed in range(5):
        case, start = problem(seed), jnp.zeros(SIZE)
        costs = [
            cost(case, np.asarray(solve(case, start, count, 4)[0], np.float64))[0]
            for count in (0, 1, 3)
        ]
        assert costs[1] < costs[0]
        assert (np.diff(costs) <= 1e-5 * costs[0]).all()


def test_a_warm_start_is_taken_where_it_is_better_than_none():
    case = problem(0)
    solve = jax.jit(newton.solve, static_argnums=(2, 3))
    solution = solve(case, jnp.zeros(SIZE), 8, 4)[0]
    np.testing.assert_array_equal(solve(case, solution, 0, 4)[0], solution)
    far = jnp.full(SIZE, 1e3)
    np.testing.assert_array_equal(solve(case, far, 0, 4)[0], jnp.zeros(SIZE))


def test_rows_that_are_not_violated_change_nothing():
    case = problem(0).replace(residual=jnp.full(ROWS, 10.0))
    x, forces = jax.jit(newton.solve, static_argnums=(2, 3))(
        case, jnp.zeros(SIZE), 3, 4
    )
    np.testing.assert_array_equal(x, jnp.zeros(SIZE))
    np.testing.assert_array_equal(forces, jnp.zeros(ROWS))
