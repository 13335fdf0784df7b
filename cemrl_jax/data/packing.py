"""Transitions as a replay holds them: one row of words for each, nothing twice.

The observation after a step is the one before the next step, so a row has none of its
own: it is in the row that follows, and only where an episode breaks off (it ends, the
robot falls, a step broke) it is kept apart. Words are unsigned integers, whose bits no
device changes on the way. As many rows as fit stand in a line of nearly 128 words: a
TPU pads the last axis of an array to that.
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
TILE = 128
"""Words to a multiple of which a TPU pads a line."""
PADDING = 0.15
"""Share of a padded line that may be padding."""


@dataclasses.dataclass(frozen=True)
class Format:
    """What the words of a row are.

    Attributes:
      obs_size: O.
      action_size: A.
      spec_shape: of `Task.spec`.
      num_steps: n, transitions of a chunk.
    """

    obs_size: int
    action_size: int
    spec_shape: tuple[int, ...]
    num_steps: int

    @classmethod
    def of(cls, example: Transition, num_steps: int) -> "Format":
        """Returns the format of transitions like one without leading axes."""
        (obs_size,), (action_size,) = example.obs.shape, example.action.shape
        return cls(obs_size, action_size, tuple(example.task.spec.shape), num_steps)

    @property
    def parts(self) -> tuple[int, ...]:
        """Words of observation, action, reward, spec; label, kind and base, number."""
        spec_size = int(np.prod(self.spec_shape))
        return self.obs_size, self.action_size, 1, spec_size, 1, 1, 1

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
    def num_lines(self) -> int:
        """Lines of a chunk, N; the last may be filled up."""
        return -(-self.num_steps // self.per_line)

    def split(self, rows: Array) -> list[Array]:
        """Returns the parts of rows `[..., W]`."""
        return jnp.split(rows, np.cumsum(self.parts)[:-1], axis=-1)


class Packed(struct.PyTreeNode):
    """C chunks of n transitions for each of E environments, L = C * n.

    Attributes:
      lines: `[E, C * N, P * W]` uint32, each P rows. The label of a row is the step in
        its episode (16 bits), where its next observation is (15 bits: 0 in the next
        row, else that number less one in `ends` of its chunk) and whether it terminated
        (1 bit).
      ends: `[E, C, M, O]` float32, observations after which an episode broke off; the
        first is the chunk's last.
      format: of the rows.
    """

    lines: Array
    ends: Array
    format: Format = struct.field(pytree_node=False)

    @property
    def num_steps(self) -> int:
        """The length n of a chunk."""
        return self.format.num_steps

    @property
    def num_envs(self) -> int:
        """E."""
        return self.ends.shape[-4]

    @property
    def length(self) -> int:
        """L, transitions of each environment."""
        return self.ends.shape[-3] * self.num_steps


def num_ends(num_steps: int, can_fall: bool) -> int:
    """Returns M, the observations that a chunk keeps apart.

    One for its end, three for steps that broke, and where robots can fall enough for
    episodes of ten steps on the average.
    """
    return 4 + (num_steps // 10 if can_fall else 0)


def empty(
    example: Transition, num_envs: int, num_chunks: int, num_steps: int, size: int
) -> Packed:
    """Returns chunks of zeros.

    Args:
      example: one transition without leading axes; only shapes matter.
      num_envs: E.
      num_chunks: C.
      num_steps: n.
      size: M, at least 2.

    Raises:
      ValueError: `num_steps` is beyond `MAX_STEPS`.
    """
    if num_steps > MAX_STEPS:
        raise ValueError(f"chunks of {num_steps} steps, at most {MAX_STEPS} are held")
    form = Format.of(example, num_steps)
    shape = num_envs, num_chunks * form.num_lines, form.per_line * form.size
    return Packed(
        lines=jnp.zeros(shape, jnp.uint32),
        ends=jnp.zeros((num_envs, num_chunks, size, form.obs_size), jnp.float32),
        format=form,
    )


def pack(chunk: Transition, form: Format, size: int) -> tuple[Array, Array]:
    """Packs chunks `[..., n]`.

    Args:
      chunk: n transitions; the first begins an episode.
      form: the format.
      size: M, at least 2.

    Returns:
      Lines `[..., N, P * W]` and ends `[..., M, O]`. Where episodes break off more than
      M - 1 times before the end of a chunk, what follows the last that fits is lost,
      and the chunk's beginning takes its place.
    """
    num_steps = chunk.step.shape[-1]
    follows = _bits(chunk.next_obs[..., :-1, :]) == _bits(chunk.obs[..., 1:, :])
    no_break = jnp.zeros_like(follows[..., :1, 0])
    breaks = jnp.concatenate([~follows.all(-1), no_break], -1)
    count = jnp.cumsum(breaks, -1)
    fitting = (count - breaks < size - 1).sum(-1, keepdims=True)
    kept = jnp.where(count[..., -1:] < size, num_steps, fitting)
    step = np.arange(form.num_lines * form.per_line) % num_steps  # fills the last line
    source = step % kept
    last = step == num_steps - 1
    place = jnp.where(breaks, count + 1, 0)
    place = jnp.where(last, 1, jnp.take_along_axis(place, source, -1))
    where = (count[..., None, :] < jnp.arange(1, size)[:, None]).sum(-1)
    where = jnp.concatenate(
        [source[..., num_steps - 1 : num_steps], jnp.minimum(where, num_steps - 1)], -1
    )
    ends = jnp.take_along_axis(chunk.next_obs, where[..., None], -2)

    def word(x: Array) -> Array:
        return x.astype(jnp.uint32)[..., None]

    task = chunk.task
    plain = [
        _bits(chunk.obs),
        _bits(chunk.action),
        _bits(chunk.reward)[..., None],
        _bits(task.spec).reshape(*chunk.step.shape, -1),
        word(chunk.step) << 16 | word(chunk.terminated),
        word(task.kind) << 16 | word(task.base),
        _bits(task.number)[..., None],
    ]
    rows = jnp.take_along_axis(jnp.concatenate(plain, -1), source[..., None], -2)
    is_label = jnp.arange(form.size) == sum(form.parts[:4])
    rows = rows | jnp.where(is_label, word(place) << 1, jnp.uint32(0))
    return rows.reshape(*rows.shape[:-2], form.num_lines, -1), ends


def unpack(rows: Array, form: Format) -> tuple[Transition, Array]:
    """Returns what is in rows, but for the observation after a step.

    Args:
      rows: `[..., W]`.
      form: the format.

    Returns:
      Transitions `[...]` whose `next_obs` is None, and where it is (see `Packed`).
    """
    obs, action, reward, spec, label, kind, number = form.split(rows)
    label, kind = label[..., 0], kind[..., 0]
    task = Task(
        kind=_integer(kind >> 16),
        base=_integer(kind & 0xFFFF),
        spec=_float(spec).reshape(*label.shape, *form.spec_shape),
        number=_integer(number[..., 0]),
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
    return _integer(data.lines[:, :: form.num_lines, form.size - 1])


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
    num_steps = data.num_steps
    following = jnp.concatenate([index, (index[:, -1:] + 1) % data.length], -1)
    rows = _rows(data, env, following)
    found, place = unpack(rows[:, :-1], data.format)
    after = _float(rows[:, 1:, : data.format.obs_size])
    place, chunk = place[:, -num_breaking:], index[:, -num_breaking:] // num_steps
    ends = data.ends[env[:, None], chunk, jnp.maximum(place - 1, 0)]
    ends = jnp.where(place[..., None] > 0, ends, after[:, -num_breaking:])
    after = jnp.concatenate([after[:, :-num_breaking], ends], 1)
    return found.replace(next_obs=after)


def unpack_chunks(lines: Array, ends: Array, form: Format) -> Transition:
    """Returns whole chunks `[..., n]` of their lines `[..., N, P * W]` and ends."""
    rows = lines.reshape(*lines.shape[:-2], -1, form.size)[..., : form.num_steps, :]
    found, place = unpack(rows, form)
    own = jnp.take_along_axis(ends, jnp.maximum(place - 1, 0)[..., None], -2)
    after = jnp.roll(found.obs, -1, -2)
    return found.replace(next_obs=jnp.where(place[..., None] > 0, own, after))


def _rows(data: Packed, env: Array, index: Array) -> Array:
    """Gathers rows `[B, N, W]` of environments `[B]` and places `[B, N]`."""
    form = data.format
    chunk, step = index // form.num_steps, index % form.num_steps
    row = chunk * (form.num_lines * form.per_line) + step
    of_lines = functools.partial(gather_lines, form)
    of_rows = functools.partial(gather_rows, form)
    gather = functools.partial(jax.lax.platform_dependent, tpu=of_lines)
    return gather(data.lines, env[:, None], row, default=of_rows)


def gather_rows(form: Format, lines: Array, env: Array, row: Array) -> Array:
    """Returns rows by their number, of lines taken apart: free of charge but on a TPU.

    Args:
      form: the format.
      lines: `[E, C * N, P * W]`.
      env: `[B, 1]` environments.
      row: `[B, N]` numbers; line l has those from P * l on.

    Returns:
      `[B, N, W]`.
    """
    return lines.reshape(lines.shape[0], -1, form.size)[env, row]


def gather_lines(form: Format, lines: Array, env: Array, row: Array) -> Array:
    """Returns what `gather_rows` does, of whole lines: nothing is laid out anew."""
    found, *others = jnp.split(lines[env, row // form.per_line], form.per_line, -1)
    for place, other in enumerate(others, 1):
        found = jnp.where((row % form.per_line == place)[..., None], other, found)
    return found


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def _float(words: Array) -> Array:
    return jax.lax.bitcast_convert_type(words, jnp.float32)


def _integer(words: Array) -> Array:
    return jax.lax.bitcast_convert_type(words, jnp.int32)
