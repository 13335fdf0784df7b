"""Vectors and matrices of three whose entries are separate: arrays `[]` or numbers.

Products with the number zero and sums with it are left out, which is most of the work
where a model's axes are those of the frame.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Scalar = float | Array
Vector = tuple[Scalar, ...]
Matrix = tuple[Vector, ...]
"""Rows."""


def unpack(values: Any) -> Any:
    """Returns nested tuples of the entries of an array, numbers where it is NumPy's."""
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return 0.0 if abs(values) < 1e-12 else float(values)
    if values.ndim == 0:
        return values
    return tuple(unpack(values[i]) for i in range(len(values)))


def pack(values: Any) -> Array:
    """Returns the array of nested tuples of scalars."""
    flat, shape = [], []
    level = values
    while isinstance(level, list | tuple):
        shape.append(len(level))
        level = level[0]
    flat = jax.tree.leaves(values)
    return jnp.stack([jnp.asarray(x, jnp.float32) for x in flat]).reshape(shape)


def is_number(a: Scalar, value: float) -> bool:
    """Returns whether a scalar is this number when compiled."""
    return isinstance(a, float) and a == value


def plus(a: Scalar, b: Scalar) -> Scalar:
    """Returns a + b."""
    if is_number(a, 0.0):
        return b
    return a if is_number(b, 0.0) else a + b


def minus(a: Scalar, b: Scalar) -> Scalar:
    """Returns a - b."""
    if is_number(a, 0.0):
        return -b
    return a if is_number(b, 0.0) else a - b


def times(a: Scalar, b: Scalar) -> Scalar:
    """Returns a b."""
    if is_number(a, 0.0) or is_number(b, 0.0):
        return 0.0
    if is_number(a, 1.0):
        return b
    return a if is_number(b, 1.0) else a * b


def add(u: Vector, v: Vector) -> Vector:
    """Returns u + v."""
    return tuple(plus(a, b) for a, b in zip(u, v, strict=True))


def subtract(u: Vector, v: Vector) -> Vector:
    """Returns u - v."""
    return tuple(minus(a, b) for a, b in zip(u, v, strict=True))


def scale(u: Vector, factor: Scalar) -> Vector:
    """Returns u times a scalar."""
    return tuple(times(a, factor) for a in u)


def dot(u: Vector, v: Vector) -> Scalar:
    """Returns the inner product."""
    total: Scalar = 0.0
    for a, b in zip(u, v, strict=True):
        total = plus(total, times(a, b))
    return total


def cross(u: Vector, v: Vector) -> Vector:
    """Returns the vector product."""
    return tuple(
        minus(times(u[i], v[j]), times(u[j], v[i])) for i, j in ((1, 2), (2, 0), (0, 1))
    )


def transpose(matrix: Matrix) -> Matrix:
    """Returns the transpose."""
    return tuple(zip(*matrix))


def apply(matrix: Matrix, v: Vector) -> Vector:
    """Returns a matrix times a vector."""
    return tuple(dot(row, v) for row in matrix)


def multiply(a: Matrix, b: Matrix) -> Matrix:
    """Returns the product of two matrices."""
    columns = transpose(b)
    return tuple(tuple(dot(row, column) for column in columns) for row in a)


def rotation(quaternion: Vector) -> Matrix:
    """Returns the matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    double = lambda a, b: times(2.0, times(a, b))  # noqa: E731
    return (
        (
            minus(1.0, plus(double(y, y), double(z, z))),
            minus(double(x, y), double(w, z)),
            plus(double(x, z), double(w, y)),
        ),
        (
            plus(double(x, y), double(w, z)),
            minus(1.0, plus(double(x, x), double(z, z))),
            minus(double(y, z), double(w, x)),
        ),
        (
            minus(double(x, z), double(w, y)),
            plus(double(y, z), double(w, x)),
            minus(1.0, plus(double(x, x), double(y, y))),
        ),
    )


def turn(axis: Vector, angle: Scalar) -> Matrix:
    """Returns the matrix that turns about a unit axis by an angle, rad."""
    half = jnp.asarray(0.5 * angle)
    return rotation((jnp.cos(half), *scale(axis, jnp.sin(half))))
