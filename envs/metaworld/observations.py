"""Observations of Meta-World, for ONE environment.

what                                  numbers
hand                                  3
opening of the gripper                1
position and orientation of an object 3 + 4
a second object, zero if there is none 7
the same 18 numbers a step before     18
target, zero in meta-learning         3
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.envs.metaworld.scene import SOURCES, Order, Scene, Source

SIZE = 39
"""Length of an observation."""
CURRENT_SIZE = 18
"""Length of its part that describes one moment."""
HAND_LOW = np.array([-0.525, 0.348, -0.0525], np.float32)
HAND_HIGH = np.array([0.525, 1.025, 0.7], np.float32)


def clip_hand(hand: Array) -> Array:
    """Returns the hand's position `[3]` as it is observed, m."""
    return jnp.clip(hand, HAND_LOW, HAND_HIGH)


def opening(right_claw: Array, left_claw: Array) -> Array:
    """Returns how open the gripper is `[]`, 0 to 1, from its claws' positions `[3]`."""
    return jnp.clip(jnp.linalg.norm(right_claw - left_claw) / 0.1, 0.0, 1.0)


def scalar_last(quaternion: Array) -> Array:
    """Returns x, y, z, w, with the largest of them positive, from w, x, y, z."""
    last = jnp.roll(quaternion, -1)
    return last * jnp.where(last[jnp.argmax(jnp.abs(last))] < 0, -1.0, 1.0)


ORDERS = {
    Order.NONE: jnp.zeros_like,
    Order.SCALAR_FIRST: lambda quaternion: quaternion,
    Order.SCALAR_LAST: scalar_last,
}
"""How an orientation is observed -> the four numbers from w, x, y, z."""


def orientation(quaternion: Array, source: Source) -> Array:
    """Returns what is observed `[4]` of the orientation of the source's body."""
    w, x, y, z = quaternion
    times = jnp.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    # A sum, since a matrix product may round to fewer bits on accelerators.
    return ORDERS[source.order]((times * jnp.array(source.turn)).sum(-1))


def current(names: Sequence[str], kind: Array, scene: Scene) -> Array:
    """Returns what task `names[kind]` observes of one moment `[18]`."""
    sources = [functools.partial(orientation, source=SOURCES[name]) for name in names]
    turned = jax.lax.switch(kind, sources, scene.quaternion)
    parts = [clip_hand(scene.hand), scene.opening[None], scene.object, turned]
    seen = jnp.concatenate(parts)
    return jnp.pad(seen, (0, CURRENT_SIZE - seen.size))


def observation(now: Array, before: Array) -> Array:
    """Returns the observation `[39]` from two moments `[18]`.

    At the start of an episode both are the same.
    """
    return jnp.pad(jnp.concatenate([now, before]), (0, SIZE - 2 * CURRENT_SIZE))
