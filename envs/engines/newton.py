"""The constraint solver: Newton's method in a fixed number of small operations.

A control step takes an accelerator as long as it has kernels, and MJX's solver was most
of them: loops that end when every environment has converged, and library calls for
matrices of nine rows. Here each iteration does the same arithmetic whatever the values
are, and small matrices are factorised entry by entry, which XLA fuses.

The problem (MuJoCo's documentation, "Computation"): with x the distance of the joint
accelerations from those without constraints, minimise

    1/2 x' M x + 1/2 r' W(r) r,   r = J (a_smooth + x) - a_ref.

W is D on the diagonal where r < 0 and zero elsewhere; `cones` has another one. In both,
doubling r leaves W as it is, so W r is the cost's gradient and W its Hessian.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

UNROLLED_SIZE = 16
"""Matrices of up to this many rows are factorised entry by entry. The program for
larger ones would take minutes to compile, so those go to a library."""


class Problem(struct.PyTreeNode):
    """What the solver minimises; R constraint rows, V degrees of freedom.

    Attributes:
      inertia: `[V, V]` M.
      jacobian: `[V, R]` J, transposed.
      stiffness: `[R]` D, positive.
    """

    inertia: Array
    jacobian: Array
    stiffness: Array

    def weigh(self, residual: Array, columns: Array) -> Array:
        """Returns W(residual `[R]`) times columns `[..., R]`."""
        return jnp.where(residual < 0, self.stiffness, 0) * columns

    def cost(self, point: "Point") -> Array:
        """Returns the function to be minimised `[]`."""
        residual = point.residual
        contacts = (self.weigh(residual, residual) * residual).sum()
        return 0.5 * (dot(point.x, point.momentum) + contacts)

    def direction(self, x: Array) -> "Point":
        """Returns how a candidate changes when `x` changes by this `[V]`."""
        return Point(x, combine(self.inertia, x), combine(self.jacobian, x))

    def starts(self, x: Array, residuals: Array) -> tuple["Point", "Point"]:
        """Returns the candidates 0 and `x` `[V]`; `residuals` `[2, R]` are theirs."""
        zero = jnp.zeros_like(x)
        momentum = combine(self.inertia, x)
        return Point(zero, zero, residuals[0]), Point(x, momentum, residuals[1])


class Point(struct.PyTreeNode):
    """A candidate, or the difference of two: all fields are linear in `x`.

    Attributes:
      x: `[V]` the accelerations' distance from those without constraints.
      momentum: `[V]` M x.
      residual: `[R]` r.
    """

    x: Array
    momentum: Array
    residual: Array

    def moved(self, direction: "Point", step: Array) -> "Point":
        """Returns the candidate a step `[]` further in a direction."""
        return jax.tree.map(lambda a, b: a + step * b, self, direction)


class Slope(struct.PyTreeNode):
    """The cost along a line, at one place.

    Attributes:
      step: `[]` how far from the start.
      first: `[]` the derivative.
      second: `[]` the second derivative, positive.
    """

    step: Array
    first: Array
    second: Array

    def newton(self) -> Array:
        """Returns the step to where the derivative would be zero."""
        return self.step - self.first / self.second


def solve(
    problem: Problem, starts: tuple[Point, Point], iterations: int, ls_iterations: int
) -> tuple[Array, Array]:
    """Minimises the problem.

    Args:
      problem: the problem.
      starts: two candidates; the better one is the start.
      iterations: Newton steps.
      ls_iterations: refinements of each step's length.

    Returns:
      x `[V]` and the constraint forces `[R]`.
    """
    one, other = starts
    point = _choose(problem.cost(other) < problem.cost(one), other, one)
    point = jax.lax.fori_loop(
        0, iterations, lambda _, point: _iterate(problem, point, ls_iterations), point
    )
    return point.x, -problem.weigh(point.residual, point.residual)


def _iterate(problem: Problem, point: Point, ls_iterations: int) -> Point:
    """Takes one Newton step."""
    # One product for the Hessian and the gradient: the residual is one more column.
    columns = jnp.concatenate([problem.jacobian, point.residual[None]])
    weighted = problem.weigh(point.residual, columns)
    product = jnp.einsum("ir,jr->ij", weighted, columns)
    size = len(problem.jacobian)
    gradient = point.momentum + product[:size, size]
    hessian = problem.inertia + product[:size, :size]
    direction = problem.direction(-solve_symmetric(hessian, gradient))
    descent = dot(gradient, direction.x)
    start = Slope(step=jnp.zeros_like(descent), first=descent, second=-descent)
    step = _line_search(problem, point, direction, start, ls_iterations)
    return point.moved(direction, step)


def _line_search(
    problem: Problem, point: Point, direction: Point, start: Slope, iterations: int
) -> Array:
    """Returns how far `[]` to go.

    The derivative along the line grows, from a negative value; most of it is linear.
    `low` is the furthest point known where it is negative, `high` the nearest where it
    is not, or `low` again as long as none is known. Newton's steps from both and one
    more guess are tried at once. Costs are not compared: they differ by less than
    float32 shows long before the derivatives do.
    """
    slope = functools.partial(_slope, problem, point, direction)
    low, high = _narrowed(start, start, slope(start.newton()))
    for _ in range(iterations):
        from_low = low.newton()
        middle = 0.5 * (low.step + high.step)
        guess = jnp.where(high.first < 0, 2 * from_low - low.step, middle)
        for tried in [slope(step) for step in (from_low, high.newton(), guess)]:
            low, high = _narrowed(low, high, tried)
    return jnp.where(-low.first < jnp.abs(high.first), low.step, high.step)


def _slope(problem: Problem, point: Point, direction: Point, step: Array) -> Slope:
    """Evaluates the place a step `[]` along a line."""
    residual = point.residual + step * direction.residual
    force = problem.weigh(residual, direction.residual)
    linear = dot(direction.x, point.momentum)
    square = dot(direction.x, direction.momentum)
    return Slope(
        step=step,
        first=(force * residual).sum() + linear + step * square,
        second=(force * direction.residual).sum() + square,
    )


def _narrowed(low: Slope, high: Slope, new: Slope) -> tuple[Slope, Slope]:
    """Returns `low` and `high` of `_line_search` after one more point is known."""
    known = high.first >= 0
    nearer_low = (new.first < 0) & (new.first > low.first)
    nearer_high = (new.first >= 0) & (~known | (new.first < high.first))
    low = _choose(nearer_low, new, low)
    return low, _choose(nearer_high, new, _choose(known, high, low))


def _choose(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def dot(a: Array, b: Array) -> Array:
    """Returns the product `[]` of two short vectors, as sums that XLA fuses."""
    products = a * b
    return functools.reduce(jnp.add, [products[i] for i in range(len(a))])


def combine(columns: Array, weights: Array) -> Array:
    """Returns the sum `[N]` of columns `[V, N]` times weights `[V]`, likewise."""
    return functools.reduce(
        jnp.add, [columns[i] * weights[i] for i in range(len(columns))]
    )


def solve_symmetric(matrix: Array, vector: Array) -> Array:
    """Solves a positive definite system.

    Args:
      matrix: `[V, V]`.
      vector: `[V]`.

    Returns:
      The solution `[V]`.
    """
    size = len(vector)
    if size > UNROLLED_SIZE:
        factor = jax.scipy.linalg.cho_factor(matrix)
        return jax.scipy.linalg.cho_solve(factor, vector)
    lower, inverse = _factorise(matrix)
    y: list[Array] = []
    for i in range(size):
        y.append(_less_products(vector[i], lower[i], y))
    x: list[Array] = []
    for i in reversed(range(size)):
        above = [lower[j][i] for j in reversed(range(i + 1, size))]
        x.append(_less_products(y[i] * inverse[i], above, x))
    return jnp.stack(x[::-1])


def _factorise(matrix: Array) -> tuple[list[list[Array]], list[Array]]:
    """Returns L below its diagonal of ones, and 1 / D, of a matrix L D L'."""
    lower, inverse = [], []
    for i in range(len(matrix)):
        scaled: list[Array] = []  # the row of L D
        for j in range(i):
            scaled.append(_less_products(matrix[i, j], lower[j], scaled))
        row = [a * b for a, b in zip(scaled, inverse)]
        inverse.append(1 / _less_products(matrix[i, i], row, scaled))
        lower.append(row)
    return lower, inverse


def _less_products(value: Array, a: Sequence[Array], b: Sequence[Array]) -> Array:
    for x, y in zip(a, b):
        value = value - x * y
    return value
