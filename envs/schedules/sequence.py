"""Changes the task by a fixed list."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import NO_EVENT, SELECT


@dataclasses.dataclass
class Sequence:
    """Switches to given tasks of the pool at given steps, for plots and tests.

    Attributes:
      steps: numbers of the steps of an episode at which the task changes, rising.
      tasks: number in the pool of the task that each step changes to; counted round
        where the pool is smaller.
    """

    steps: tuple[int, ...] = (50, 100, 150)
    tasks: tuple[int, ...] = (1, 2, 3)

    def init(self, key: Array) -> Array:
        """Returns the number of the next step."""
        del key
        return jnp.int32(0)

    def update(self, key: Array, state: Array, x: Array) -> tuple[Array, Array]:
        """See `Schedule.update`."""
        del key, x
        due = state == jnp.array(self.steps, jnp.int32)
        task = (due * jnp.array(self.tasks, jnp.int32)).sum()
        return jnp.where(due.any(), SELECT + task, NO_EVENT), state + 1

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        if len(self.steps) != len(self.tasks):
            problems.append(f"tasks={self.tasks} must be as many as steps={self.steps}")
        if any(late <= early for early, late in zip((-1, *self.steps), self.steps)):
            problems.append(f"steps={self.steps} must rise from 0")
        if any(task < 0 for task in self.tasks):
            problems.append(f"tasks={self.tasks} must not be negative")
        return problems
