"""Seeds that train together: which parts of their state have an axis for them.

One seed alone has no such axis: under `vmap` with an axis of length 1 a CPU rolls out
little more than half as fast.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cemrl_jax.data.types import ReplayState, WorkerState
from cemrl_jax.runtime import parallel

WORKER_AXES: Any = WorkerState(
    replay=ReplayState(data=0, cursor=None, size=None),  # pyright: ignore
    key=0,  # pyright: ignore
    tasks=0,  # pyright: ignore
)
"""The axis of the seeds in a device's worker. All rings advance alike; an axis on the
cursor would turn the write of a chunk into a scatter."""


def phase_for_seeds(phase: Callable[..., Any], num_seeds: int) -> Callable[..., Any]:
    """Returns a phase of so many learners `[N, ...]` and workers, see `WORKER_AXES`."""
    if num_seeds == 1:
        return phase
    return jax.vmap(phase, (0, WORKER_AXES), (0, WORKER_AXES, 0))


def for_seeds(function: Callable[..., Any], num_seeds: int) -> Callable[..., Any]:
    """Returns a function all of whose arguments and results have the seeds' axis."""
    return function if num_seeds == 1 else jax.vmap(function)


def worker_for_seeds(make: Callable[..., Any], num_seeds: int) -> Callable[..., Any]:
    """Returns a function of `[N, ...]` arguments that makes their joint worker."""
    if num_seeds == 1:
        return make
    return jax.vmap(make, out_axes=WORKER_AXES)


def stack(trees: Sequence[Any]) -> Any:
    """Returns trees of the host with the seeds' axis in front; alone, as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def learner_of(learner: Any, number: int, num_seeds: int) -> Any:
    """Returns the learner of one seed; of several, on the host."""
    if num_seeds == 1:
        return learner
    own = parallel.on_host(learner)
    return jax.tree.map(lambda leaf: leaf[number], own)
