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
      bases: base tasks of each part, together a range of numbers.
      elsewhere: where tasks of the pool "extrapolate" happen, if there are some.
    """

    parts: tuple[NonStationaryEnv, ...] = ()
    bases: tuple[tuple[int, ...], ...] = ()
    elsewhere: "Groups | None" = None

    def __post_init__(self) -> None:
        """Leaves robot and distribution as they are: the parts know each other."""

    @property
    def num_bases(self) -> int:
        """Base tasks of all parts."""
        return sum(map(len, self.bases))

    @property
    def models(self) -> tuple[NonStationaryEnv, ...]:
        """An environment for each model, those of the pool "extrapolate" at the end."""
        return self.parts + (self.elsewhere.parts if self.elsewhere else ())

    def reset(self, key: Array, task: Task) -> EnvState:
        """Has no meaning: one state cannot be of any model; see `data.groups.run`."""
        raise TypeError("environments in groups start in rollouts only")

    def step(
        self, state: EnvState, action: Array, pool: Task, frozen: Array | bool = False
    ) -> EnvState:
        """See `reset`."""
        raise TypeError("environments in groups step in rollouts only")

    def model_of(self, base: Any) -> np.ndarray:
        """Returns which of `models` each base task `[N]` belongs to."""
        bases = self.bases + (self.elsewhere.bases if self.elsewhere else ())
        return np.stack([np.isin(base, own) for own in bases]).argmax(0)

    def with_schedule(self, schedule: Schedule) -> "Groups":
        """See `NonStationaryEnv.with_schedule`."""
        parts = tuple(part.with_schedule(schedule) for part in self.parts)
        elsewhere = self.elsewhere and self.elsewhere.with_schedule(schedule)
        return dataclasses.replace(
            self, schedule=schedule, parts=parts, elsewhere=elsewhere
        )

    def same_model(self, pool: Task, number: int) -> np.ndarray:
        """Returns the numbers of the tasks of a pool that task `number` may become."""
        models = self.model_of(pool.base)
        return np.flatnonzero(models == models[number])

    def rows(self, count: int) -> list[np.ndarray]:
        """Returns which of so many rows belong to each part."""
        base = min(map(min, self.bases)) + np.arange(count) % self.num_bases
        return [np.flatnonzero(np.isin(base, own)) for own in self.bases]


def make_groups(robot: Any, distribution: Any, schedule: Schedule) -> NonStationaryEnv:
    """Returns the environment, in groups if the tasks need several models.

    A distribution with tasks of several models has `parts`: their base tasks, and the
    distribution of those alone, for each; and `test_parts`, those of the pool
    "extrapolate".
    """
    parts: Sequence[Any] = getattr(distribution, "parts", ())
    others: Sequence[Any] = getattr(distribution, "test_parts", ())
    if len(parts) + len(others) < 2:
        return NonStationaryEnv(robot, distribution, schedule)

    def grouped(parts: Sequence[Any], elsewhere: Groups | None = None) -> Groups:
        made = tuple(NonStationaryEnv(robot, own, schedule) for _, own in parts)
        bases = tuple(bases for bases, _ in parts)
        return Groups(made[0].robot, distribution, schedule, made, bases, elsewhere)

    return grouped(parts, grouped(others) if others else None)
