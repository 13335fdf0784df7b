"""Run at a goal velocity."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from envs.base import Task
from envs.rewards import kind_of


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
        zeros = jnp.zeros(num_tasks, jnp.int32)
        shape = (num_tasks,)
        spec = jax.random.uniform(key, shape, minval=self.low, maxval=self.high)
        return Task(kind=zeros + kind_of("velocity"), base=zeros, spec=spec, model={})

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        if self.low > self.high:
            return [f"low={self.low} must not exceed high={self.high} (m/s)"]
        return []


def draw_from(key: Array, pool: Task) -> Task:
    """Draws one task from a pool `[N]`."""
    index = jax.random.randint(key, (), 0, pool.kind.shape[0])
    return jax.tree.map(lambda leaf: leaf[index], pool)
