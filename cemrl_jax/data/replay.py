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

from cemrl_jax.data import packing
from cemrl_jax.data.packing import Packed
from cemrl_jax.data.types import ReplayState, Transition

SPLITS = ("all", "train", "validation")
CANDIDATES = 4
"""Places of an episode tried for one with the same task: with four tasks in equal parts
two in three are found."""

Place = tuple[Array, Array]
"""Environments and indices of transitions in a replay, of one shape."""


def init(
    example: Transition,
    num_envs: int,
    length: int,
    num_steps: int,
    can_fall: bool = True,
    platform: str | None = None,
) -> ReplayState:
    """Returns an empty replay.

    Args:
      example: one transition without leading axes; only shapes matter.
      num_envs: E, environments that this device collects from.
      length: L, transitions kept for each of them.
      num_steps: n, the length of a chunk.
      can_fall: whether robots can fall, so that a chunk may have many episodes.
      platform: of the devices that hold it; None for JAX's default.

    Raises:
      ValueError: `num_steps` does not divide the length.
    """
    if length % num_steps:
        raise ValueError(
            f"replay length {length} must be a multiple of {num_steps} steps"
        )
    size = packing.num_ends(num_steps, can_fall)
    tile = packing.tile(platform or jax.default_backend())
    form = packing.Format.of(example, num_steps, size, tile)
    data = packing.empty(num_envs, length // num_steps, form)
    return ReplayState(data=data, cursor=jnp.int32(0), size=jnp.int32(0))


def full(
    chunks: Transition, can_fall: bool = True, platform: str | None = None
) -> ReplayState:
    """Returns a replay that chunks `[E, C, n]` fill; see `init`."""
    num_envs, num_chunks, num_steps = chunks.step.shape
    example = jax.tree.map(lambda leaf: leaf[0, 0, 0], chunks)
    sizes = num_envs, num_chunks * num_steps, num_steps
    empty = init(example, *sizes, can_fall, platform)
    lines = packing.pack(chunks, empty.data.format).swapaxes(0, 1)
    data = empty.data.replace(lines=lines.reshape(empty.data.lines.shape))
    return ReplayState(data=data, cursor=empty.cursor, size=jnp.int32(sizes[1]))


def add(state: ReplayState, chunk: Transition) -> ReplayState:
    """Appends a chunk `[E, n]`, which begins an episode.

    Raises:
      ValueError: it has another length than the replay's chunks.
    """
    length, num_steps = state.data.length, state.data.num_steps
    if chunk.step.shape[1] != num_steps:
        raise ValueError(
            f"a chunk of {chunk.step.shape[1]} steps in a replay of chunks of"
            f" {num_steps}"
        )
    return ReplayState(
        data=_write(state.data, chunk, state.cursor),
        cursor=(state.cursor + num_steps) % length,
        size=jnp.minimum(state.size + num_steps, length),
    )


def num_lost(state: ReplayState, chunk: Transition) -> Array:
    """Returns for how many transitions of a chunk `[E, n]` `add` has no room.

    See `packing.pack`: more episodes break off in it than chunks of this replay hold.
    """
    return packing.num_lost(chunk, state.data.format).sum()


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
    env = jax.random.randint(key_env, (batch_size,), 0, state.data.num_envs)
    return env, _draw_index(key_index, env, state.size, split, fold)


def draw_segments(
    state: ReplayState, key: Array, num_segments: int, size: int
) -> Place:
    """Draws runs of consecutive transitions; each transition is equally likely.

    A run that reaches the end of its chunk goes on at the chunk's beginning, which is
    the beginning of an episode: so none gets into another chunk, and the transitions
    near both ends come as often as all others.

    Args:
      state: the replay; it must not be empty.
      key: the key is consumed.
      num_segments: S.
      size: W, transitions in a run, at most as many as a chunk has.

    Returns:
      Environments `[S, W]`, all the same in a run, and indices `[S, W]`.
    """
    num_steps = state.data.num_steps
    env, start = draw(state, key, num_segments, "all", 1)
    offset = (start % num_steps)[:, None] + jnp.arange(size)
    index = (start - start % num_steps)[:, None] + offset % num_steps
    return jnp.broadcast_to(env[:, None], index.shape), index


def draw_of_episode(state: ReplayState, key: Array, place: Place) -> Place:
    """Draws for each place another one in its chunk that has the same task.

    It takes the first of `CANDIDATES` drawn uniformly that has it, and where none has,
    the place itself.

    Args:
      state: the replay.
      key: the key is consumed.
      place: environments and indices, of one shape.

    Returns:
      Environments and indices of the same shape.
    """
    (env, index), num_steps = place, state.data.num_steps
    own = index.reshape(-1, 1)
    shape = (own.size, CANDIDATES)
    others = own - own % num_steps + jax.random.randint(key, shape, 0, num_steps)
    tried = jnp.concatenate([others, own], -1)
    words = packing.task_words(state.data, env.reshape(-1), tried)
    same = (words == words[:, -1:]).all(-1)
    chosen = jnp.take_along_axis(tried, same.argmax(-1)[:, None], -1)
    return env, chosen.reshape(index.shape)


def draw_of_task(state: ReplayState, key: Array, place: Place) -> Place:
    """Draws for each place one that has the same task, uniformly, of any chunk.

    A chunk has one task from beginning to end.

    Args:
      state: the replay; it must not be empty.
      key: the key is consumed.
      place: environments and indices, of one shape.

    Returns:
      Environments and indices of the same shape.
    """
    (env, index), num_steps = place, state.data.num_steps
    key_chunk, key_step = jax.random.split(key)
    numbers = packing.first_numbers(state.data)
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


DECODED: dict[str, Callable[[ReplayState, Array, Place], Place] | None] = {
    "current": None,
    "episode": draw_of_episode,
    "task": draw_of_task,
}
"""What the decoder predicts -> how its place is drawn; None for the window's own."""


def transitions(data: Packed, place: Place) -> Transition:
    """Gathers the transitions of places of any shape."""
    env, index = place
    rows = packing.read(data, env.reshape(-1), index.reshape(-1, 1), 1)
    return jax.tree.map(lambda x: x.reshape(*index.shape, *x.shape[2:]), rows)


def windows(data: Packed, place: Place, window: int) -> Transition:
    """Gathers transitions and the `window` ones before each.

    Args:
      data: transitions `[E, L]`.
      place: environment and index, `[B]` each.
      window: T.

    Returns:
      Transitions `[B, T + 1]`, oldest first; those from before the start of the episode
      belong to something else (see `exists`).
    """
    env, index = place
    return packing.read(data, env, _before(index, window, data.length), 1)


def segments(data: Packed, place: Place, window: int) -> Transition:
    """Gathers runs of a chunk and the `window` transitions before them.

    Args:
      data: transitions `[E, L]`.
      place: environments and indices `[S, W]` of `draw_segments`.
      window: T.

    Returns:
      Transitions `[S, T + W]`. The T before a place are those before it in the episode,
      as far as there are any (see `exists`).
    """
    env, index = place
    start, num_steps = index[:, :1], data.num_steps
    lag = jnp.arange(-window, index.shape[1])
    rows = start - start % num_steps + (start + lag) % num_steps
    return packing.read(data, env[:, 0], rows, index.shape[1])


def look_back(entries: Any, place: Place, window: int) -> Any:
    """Gathers of arrays `[E, L, ...]` what stands at places `[B]` and before.

    Returns:
      `[B, T + 1, ...]`, as `windows` does of transitions.
    """
    env, index = place
    return jax.tree.map(
        lambda leaf: leaf[env[:, None], _before(index, window, leaf.shape[1])], entries
    )


def chunk_at(data: Packed, start: Array) -> Transition:
    """Returns the transitions `[E, n]` of the chunk that begins at an index."""
    first, size = _lines_of(data, start)
    lines = jax.lax.dynamic_slice_in_dim(data.lines, first, size, -2)
    each = data.num_envs, data.format.num_lines
    lines = lines.reshape(*lines.shape[:-2], *each, lines.shape[-1])
    return packing.unpack_chunks(lines, data.format)


def is_in_train(place: Place, size: Array, fold: int) -> Array:
    """Returns which places the split "train" of `draw` shares out."""
    env, index = place
    held_out = _mix(index // fold, env) % fold
    return (index % fold != held_out) & (index < size // fold * fold)


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
def paste(data: Packed, chunk: Transition, start: int) -> Packed:
    """Returns replays `[D, E, L, ...]` with a chunk `[D, E, n, ...]` from `start` on.

    With several seeds both have their axis after D.
    """
    return _write(data, chunk, jnp.int32(start))


@jax.jit
def cut(data: Packed, seed: int | None, start: int) -> Transition:
    """Returns the chunk `[D, E, n, ...]` of replays `[D, E, L, ...]` from `start` on.

    With several seeds, `[D, S, E, L, ...]`, of the one with this number.
    """
    own = data
    if seed is not None:
        own = jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, seed, 1, keepdims=False),
            data,
        )
    return chunk_at(own, jnp.int32(start))


def _before(index: Array, window: int, length: int) -> Array:
    """Returns the indices `[B, T + 1]` up to some `[B]`, oldest first, in a ring."""
    return (index[:, None] - jnp.arange(window, -1, -1)) % length


def _write(data: Packed, chunk: Transition, start: Array) -> Packed:
    """Writes a chunk `[..., n]` over the one that begins at an index."""
    lines = packing.pack(chunk, data.format)
    lines = lines.reshape(*lines.shape[:-3], -1, lines.shape[-1])
    first, _ = _lines_of(data, start)
    lines = jax.lax.dynamic_update_slice_in_dim(data.lines, lines, first, -2)
    return data.replace(lines=lines)


def _lines_of(data: Packed, start: Array) -> tuple[Array, int]:
    """Returns the first line of the chunks that begin at an index, and how many."""
    size = data.num_envs * data.format.num_lines
    return start // data.num_steps * size, size


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
