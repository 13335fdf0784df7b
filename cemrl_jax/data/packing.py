"""Transitions as a replay holds them: one row of words for each, nothing twice.

The observation after a step is the one before the next step, so a row has none of its
own: it is in the row that follows, and only where an episode breaks off (it ends, the
robot falls, a step broke) it has a row to itself. Words are unsigned integers, whose
bits no device changes on the way. As many rows as fit stand in a line of nearly 128
words. A TPU pads the last axis of an array to that, so there lines are filled up, and
all lines stand in one axis: with other axes, or lines of 124 words, XLA finds an order
of axes that takes less memory, and copies the replay out of it in every phase.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.data.types import Transition
from cemrl_jax.envs.base import Task

MAX_STEPS = 1 << 16
"""Steps of a chunk at most: what the label of a row has bits for."""
KIND_BITS, BASE_BITS, NUMBER_BITS = 8, 7, 17
"""Of the word that says of which task a row is; numbers may be negative."""
MAX_TASKS = 1 << NUMBER_BITS - 1
"""Tasks of a pool at most: what that word has bits for."""
LARGEST = {
    "kind": (1 << KIND_BITS) - 1,
    "base": (1 << BASE_BITS) - 1,
    "number": MAX_TASKS - 1,
}
"""Field of a task -> the largest value that a row keeps."""
TILE = 128
"""Words to a multiple of which a TPU pads a line."""
PADDING = 0.15
"""Share of a padded line that may be padding."""


def tile(platform: str) -> int:
    """Returns the words to a multiple of which lines are filled up there."""
    return TILE if platform == "tpu" else 1


@dataclasses.dataclass(frozen=True)
class Format:
    """What a chunk is and what the words of its rows are.

    Attributes:
      obs_size: O.
      action_size: A.
      spec_shape: of `Task.spec`.
      num_steps: n, transitions of a chunk.
      num_ends: M, at least 2: observations of a chunk after which an episode broke off.
      tile: words to a multiple of which lines are filled up.
    """

    obs_size: int
    action_size: int
    spec_shape: tuple[int, ...]
    num_steps: int
    num_ends: int
    tile: int = 1

    @classmethod
    def of(
        cls, example: Transition, num_steps: int, num_ends: int, tile: int = 1
    ) -> "Format":
        """Returns the format of transitions like one without leading axes.

        Raises:
          ValueError: `num_steps` is beyond `MAX_STEPS`.
        """
        if num_steps > MAX_STEPS:
            raise ValueError(
                f"chunks of {num_steps} steps, at most {MAX_STEPS} are held"
            )
        (obs_size,), (action_size,) = example.obs.shape, example.action.shape
        spec_shape = tuple(example.task.spec.shape)
        return cls(obs_size, action_size, spec_shape, num_steps, num_ends, tile)

    @property
    def parts(self) -> tuple[int, ...]:
        """Words of observation, action, reward, spec; label; kind, base, number."""
        spec_size = int(np.prod(self.spec_shape))
        return self.obs_size, self.action_size, 1, spec_size, 1, 1

    @property
    def size(self) -> int:
        """Words of a row, W."""
        return sum(self.parts)

    @functools.cached_property
    def per_line(self) -> int:
        """Rows of a line, P: of the shortest lines with little padding."""
        for tiles in itertools.count(-(-self.size // TILE)):
            fitting = TILE * tiles // self.size
            if fitting * self.size >= (1 - PADDING) * TILE * tiles:
                return fitting
        raise AssertionError("unreachable")

    @property
    def line(self) -> int:
        """Words of a line."""
        return -(-self.per_line * self.size // self.tile) * self.tile

    @property
    def num_lines(self) -> int:
        """Lines of a chunk, N; the last may be filled up with zeros."""
        return -(-(self.num_steps + self.num_ends) // self.per_line)

    def split(self, rows: Array) -> list[Array]:
        """Returns the parts of rows `[..., W]`."""
        return jnp.split(rows, np.cumsum(self.parts)[:-1], axis=-1)


class Packed(struct.PyTreeNode):
    """C chunks of n transitions for each of E environments, L = C * n.

    Attributes:
      lines: `[C * E * N, words]` uint32, each P rows of W words. A chunk has N of them:
        a row for each transition, and one for each of M observations after which an
        episode broke off; the first of these is the chunk's last. The label of a row is
        the step in its episode (16 bits), where its next observation is (15 bits: 0 in
        the next row, else the number of one of the M, counted from 1) and whether it
        terminated (1 bit).
      num_envs: E.
      format: of the chunks.
    """

    lines: Array
    num_envs: int = struct.field(pytree_node=False)
    format: Format = struct.field(pytree_node=False)

    @property
    def num_steps(self) -> int:
        """The length n of a chunk."""
        return self.format.num_steps

    @property
    def num_chunks(self) -> int:
        """C."""
        return self.lines.shape[-2] // (self.num_envs * self.format.num_lines)

    @property
    def length(self) -> int:
        """L, transitions of each environment."""
        return self.num_chunks * self.num_steps


def num_ends(num_steps: int, can_fall: bool) -> int:
    """Returns M, the observations of a chunk that have rows to themselves.

    One for its end, three for steps that broke, and where robots can fall enough for
    episodes of ten steps on the average.
    """
    return 4 + (num_steps // 10 if can_fall else 0)


def empty(num_envs: int, num_chunks: int, form: Format) -> Packed:
    """Returns C chunks of zeros for each of E environments."""
    shape = num_chunks * num_envs * form.num_lines, form.line
    return Packed(jnp.zeros(shape, jnp.uint32), num_envs, form)


def pack(chunk: Transition, form: Format) -> Array:
    """Packs chunks `[..., n]`, which begin episodes, as lines `[..., N, words]`.

    Where episodes break off more than M - 1 times before the end of a chunk, what
    follows the last that fits is lost (see `num_lost`), and the chunk's beginning takes
    its place.
    """
    num_steps, size = form.num_steps, form.num_ends
    breaks, count = _breaks(chunk)
    kept = _kept(breaks, count, size)[..., None]
    step = np.arange(num_steps)
    source = step % kept
    place = jnp.where(breaks, count + 1, 0)
    last = step == num_steps - 1
    place = jnp.where(last, 1, jnp.take_along_axis(place, source, -1))
    where = (count[..., None, :] < jnp.arange(1, size)[:, None]).sum(-1)
    where = jnp.concatenate([source[..., -1:], jnp.minimum(where, num_steps - 1)], -1)
    ends = _bits(jnp.take_along_axis(chunk.next_obs, where[..., None], -2))

    def word(x: Array) -> Array:
        return x.astype(jnp.uint32)[..., None]

    task = chunk.task
    plain = [
        _bits(chunk.obs),
        _bits(chunk.action),
        _bits(chunk.reward)[..., None],
        _bits(task.spec).reshape(*chunk.step.shape, -1),
        word(chunk.step) << 16 | word(chunk.terminated),
        word(task.kind) << BASE_BITS + NUMBER_BITS
        | word(task.base) << NUMBER_BITS
        | word(task.number) & (1 << NUMBER_BITS) - 1,
    ]
    rows = jnp.take_along_axis(jnp.concatenate(plain, -1), source[..., None], -2)
    is_label = jnp.arange(form.size) == sum(form.parts[:4])
    rows = rows | jnp.where(is_label, word(place) << 1, jnp.uint32(0))
    rows = jnp.concatenate([rows, _filled(ends, -1, form.size)], -2)
    rows = _filled(rows, -2, form.num_lines * form.per_line)
    lines = rows.reshape(*rows.shape[:-2], form.num_lines, -1)
    return _filled(lines, -1, form.line)


def num_lost(chunk: Transition, form: Format) -> Array:
    """Returns for how many transitions of chunks `[..., n]` `pack` has no room."""
    return form.num_steps - _kept(*_breaks(chunk), form.num_ends)


def unpack(rows: Array, form: Format) -> tuple[Transition, Array]:
    """Returns what is in rows, but for the observation after a step.

    Args:
      rows: `[..., W]`.
      form: the format.

    Returns:
      Transitions `[...]` whose `next_obs` is None, and where it is (see `Packed`).
    """
    obs, action, reward, spec, label, whose = form.split(rows)
    label, whose = label[..., 0], whose[..., 0]
    task = Task(
        kind=_integer(whose >> BASE_BITS + NUMBER_BITS),
        base=_integer(whose >> NUMBER_BITS & (1 << BASE_BITS) - 1),
        spec=_float(spec).reshape(*label.shape, *form.spec_shape),
        number=_number(whose),
        overrides={},
    )
    transitions = Transition(
        obs=_float(obs),
        action=_float(action),
        reward=_float(reward[..., 0]),
        next_obs=None,  # pyright: ignore[reportArgumentType]
        terminated=(label & 1).astype(jnp.float32),
        step=_integer(label >> 16),
        task=task,
    )
    return transitions, _integer(label >> 1 & 0x7FFF)


def first_numbers(data: Packed) -> Array:
    """Returns the numbers `[E, C]` of the tasks that chunks begin with."""
    form = data.format
    words = data.lines[:: form.num_lines, form.size - 1]
    return _number(words).reshape(-1, data.num_envs).T


def task_words(data: Packed, env: Array, index: Array) -> Array:
    """Returns words `[B, N, K]` that are equal where tasks are.

    Args:
      data: where from.
      env: `[B]` environments.
      index: `[B, N]` places.
    """
    form = data.format
    rows = _rows(data, env, index // form.num_steps, index % form.num_steps)
    _, _, _, spec, _, whose = form.split(rows)
    return jnp.concatenate([spec, whose], -1)


def read(data: Packed, env: Array, index: Array, num_breaking: int) -> Transition:
    """Gathers runs of transitions.

    Args:
      data: where from.
      env: `[B]` environments.
      index: `[B, N]` places, each followed by the next one unless its chunk ends there.
      num_breaking: how many of a run's last may be the last of an episode; of earlier
        ones `next_obs` is the observation in the following row.

    Returns:
      Transitions `[B, N]`.
    """
    form = data.format
    following = jnp.concatenate([index, (index[:, -1:] + 1) % data.length], -1)
    chunk, step = following // form.num_steps, following % form.num_steps
    rows = _rows(data, env, chunk, step)
    found, place = unpack(rows[:, :-1], form)
    after = _float(rows[:, 1:, : form.obs_size])
    place, chunk = place[:, -num_breaking:], chunk[:, -num_breaking - 1 : -1]
    ends = _rows(data, env, chunk, form.num_steps + jnp.maximum(place - 1, 0))
    ends = _float(ends[..., : form.obs_size])
    ends = jnp.where(place[..., None] > 0, ends, after[:, -num_breaking:])
    after = jnp.concatenate([after[:, :-num_breaking], ends], 1)
    return found.replace(next_obs=after)


def unpack_chunks(lines: Array, form: Format) -> Transition:
    """Returns whole chunks `[..., n]` of their lines `[..., N, words]`."""
    lines = lines[..., : form.per_line * form.size]
    rows = lines.reshape(*lines.shape[:-2], -1, form.size)
    rows, ends, _ = jnp.split(
        rows, [form.num_steps, form.num_steps + form.num_ends], -2
    )
    found, place = unpack(rows, form)
    ends = _float(ends[..., : form.obs_size])
    own = jnp.take_along_axis(ends, jnp.maximum(place - 1, 0)[..., None], -2)
    after = jnp.roll(found.obs, -1, -2)
    return found.replace(next_obs=jnp.where(place[..., None] > 0, own, after))


def _rows(data: Packed, env: Array, chunk: Array, row: Array) -> Array:
    """Gathers rows `[B, N, W]` of environments `[B]`: `[B, N]` of chunks `[B, N]`."""
    form, lines = data.format, data.lines
    row = row + (chunk * data.num_envs + env[:, None]) * form.num_lines * form.per_line
    if form.tile == 1:
        return lines.reshape(-1, form.size)[row]
    # Taken apart first, lines of more than P * W words would all be copied.
    own, place = lines[row // form.per_line], row % form.per_line
    found = own[..., : form.size]
    for number in range(1, form.per_line):
        other = own[..., number * form.size : (number + 1) * form.size]
        found = jnp.where((place == number)[..., None], other, found)
    return found


def _filled(x: Array, axis: int, size: int) -> Array:
    """Returns an array with zeros behind what it has along an axis."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, fill)


def _breaks(chunk: Transition) -> tuple[Array, Array]:
    """Returns after which steps `[..., n]` an episode broke off, and how many had.

    Of the last one nothing follows that would show it.
    """
    follows = _bits(chunk.next_obs[..., :-1, :]) == _bits(chunk.obs[..., 1:, :])
    no_break = jnp.zeros_like(follows[..., :1, 0])
    breaks = jnp.concatenate([~follows.all(-1), no_break], -1)
    return breaks, jnp.cumsum(breaks, -1)


def _kept(breaks: Array, count: Array, size: int) -> Array:
    """Returns how many of the first transitions of chunks have room."""
    fitting = (count - breaks < size - 1).sum(-1)
    return jnp.where(count[..., -1] < size, breaks.shape[-1], fitting)


def _number(whose: Array) -> Array:
    """Returns the numbers of tasks, with their sign."""
    other = KIND_BITS + BASE_BITS
    return _integer(whose << other) >> other


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def _float(words: Array) -> Array:
    return jax.lax.bitcast_convert_type(words, jnp.float32)


def _integer(words: Array) -> Array:
    return jax.lax.bitcast_convert_type(words, jnp.int32)
