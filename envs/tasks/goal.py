"""Go to a place."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.tasks.pools import draw_from, reward_tasks


@dataclasses.dataclass
class Goal:
    """Places drawn uniformly within a distance; a change draws from the pool.

    Attributes:
      distance: largest distance from the origin, m.
      planar: places on the ground (spec `[2]`) and not on the x-axis (spec `[]`).
    """

    distance: float = 5.0
    planar: bool = False

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`."""
        return self._tasks(key, num_tasks, 0.0, self.distance)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Draws places outside, up to one and a half times the distance."""
        return self._tasks(key, num_tasks, self.distance, 1.5 * self.distance)

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        if self.distance <= 0:
            return [f"distance={self.distance} must be positive (m)"]
        return []

    def _tasks(self, key: Array, num_tasks: int, inner: float, outer: float) -> Task:
        """Draws places between two distances, uniformly over the length or area."""
        key_radius, key_side = jax.random.split(key)
        uniform = jax.random.uniform(key_radius, (num_tasks,))
        if not self.planar:
            side = jnp.sign(2 * uniform - 1)
            way = jnp.abs(2 * uniform - 1)
            return reward_tasks("goal", side * (inner + (outer - inner) * way))
        radius = jnp.sqrt(inner**2 + (outer**2 - inner**2) * uniform)
        angle = 2 * math.pi * jax.random.uniform(key_side, (num_tasks,))
        place = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
        return reward_tasks("goal", radius[:, None] * place)
