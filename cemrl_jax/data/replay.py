"""Replay on the device: a ring of transitions per environment, sampled as windows.

Every environment appends equally long chunks, each of which begins an episode, and the
ring holds a whole number of chunks: so what is overwritten is always a whole chunk, and
no window ever reaches across the write position.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.data.types import ReplayState, Transition

SPLITS = ("all", "train", "validation")

Place = tuple[Array, Array]
"""Environments and indices of transitions in a replay, of one shape."""


def init(example: Transition, num_envs: int, length: int) -> ReplayState:
    """Returns an empty replay.

    Args:
      example: one transition without leading axes; only shapes and dtypes matter.
      num_envs: E, environments that this device collects from.
      length: L, transitions kept for each of them.
    """
    data = jax.tree.map(
        lambda leaf: jnp.zeros((num_envs, length, *leaf.shape), leaf.dtype), example
    )
    return ReplayState(data=data, cursor=jnp.int32(0), size=jnp.int32(0))


def add(state: ReplayState, chunk: Transition) -> ReplayState:
    """Appends `[E, n]` transitions that begin an episode; `n` divides the length.

    Raises:
      ValueError: `n` does not divide the length.
    """
    length, steps = state.data.step.shape[1], chunk.step.shape[1]
    if length % steps:
        raise ValueError(f"replay length {length} must be a multiple of {steps} steps")
    data = jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(
            ring, new.astype(ring.dtype), state.cursor, 1
        ),
        state.data,
        chunk,
    )
    return ReplayState(
        data=data,
        cursor=(state.cursor + steps) % length,
        size=jnp.minimum(state.size + steps, length),
    )


def draw(
    state: ReplayState, key: Array, batch_size: int, split: str, fold: int
) -> Place:
    """Draws places of transitions, uniformly and with replacement.

    Args:
      state: the replay; it must not be empty.
      key: the key is consumed.
      batch_size: B.
      split: `"all"`, or `"train"` or `"validation"`, which share out the transitions.
      fold: one in `fold` transitions is for validation; its place among its `fold`
        neighbours is pseudo-random but never changes.

    Returns:
      Environment `[B]` and index `[B]` below the replay's size.
    """
    key_env, key_index = jax.random.split(key)
    env = jax.random.randint(key_env, (batch_size,), 0, state.data.step.shape[0])
    return env, _draw_index(key_index, env, state.size, split, fold)


def draw_segments(
    state: ReplayState, key: Array, num_segments: int, size: int, num_steps: int
) -> Place:
    """Draws runs of consecutive transitions; each transition is equally likely.

    A run that reaches the end of its chunk goes on at the chunk's beginning, which is
    the beginning of an episode: so none gets into another chunk, and the transitions
    near both ends come as often as all others.

    Args:
      state: the replay; it must not be empty.
      key: the key is consumed.
      num_segments: S.
      size: W, transitions in a run, at most `num_steps`.
      num_steps: n, the length of a chunk.

    Returns:
      Environments `[S, W]`, all the same in a run, and indices `[S, W]`.
    """
    env, start = draw(state, key, num_segments, "all", 1)
    offset = (start % num_steps)[:, None] + jnp.arange(size)
    index = (start - start % num_steps)[:, None] + offset % num_steps
    return jnp.broadcast_to(env[:, None], index.shape), index


def draw_of_episode(
    state: ReplayState, key: Array, place: Place, num_steps: int
) -> Place:
    """Draws for each place another one in its chunk, uniformly.

    Args:
      state: the replay.
      key: the key is consumed.
      place: environments and indices, of one shape.
      num_steps: n, the length of a chunk.

    Returns:
      Environments and indices of the same shape.
    """
    del state
    env, index = place
    step = jax.random.randint(key, index.shape, 0, num_steps)
    return env, index - index % num_steps + step


def draw_of_task(state: ReplayState, key: Array, place: Place, num_steps: int) -> Place:
    """Draws for each place one that has the same task, uniformly, of any chunk.

    A chunk has one task from beginning to end.

    Args:
      state: the replay; it must not be empty.
      key: the key is consumed.
      place: environments and indices, of one shape.
      num_steps: n, the length of a chunk.

    Returns:
      Environments and indices of the same shape.
    """
    env, index = place
    key_chunk, key_step = jax.random.split(key)
    numbers = state.data.task.number[:, ::num_steps]  # [E, C], one for each chunk
    num_chunks = numbers.shape[1]
    filled = jnp.arange(num_chunks) < state.size // num_steps
    flat = jnp.where(filled, numbers, jnp.iinfo(numbers.dtype).max).reshape(-1)
    by_number = jnp.argsort(flat)
    own = numbers[env, index // num_steps]
    first, end = (
        jnp.searchsorted(flat[by_number], own, side) for side in ("left", "right")
    )
    chunk = by_number[jax.random.randint(key_chunk, env.shape, first, end)]
    step = jax.random.randint(key_step, env.shape, 0, num_steps)
    return chunk // num_chunks, chunk % num_chunks * num_steps + step


DECODED: dict[str, Callable[[ReplayState, Array, Place, int], Place] | None] = {
    "current": None,
    "episode": draw_of_episode,
    "task": draw_of_task,
}
"""What the decoder predicts -> how its place is drawn; None for the window's own."""


