"""How well an evaluated policy infers tasks, and recovers from their changes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.data.rollout import Episodes, task_changes, with_physics
from cemrl_jax.envs import Task
from cemrl_jax.evaluation.cases import Case
from cemrl_jax.evaluation.statistics import (
    class_accuracy,
    confusion,
    r_squared,
    recovery,
    settled,
)

CASE = Case("test", "changing", "deterministic")
"""The episodes that are looked at; where no task changes they are those of "fixed"."""


class Trace(struct.PyTreeNode):
    """What is looked at of episodes, `[N, L]` each.

    Attributes:
      reward: of the step.
      z: `[N, L, Z]` the task that the step acted on.
      inferred: int32 the class, -1 for none.
      base: int32 the true base task.
      parameters: `[N, L, P]` the true ones of its reward, then of its physics.
      changed: bool, the step is the first of another task.
      alive: bool, the robot had not fallen before the step.
    """

    reward: Array
    z: Array
    inferred: Array
    base: Array
    parameters: Array
    changed: Array
    alive: Array


def trace(episodes: Episodes, pool: Task) -> Trace:
    """Returns the trace of episodes that hold beliefs.

    Args:
      episodes: `[N, L]`.
      pool: `[N, M]` the tasks that those of each episode are from.
    """
    data, task = episodes.transitions, episodes.transitions.task
    fallen = jnp.cumsum(data.terminated, 1) - data.terminated
    assert episodes.belief is not None
    return Trace(
        reward=data.reward,
        z=episodes.belief.z,
        inferred=episodes.belief.inferred,
        base=task.base,
        parameters=_parameters(task, pool),
        changed=task_changes(task),
        alive=fallen == 0,
    )


def _parameters(task: Task, pool: Task) -> Array:
    """Returns the numbers `[N, L, P]` that tasks `[N, L]` of pools `[N, M]` have."""
    physics = jax.tree.leaves(jax.vmap(with_physics)(task, pool).overrides)
    parts = [leaf.reshape(*task.base.shape, -1) for leaf in (task.spec, *physics)]
    return jnp.concatenate(parts, -1)


def metrics(seen: Trace, window: int, num_classes: int) -> dict[str, float]:
    """Returns what a row of progress.csv has of it; what is not defined is left out.

    Args:
      seen: `[N, L]`, on the host.
      window: T. What is inferred counts in steps whose window is full of one task.
      num_classes: K. With one class there is no accuracy but `inference/task_r2`: how
        much of the parameters of tasks that it was not fitted on a linear map of z
        tells, the mean over those that vary, see `r_squared`. Where it is low z may be
        folded: tasks that differ share a value of it, and no policy can tell them
        apart.
    """
    columns = [seen.z, seen.reward, seen.changed, seen.alive]
    result = recovery(*map(np.asarray, columns)).metrics()
    inferred, base = np.asarray(seen.inferred), np.asarray(seen.base)
    mask = settled(np.asarray(seen.changed), np.asarray(seen.alive), window)
    if num_classes == 1 and mask.any():
        shares = r_squared(np.asarray(seen.z)[mask], np.asarray(seen.parameters)[mask])
        if np.isfinite(shares).any():
            result["inference/task_r2"] = float(np.nanmean(shares))
    mask &= inferred >= 0
    if num_classes > 1 and mask.any():
        sizes = (num_classes, int(base.max()) + 1)
        counts = confusion(inferred[mask], base[mask], *sizes)
        result["inference/class_accuracy"] = class_accuracy(counts)
    return result
