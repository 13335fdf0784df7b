"""Run at a goal velocity."""

import dataclasses

import jax
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.tasks.pools import draw_from, range_problems, reward_tasks


@dataclasses.dataclass
class Velocity:
    """Goal velocities drawn uniformly from a range; a change draws from the pool.

    Attributes:
      low: smallest goal velocity, m/s.
      high: largest goal velocity, m/s.
    """

    low: float = 0.0
    high: float = 3.0

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`."""
        spec = jax.random.uniform(key, (num_tasks,), minval=self.low, maxval=self.high)
        return reward_tasks("velocity", spec)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Draws velocities above the range, up to half its width.

        Raises:
          ValueError: the range has no width, so nothing is near it.
        """
        if self.low >= self.high:
            raise ValueError("no velocity is within half the width of a single one")
        top = self.high + (self.high - self.low) / 2
        spec = jax.random.uniform(key, (num_tasks,), minval=self.high, maxval=top)
        return reward_tasks("velocity", spec)

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        return range_problems(self.low, self.high, "m/s")
