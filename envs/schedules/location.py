"""Changes the task at places in the world."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import BACKWARD, FORWARD


@dataclasses.dataclass
class Location:
    """Changes the task each time the robot passes a point on the x-axis.

    Attributes:
      spacing: smallest distance between change points, m.
      jitter: largest random extra distance before a change point, m.
    """

    spacing: float = 10.0
    jitter: float = 1.0

    def init(self, key: Array) -> Array:
        """Returns the next change points `[2]`: forward (> 0) and backward (< 0)."""
        return self.first_points(jax.random.uniform(key, (2,)))

    def update(self, key: Array, state: Array, x: Array) -> tuple[Array, Array]:
        """See `Schedule.update`."""
        return self.advance(state, x, jax.random.uniform(key, (2,)))

    def first_points(self, uniform: Array) -> Array:
        """Returns the change points of an episode's start from two draws `[2]`."""
        return jnp.array([1.0, -1.0]) * (self.spacing + self.jitter * uniform)

    def advance(self, points: Array, x: Array, uniform: Array) -> tuple[Array, Array]:
        """Returns the event at `x` and the points `[2]`, the passed one moved on."""
        passed = jnp.array([x > points[0], x < points[1]])
        event = jnp.where(passed[0], FORWARD, 0) + jnp.where(passed[1], BACKWARD, 0)
        return event, points + passed * self.first_points(uniform)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        if self.spacing <= 0:
            problems.append(f"spacing={self.spacing} must be positive (metres)")
        if self.jitter < 0:
            problems.append(f"jitter={self.jitter} must not be negative (metres)")
        return problems
