"""Random vectors: how each task of Meta-World draws where things are.

Ranges and places are those of metaworld 3.1.1; all lengths are in m.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

Point = tuple[float, float, float]
Places = Callable[[Array], tuple[Array, Array, Array]]

ORIGIN = (0.0, 0.0, 0.0)
PUCK_REST = 0.0194046838
"""Height of the puck that has come to rest, where it starts in "push"."""
CUBE_REST = 0.0199360465
"""The same of the cube in "shelf-place"."""
TABLE_REST = 0.0699354599
"""The same of the cube in "sweep-into", on the table with the hole."""
BALL_REST = 0.0299999989
"""The same of the ball in "basketball"."""


@dataclasses.dataclass(frozen=True)
class Vector:
    """The random vector of a task.

    Attributes:
      low: lower ends of the ranges that its entries are drawn from, uniformly.
      high: upper ends.
      places: entries `[n]` -> where the fixture, the object and the target are, `[3]`
        each; the fixture is at `ORIGIN` where there is none.
      apart: smallest distance of its first three entries from its last three, on the
        table; draws that are closer do not count.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    places: Places
    apart: float = 0.0

    def draw(self, key: Array) -> Array:
        """Returns fixture, object and target `[9]` of a task; the key is consumed."""

        def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            key, key_draw = jax.random.split(carry[0])
            low, high = jnp.array(self.low), jnp.array(self.high)
            return key, jax.random.uniform(key_draw, low.shape, None, low, high)

        def close(carry: tuple[Array, Array]) -> Array:
            distance = jnp.linalg.norm(carry[1][:2] - carry[1][-3:-1])
            return distance < self.apart

        vector = jax.lax.while_loop(close, again, again((key, jnp.zeros(0))))[1]
        return jnp.concatenate(self.places(vector))


def free(rest: float | None = None, target: Point | None = None) -> Places:
    """Entries: an object that lies about, and its target.

    Args:
      rest: height that the object starts at, if its entry does not count.
      target: the target, if its entries do not count.
    """

    def places(vector: Array) -> tuple[Array, Array, Array]:
        start = vector[:3] if rest is None else vector[:3].at[2].set(rest)
        goal = vector[3:] if target is None else jnp.array(target)
        return jnp.array(ORIGIN), start, goal

    return places


def fixed(target: Point, start: Point = ORIGIN) -> Places:
    """Entries: a fixture, from which object and target have a fixed distance."""

    def places(vector: Array) -> tuple[Array, Array, Array]:
        return vector, vector + jnp.array(start), vector + jnp.array(target)

    return places


def beside(target: Point, fixture: Point = ORIGIN, rest: float | None = None) -> Places:
    """Entries: an object that lies about, and what fixture and target belong to.

    Args:
      target: the target, from the second place.
      fixture: the fixture, from the second place.
      rest: height that the object starts at, if its entry does not count.
    """

    def places(vector: Array) -> tuple[Array, Array, Array]:
        start = vector[:3] if rest is None else vector[:3].at[2].set(rest)
        second = vector[3:]
        return second + jnp.array(fixture), start, second + jnp.array(target)

    return places


def pushed_puck(vector: Array) -> tuple[Array, Array, Array]:
    """Entries: the puck and its target, both of which are as high as it rests."""
    fixture, start, target = free(PUCK_REST)(vector)
    return fixture, start, target.at[2].set(PUCK_REST)


def swept(vector: Array) -> tuple[Array, Array, Array]:
    """Entries: the cube, which is to be swept off the table along x."""
    target = jnp.stack([jnp.float32(0.5), vector[1], jnp.float32(0.01)])
    return jnp.array(ORIGIN), vector, target


def _box(*ranges: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns lower and upper ends of ranges, each of one number or two."""
    low, high = zip(*((pair[0], pair[-1]) for pair in ranges))
    return low, high


_SIDE = (-0.1, 0.1)
_PUCK = (_SIDE, (0.6, 0.7), (0.02,))
_AIR = (_SIDE, (0.8, 0.9), (0.05, 0.3))
_DOOR = _box((0.0, 0.1), (0.85, 0.95), (0.15,))
_DRAWER = _box(_SIDE, (0.9,), (0.0,))
_BUTTON = _box(_SIDE, (0.8, 0.9), (0.115,))
_PEG = _box((0.0, 0.2), (0.5, 0.7), (0.02,), (-0.35, -0.25), (0.4, 0.7), (-1e-3, 1e-3))
_BALL = (_SIDE, (0.6, 0.7), (0.0299, 0.0301))
_SHELF = (_SIDE, (0.5, 0.6), (0.019, 0.021))

VECTORS: dict[str, Vector] = {
    "reach": Vector(*_box(*_PUCK, *_AIR), free(), 0.15),
    "push": Vector(*_box(*_PUCK, _SIDE, (0.8, 0.9), (0.01, 0.02)), pushed_puck, 0.15),
    "pick-place": Vector(*_box(*_PUCK, *_AIR), free(), 0.15),
    "door-open": Vector(*_DOOR, fixed((-0.3, -0.45, 0.0))),
    "drawer-close": Vector(*_DRAWER, fixed((0.0, -0.16, 0.09), (0.0, -0.32, 0.14))),
    "button-press-topdown": Vector(*_BUTTON, fixed((0.0, -7.96326711e-05, 0.1))),
    "peg-insert-side": Vector(*_PEG, beside((0.03, 0.0, 0.13)), 0.1),
    "window-open": Vector(*_box(_SIDE, (0.7, 0.9), (0.16,)), fixed((0.2, 0.0, 0.0))),
    "sweep": Vector(*_box(*_PUCK), swept),
    "basketball": Vector(
        *_box(*_BALL, _SIDE, (0.85, 0.9), (0.0,)),
        beside((0.0, -0.083, 0.25), rest=BALL_REST),
        0.15,
    ),
    "drawer-open": Vector(*_DRAWER, fixed((0.0, -0.36, 0.09))),
    "door-close": Vector(*_DOOR, fixed((0.2, -0.2, 0.0))),
    "shelf-place": Vector(
        *_box(*_SHELF, _SIDE, (0.8, 0.9), (0.299, 0.301)),
        beside(ORIGIN, (0.0, 0.0, -0.3), CUBE_REST),
        0.1,
    ),
    "sweep-into": Vector(
        *_box(*_PUCK, (-1e-3, 1e-3), (0.8399, 0.8401), (0.0199, 0.0201)),
        free(TABLE_REST, (0.0, 0.84, 0.02)),
        0.15,
    ),
    "lever-pull": Vector(*_box(_SIDE, (0.7, 0.8), (0.0,)), fixed((0.12, 0.0, 0.45))),
    "window-close": Vector(*_box((0.0,), (0.75, 0.9), (0.2,)), fixed(ORIGIN)),
}
"""Task -> its random vector."""

NAMES = tuple(VECTORS)
"""All tasks, those of ML10 in its order."""
FIRST_KIND = 100
"""`Task.kind` of the first of them; the smaller ones are rewards of locomotion."""