def segments(data: Any, place: Place, window: int, num_steps: int) -> Any:
    """Gathers what stands in runs of a chunk and the `window` entries before them.

    Args:
      data: arrays `[E, L, ...]`.
      place: environments and indices `[S, W]` of `draw_segments`.
      window: T.
      num_steps: n, the length of a chunk.

    Returns:
      The same arrays `[S, T + W, ...]`. The T entries before a place are those before
      it in the episode, as far as there are any (see `exists`).
    """
    env, index = place
    chunk = index[:, :1] - index[:, :1] % num_steps
    lag = jnp.arange(-window, index.shape[1])
    rows = chunk + (index[:, :1] + lag) % num_steps
    return jax.tree.map(lambda leaf: leaf[env[:, :1], rows], data)


def is_in_train(place: Place, size: Array, fold: int) -> Array:
    """Returns which places the split "train" of `draw` shares out."""
    env, index = place
    held_out = _mix(index // fold, env) % fold
    return (index % fold != held_out) & (index < size // fold * fold)


def windows(data: Any, place: Place, window: int) -> Any:
    """Gathers what stands at a place and the `window` entries before it.

    Args:
      data: arrays `[E, L, ...]`.
      place: environment and index, `[B]` each.
      window: T.

    Returns:
      The same arrays `[B, T + 1, ...]`, oldest first; those from before the start of
      the episode belong to something else (see `exists`).
    """
    env, index = place
    lag = jnp.arange(window, -1, -1)
    return jax.tree.map(
        lambda leaf: leaf[env[:, None], (index[:, None] - lag) % leaf.shape[1]], data
    )


def exists(step: Array, window: int) -> Array:
    """Returns which of the `window` entries before a transition are of its episode.

    Args:
      step: `[B]` index of the transition in its episode.
      window: T.

    Returns:
      `[B, T]` bool, oldest first.
    """
    return jnp.arange(window, 0, -1) <= step[:, None]


@functools.partial(jax.jit, donate_argnums=0)
def paste(data: Any, chunk: Any, start: int) -> Any:
    """Returns replays `[D, E, L, ...]` with a chunk `[D, E, n, ...]` from `start` on.

    With several seeds both have their axis after D.
    """
    axis = data.step.ndim - 1
    return jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, start, axis),
        data,
        chunk,
    )


@functools.partial(jax.jit, static_argnames="num_steps")
def cut(data: Any, seed: int | None, start: int, num_steps: int) -> Any:
    """Returns a chunk `[D, E, n, ...]` of replays `[D, E, L, ...]`.

    With several seeds, `[D, S, E, L, ...]`, of the one with this number.
    """

    def one(leaf: Array) -> Array:
        own = leaf
        if seed is not None:
            own = jax.lax.dynamic_index_in_dim(leaf, seed, 1, keepdims=False)
        return jax.lax.dynamic_slice_in_dim(own, start, num_steps, 2)

    return jax.tree.map(one, data)


def num_bytes(example: Transition, num_envs: int, length: int) -> int:
    """Returns the memory that `init` allocates with these arguments, bytes."""
    shapes = jax.eval_shape(lambda: init(example, num_envs, length))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _draw_index(key: Array, env: Array, size: Array, split: str, fold: int) -> Array:
    """Draws an index `[B]` below `size` for each environment `[B]`."""
    if split == "all":
        return jax.random.randint(key, env.shape, 0, size)
    num_groups = size // fold
    per_group = {"train": fold - 1, "validation": 1}[split]
    draw = jax.random.randint(key, env.shape, 0, num_groups * per_group)
    group, place = draw // per_group, draw % per_group
    held_out = _mix(group, env) % fold
    offset = place + 1 if split == "train" else 0
    return group * fold + (held_out + offset) % fold


def _mix(a: Array, b: Array) -> Array:
    """Hashes pairs of integers to non-negative ones (a 32-bit finaliser)."""
    x = a.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    x = x ^ b.astype(jnp.uint32) * jnp.uint32(0x85EBCA77)
    x = (x ^ (x >> 15)) * jnp.uint32(0x2C1B3C6D)
    x = (x ^ (x >> 12)) * jnp.uint32(0x297A2D39)
    return ((x ^ (x >> 15)) >> 1).astype(jnp.int32)
