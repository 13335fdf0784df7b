"""Statistics of returns and of what happens after a change: numpy on the host.

Interquartile mean and percentile bootstrap over runs are those of Agarwal et al.,
"Deep reinforcement learning at the edge of the statistical precipice" (2021).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

SHARE = 0.1
"""How near z and reward must come to their levels to have recovered."""
HOLD = 5
"""Steps that they must be so near for, in a row (z) or on average (reward)."""
SETTLED = 0.25
"""Last share of a task's time over which the levels are means."""
FOLDS = 10
"""Parts of the tasks that are left out in turn where z is judged, at most."""

FEW = 4
"""Runs of which a bootstrap interval (95 %) of the IQM is no more than their range."""


def iqm(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of `[N, ...]` over the first axis.

    A quarter of the scores, rounded down, is left out at either end.
    """
    scores = np.sort(np.asarray(scores, np.float64), axis=0)
    cut = len(scores) // 4
    return scores[cut : len(scores) - cut].mean(0)


def bootstrap_interval(
    scores: np.ndarray,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the percentile bootstrap interval of a statistic over runs.

    Of up to `FEW` runs that of the IQM is the range from lowest to highest: at 95 % it
    holds the true mean in about 50, 75 and 87 % of cases with two, three and four.

    Args:
      scores: `[N, ...]` one entry per run.
      rng: draws the runs, with replacement.
      statistic: `[N, ...] -> [...]`.
      resamples: how often runs are drawn.
      confidence: share of the resamples inside of the interval.

    Returns:
      Its lower and upper end, `[...]` each.
    """
    scores = np.asarray(scores, np.float64)
    draws = rng.integers(0, len(scores), (resamples, len(scores)))
    values = np.stack([statistic(scores[draw]) for draw in draws])
    tail = (1 - confidence) / 2
    return np.quantile(values, tail, 0), np.quantile(values, 1 - tail, 0)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What followed each of C changes.

    Steps count from the first step of the new task. What never settles counts as the
    whole time that the task lasted.

    Attributes:
      z_steps: `[C]` until z is within 10 % of its final value, in distances from the
        value before the change, and stays so for `HOLD` steps.
      reward_steps: `[C]` until the mean reward of `HOLD` steps is within 10 % of its
        level: of the level itself or of the fall below it, the larger.
      lost_return: `[C]` return below the level, summed over the new task's time.
    """

    z_steps: np.ndarray
    reward_steps: np.ndarray
    lost_return: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Returns medians over changes (mean of the lost return); empty without any."""
        if not len(self.z_steps):
            return {}
        return {
            "recovery/z_steps": float(np.median(self.z_steps)),
            "recovery/reward_steps": float(np.median(self.reward_steps)),
            "recovery/lost_return": float(self.lost_return.mean()),
            "recovery/changes": float(len(self.z_steps)),
        }


def recovery(
    z: np.ndarray, reward: np.ndarray, changes: np.ndarray, alive: np.ndarray
) -> Recovery:
    """Measures what follows the changes in episodes.

    Args:
      z: `[E, L, Z]` the inferred task that each step acted on.
      reward: `[E, L]`.
      changes: `[E, L]` bool, steps that are the first of a new task.
      alive: `[E, L]` bool, the robot had not fallen before the step.

    Returns:
      The changes of all episodes, oldest first; tasks in which the robot falls are
      left out, and those that last less than twice `HOLD` steps, since nothing
      settles in them.
    """
    found = []
    for episode in range(len(reward)):
        starts = np.flatnonzero(changes[episode])
        bounds = [0, *starts[starts > 0], reward.shape[1]]
        for before, start, end in zip(bounds, bounds[1:], bounds[2:]):
            if end - start >= 2 * HOLD and alive[episode, end - 1]:
                old = _level(z[episode, before:start])
                found.append(
                    _after_change(
                        z[episode, start:end], reward[episode, start:end], old
                    )
                )
    columns = np.array(found, np.float64).reshape(-1, 3).T
    return Recovery(*columns)


def settled(changes: np.ndarray, alive: np.ndarray, window: int) -> np.ndarray:
    """Returns which steps `[E, L]` have a window full of the task in force.

    Args:
      changes: `[E, L]` bool, steps that are the first of a new task.
      alive: `[E, L]` bool, the robot had not fallen before the step.
      window: T.
    """
    steps = np.arange(changes.shape[1])
    last = np.maximum.accumulate(np.where(changes, steps, 0), 1)
    return alive & (steps - last >= window)


def _level(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the last share `SETTLED` of `[N, ...]`."""
    return values[-max(int(len(values) * SETTLED), 1) :].mean(0)


def _after_change(
    z: np.ndarray, reward: np.ndarray, old: np.ndarray
) -> tuple[int, int, float]:
    """Returns z steps, reward steps and lost return of one task `[N, ...]`."""
    final = _level(z)
    distance = np.linalg.norm(z - final, axis=-1)
    near = distance <= SHARE * np.linalg.norm(final - old)
    level = float(_level(reward))
    rolling = np.lib.stride_tricks.sliding_window_view
    mean = rolling(reward, HOLD).mean(-1)
    margin = SHARE * max(abs(level), level - float(mean.min()))
    return (
        _first(rolling(near, HOLD).all(-1), len(z)),
        _first(np.abs(mean - level) <= margin, len(z)),
        float((level - reward).sum()),
    )


def _first(reached: Any, never: int) -> int:
    return int(reached.argmax()) if reached.any() else never


def r_squared(z: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns how much of tasks' numbers a linear map of z tells, of tasks left out.

    Steps of one task share their targets, so that a map fitted on all of them explains
    about Z / (M - 1) of M tasks though z says nothing. Here the map is fitted without
    the tasks of a fold and judged on these: the share is of what all folds come to,
    and below 0 where z tells less than the mean of the tasks does.

    Args:
      z: `[N, Z]` of steps.
      targets: `[N, P]` the numbers of each step's task; tasks are told apart by them.

    Returns:
      `[P]` the share of each number's variance, NaN where it is not defined: the number
      does not vary, z is not finite, or a fit would have less than Z + 2 tasks.
    """
    z, targets = np.asarray(z, np.float64), np.asarray(targets, np.float64)
    nothing = np.full(targets.shape[1], np.nan)
    if not len(z) or not np.isfinite(z).all():
        return nothing
    distinct, task = np.unique(targets, axis=0, return_inverse=True)
    folds = min(len(distinct), FOLDS)
    if len(distinct) - -(-len(distinct) // FOLDS) < z.shape[1] + 2:
        return nothing
    fold, error = task.ravel() % folds, np.zeros(targets.shape)
    for number in range(folds):
        out = fold == number
        error[out] = targets[out] - _mapped(z[~out], targets[~out], z[out])
    spread = np.square(targets - targets.mean(0)).sum(0)
    varies = np.ptp(targets, 0) > 0
    lost = np.square(error).sum(0) / np.where(varies, spread, 1)
    return np.where(varies, 1 - lost, np.nan)


def _mapped(z: np.ndarray, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns what the linear map fitted on `[N, Z]` gives for others `[M, Z]`."""
    centre, level = z.mean(0), targets.mean(0)
    fit, *_ = np.linalg.lstsq(z - centre, targets - level, rcond=None)
    return level + (others - centre) @ fit


def confusion(
    inferred: np.ndarray, base: np.ndarray, num_classes: int, num_bases: int
) -> np.ndarray:
    """Returns counts `[K, bases]` of inferred class (-1: none) against base task."""
    counts = np.zeros((num_classes, num_bases), np.int64)
    known = np.ravel(inferred) >= 0
    np.add.at(counts, (np.ravel(inferred)[known], np.ravel(base)[known]), 1)
    return counts


def class_accuracy(counts: np.ndarray) -> float:
    """Returns the share of steps whose class stands for their base task.

    Classes have no names of their own: each stands for the base task that it meets
    most often. With one class this is the share of the most frequent base task.
    """
    return float(counts.max(1).sum() / max(counts.sum(), 1))
