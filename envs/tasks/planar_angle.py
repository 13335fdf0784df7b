"""Run towards an angle on the ground."""

import dataclasses
import math

import jax
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.tasks.pools import draw_from, range_problems, reward_tasks


@dataclasses.dataclass
class PlanarAngle:
    """Headings drawn uniformly from an arc; a change draws from the pool.

    For robots that move on the ground: on a line only the cosine matters.

    Attributes:
      low: smallest heading, rad from the x-axis.
      high: largest heading, rad.
    """

    low: float = 0.0
    high: float = 2 * math.pi

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`."""
        spec = jax.random.uniform(key, (num_tasks,), minval=self.low, maxval=self.high)
        return reward_tasks("planar_angle", spec)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Draws headings from the rest of the circle.

        Raises:
          ValueError: the arc is the whole circle, nothing is outside.
        """
        end = self.low + 2 * math.pi
        if end <= self.high:
            raise ValueError("no heading is outside of the whole circle")
        spec = jax.random.uniform(key, (num_tasks,), minval=self.high, maxval=end)
        return reward_tasks("planar_angle", spec)

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        if self.high - self.low > 2 * math.pi + 1e-6:
            return [f"high={self.high} must be within a turn of low={self.low} (rad)"]
        return range_problems(self.low, self.high, "rad")
