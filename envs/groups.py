"""Environments of several physical models in one run: static groups."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array

from cemrl_jax.envs.base import EnvState, Schedule, Task
from cemrl_jax.envs.nonstationary import NonStationaryEnv


@dataclasses.dataclass(frozen=True)
class Groups(NonStationaryEnv):
    """Tasks that need different physical models, each model a program of its own.

    What there is one of, be it observations, actions or the replay, fits all of them,
    and is that of the first part's robot. Which task is where follows from its place:
    in every batch of tasks, number j has base task j modulo their number, so which
    model a row needs is known before any program runs. A task changes to one of its
    own model.

    Attributes:
      parts: an environment for each model.
      bases: base tasks of each part.
    """

    parts: tuple[NonStationaryEnv, ...] = ()
    bases: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Leaves robot and distribution as they are: the parts know each other."""

    @property
    def num_bases(self) -> int:
        """Base tasks of all parts."""
        return sum(map(len, self.bases))

    def reset(self, key: Array, task: Task) -> EnvState:
        """Has no meaning: one state cannot be of any model; see `data.groups.run`."""
        raise TypeError("environments in groups start in rollouts only")

    def step(
        self, state: EnvState, action: Array, pool: Task, frozen: Array | bool = False
    ) -> EnvState:
        """See `reset`."""
        raise TypeError("environments in groups step in rollouts only")

    def part_of(self, base: Any) -> np.ndarray:
        """Returns which part each base task `[N]` belongs to."""
        return np.stack([np.isin(base, own) for own in self.bases]).argmax(0)

    def with_schedule(self, schedule: Schedule) -> "Groups":
        """See `NonStationaryEnv.with_schedule`."""
        parts = tuple(part.with_schedule(schedule) for part in self.parts)
        return dataclasses.replace(self, schedule=schedule, parts=parts)

    def same_model(self, pool: Task, number: int) -> np.ndarray:
        """Returns the numbers of the tasks of a pool that task `number` may become."""
        parts = self.part_of(pool.base)
        return np.flatnonzero(parts == parts[number])

    def rows(self, count: int) -> list[np.ndarray]:
        """Returns which of so many rows belong to each part."""
        base = np.arange(count) % self.num_bases
        return [np.flatnonzero(np.isin(base, own)) for own in self.bases]


def make_groups(robot: Any, distribution: Any, schedule: Schedule) -> NonStationaryEnv:
    """Returns the environment, in groups if the tasks need several models.

    A distribution with tasks of several models has `parts`: their base tasks, and the
    distribution of those alone, for each.
    """
    parts: Sequence[Any] = getattr(distribution, "parts", ())
    if len(parts) < 2:
        return NonStationaryEnv(robot, distribution, schedule)
    made = tuple(NonStationaryEnv(robot, own, schedule) for _, own in parts)
    bases = tuple(bases for bases, _ in parts)
    return Groups(made[0].robot, distribution, schedule, made, bases)
