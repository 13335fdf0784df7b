"""Shapes from which rewards are built: each is a number from 0 to 1.

They follow dm_control's rewards, as Meta-World does.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

Tail = Callable[[Array], Array]
"""How a value falls with the distance from where it is 1, in units of the margin."""


def long_tail(distance: Array) -> Array:
    """Falls to a tenth at distance 1, slowly beyond."""
    return 1 / (1 + (3 * distance) ** 2)


def gaussian(distance: Array) -> Array:
    """Falls to a tenth at distance 1, quickly beyond."""
    return 0.1 ** (distance**2)


def tolerance(
    x: Array,
    upper: float,
    margin: float | Array,
    lower: float = 0.0,
    tail: Tail = long_tail,
) -> Array:
    """Is 1 for `x` from `lower` to `upper`, and has fallen to 0.1 `margin` outside.

    A margin of 0 makes it 0 everywhere outside; its sign does not matter.
    """
    beyond = jnp.maximum(lower - x, x - upper)
    inside = beyond <= 0
    return jnp.where(inside, 1.0, tail(jnp.where(inside, 1.0, beyond) / margin))


def hamacher(a: Array, b: Array) -> Array:
    """A soft "and": the product of two numbers over their probabilistic sum.

    It is 0 if both are.
    """
    product = a * b
    either = a + b - product
    return jnp.where(either > 0, product / jnp.where(either > 0, either, 1.0), 0.0)


def prism(x: Array, zero: Array, one: Array) -> Array:
    """Rises inside a box from its corner `zero` `[3]` to `one` `[3]`; 1 outside."""
    share = (x - zero) / (one - zero)
    inside = ((share >= 0) & (share <= 1)).all()
    return jnp.where(inside, share.prod(), 1.0)
