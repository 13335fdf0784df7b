"""The tasks of Meta-World as a distribution."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.metaworld.models import STRUCTURES
from cemrl_jax.envs.metaworld.vectors import FIRST_KIND, NAMES, VECTORS
from cemrl_jax.envs.tasks.pools import draw_from


@dataclasses.dataclass
class Manipulation:
    """Tasks of Meta-World in equal shares; a change draws from the pool.

    The base task is the number of the task in `names`, those of `test_names` follow
    it. `Task.spec` `[9]` holds where the fixture, the object at the start and the
    target are (m). After a change within an episode things stay where they are: the
    target is the new one, and so is where the reward takes the object to have been.

    Attributes:
      names: the tasks.
      test_names: tasks that are none of these, for the pool "extrapolate".
    """

    names: tuple[str, ...] = ("reach",)
    test_names: tuple[str, ...] = ()

    @property
    def num_base_tasks(self) -> int:
        """All tasks, those for tests included."""
        return len(self.base_names)

    @property
    def base_names(self) -> tuple[str, ...]:
        """Names of the base tasks."""
        return (*self.names, *self.test_names)

    @property
    def num_train_bases(self) -> int:
        """All but those for tests."""
        return len(self.names)

    @property
    def parts(self) -> list[tuple[tuple[int, ...], "Manipulation"]]:
        """The base tasks of each physical model, and their distribution."""
        return _parts(self.names, 0)

    @property
    def test_parts(self) -> list[tuple[tuple[int, ...], "Manipulation"]]:
        """Those of `test_names`; none where one model does for all tasks."""
        if len(_parts(self.base_names, 0)) == 1:
            return []
        return _parts(self.test_names, len(self.names))

    def bind(self, robot: Any) -> "Manipulation":
        """Returns this distribution, which is for robots that know these tasks.

        Raises:
          ValueError: the robot does not.
        """
        if not hasattr(robot, "suited"):
            raise ValueError(
                f"{type(robot).__name__} knows no task of Meta-World; the robot"
                " 'sawyer' does"
            )
        return self

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`: base tasks in turn."""
        return _draw(key, num_tasks, self.names, 0)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Draws tasks of `test_names`.

        Raises:
          ValueError: there are none.
        """
        if not self.test_names:
            raise ValueError("test_names=() leaves no other task")
        return _draw(key, num_tasks, self.test_names, len(self.names))

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = [
            f"{field}={value} must hold names of {', '.join(NAMES)}"
            for field, value in (
                ("names", self.names),
                ("test_names", self.test_names),
            )
            if set(value) - set(NAMES)
        ]
        if not self.names or len(set(self.base_names)) < len(self.base_names):
            problems.append(
                f"names={self.names} must hold at least one task and none twice, nor"
                f" one of test_names={self.test_names}"
            )
        return problems


def _parts(
    names: tuple[str, ...], first: int
) -> list[tuple[tuple[int, ...], Manipulation]]:
    """Returns base tasks, counted from `first`, and distribution of each model."""
    found = []
    for structure in STRUCTURES:
        own = [n for n, name in enumerate(names) if name in structure.names]
        if own:
            bases = tuple(first + number for number in own)
            found.append((bases, Manipulation(tuple(names[n] for n in own))))
    return found


def _draw(key: Array, num_tasks: int, names: tuple[str, ...], first: int) -> Task:
    """Returns tasks of `names` in turn; base tasks count from `first`."""
    number = jnp.arange(num_tasks)
    base = number % len(names)
    keys = jax.random.split(key, num_tasks)
    drawn = jnp.stack([jax.vmap(VECTORS[name].draw)(keys) for name in names])
    kinds = jnp.array([FIRST_KIND + NAMES.index(x) for x in names], jnp.int32)
    return Task(
        kind=kinds[base],
        base=(first + base).astype(jnp.int32),
        spec=drawn[base, number],
        number=number,
        overrides={},
    )
