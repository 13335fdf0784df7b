"""Many updates in one program, and what is counted of them."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.cemrl.types import TRAINED, LearnerState
from cemrl_jax.data.types import Metrics, WorkerState
from cemrl_jax.data.vectors import Compact
from cemrl_jax.runtime import parallel

DRAWN_BYTES = 32 * 2**20
"""What is drawn at once for the updates to come may take so much memory."""


class _Means(struct.PyTreeNode):
    """Means of metrics, updated step by step.

    Attributes:
      sums: `[M]` of the finite values of each metric.
      counts: `[M]` of them.
    """

    sums: Array
    counts: Array


def mean_over_updates(
    update: Callable[[Any, Any], tuple[Any, Metrics]],
    state: Any,
    inputs: Any,
    draw: Callable[[Any], Any] = lambda chosen: chosen,
) -> tuple[Any, Metrics]:
    """Takes an update after the other.

    Args:
      update: `(state, drawn) -> (state, metrics)`.
      state: before the first one.
      inputs: `[N, ...]`.
      draw: returns what an update needs of its input: called for many at once.

    Returns:
      The state after the last one, and the metrics, each averaged over the updates in
      which it was finite. The others are of skipped steps, which are counted.
    """
    first = jax.eval_shape(draw, jax.tree.map(lambda leaf: leaf[0], inputs))
    update = jax.jit(update, inline=True)  # traced once for its shapes and the loop
    names = list(jax.eval_shape(lambda *args: update(*args)[1], state, first))

    def step(carry: Compact, drawn: Compact) -> tuple[Compact, None]:
        state, means = carry.tree
        state, metrics = update(state, drawn.tree)
        values = jnp.stack([metrics[name] for name in names])
        finite = jnp.isfinite(values)
        means = _Means(
            sums=means.sums + jnp.where(finite, values, 0),
            counts=means.counts + finite,
        )
        return Compact.of((state, means)), None

    def some(carry: Compact, inputs: Any) -> tuple[Compact, None]:
        # As vectors: arrays with short axes may take a multiple of their size.
        drawn = jax.vmap(lambda chosen: Compact.of(draw(chosen), math.inf))(inputs)
        return jax.lax.scan(step, carry, drawn)[0], None

    zeros = jnp.zeros(len(names))
    carry = Compact.of((state, _Means(zeros, zeros)))
    num_updates = jax.tree.leaves(inputs)[0].shape[0]
    size = _at_once(num_updates, first)
    if size < num_updates:
        split = lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:])  # noqa: E731
        carry, _ = jax.lax.scan(some, carry, jax.tree.map(split, inputs))
    else:
        carry, _ = some(carry, inputs)
    state, means = carry.tree
    values = parallel.average(means.sums / means.counts)
    return state, dict(zip(names, values, strict=True))


def _at_once(num_updates: int, drawn: Any) -> int:
    """Returns for how many updates to draw at once, a divisor of their number."""
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(drawn))
    most = max(1, min(num_updates, DRAWN_BYTES // each))
    return next(n for n in range(most, 0, -1) if num_updates % n == 0)


def skipped_steps(learner: LearnerState) -> Metrics:
    """Counts the gradients of each optimiser that were skipped since the start."""
    return {
        f"train/skipped_{name}": getattr(learner, name).skipped[0].astype(jnp.float32)
        for name in TRAINED
    }


def at_precision_of_agent(phase: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a phase multiply matrices as precisely as its agent asks for."""

    @functools.wraps(phase)
    def precise(self: Any, learner: LearnerState, worker: WorkerState) -> Any:
        with jax.default_matmul_precision(self.agent.precision):
            return phase(self, learner, worker)

    return precise
