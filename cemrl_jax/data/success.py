"""Success rates: how many of the tasks that were in force were solved."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.data.rollout import Episodes, task_changes


def tally(episodes: Episodes, num_bases: int) -> Array | None:
    """Counts tasks and solved tasks in episodes `[E, L]`.

    A task is in force from the episode's start or a change until the next change or
    the episode's end, and solved if one of its steps was a success. An episode whose
    task stays counts as one task, which is how Meta-World counts.

    Args:
      episodes: the episodes.
      num_bases: how many base tasks are told apart.

    Returns:
      `[E, 2, num_bases]` float32: tasks, and those of them that were solved; None in a
      world without success.
    """
    if episodes.success is None:
        return None
    task, step = episodes.transitions.task, episodes.transitions.step
    number = jnp.arange(step.shape[1])
    begins = (number == 0) | (step == 0) | task_changes(task)
    begun = jax.lax.cummax(jnp.where(begins, number, 0), axis=1)
    solved = jax.lax.cummax(jnp.where(episodes.success, number, -1), axis=1) >= begun
    ends = jnp.roll(begins, -1, axis=1).at[:, -1].set(True)
    of_base = (task.base[..., None] == jnp.arange(num_bases)) & ends[..., None]
    counts = [of_base.sum(1), (of_base & solved[..., None]).sum(1)]
    return jnp.stack(counts, 1).astype(jnp.float32)


def rates(counts: Array, names: Sequence[str]) -> dict[str, Array]:
    """Returns success rates from counts `[2, num_bases]`.

    Args:
      counts: see `tally`, summed over episodes.
      names: of the base tasks.

    Returns:
      "success", of all tasks, and if there are several `success_<name>` of each; NaN
      where there was none.
    """
    result = {"success": counts[1].sum() / counts[0].sum()}
    if len(names) > 1:
        each = counts[1] / counts[0]
        result |= {f"success_{name}": each[n] for n, name in enumerate(names)}
    return result


def is_absent(metric: str, value: float) -> bool:
    """Tells whether a metric is a success rate of tasks that were not in force."""
    return metric.startswith("collect/success") and bool(np.isnan(value))
