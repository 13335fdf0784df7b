"""Changes the task after some time."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import ELAPSED, NO_EVENT


@dataclasses.dataclass
class Timed:
    """Changes the task with a probability a step, once some steps have passed.

    With `min_steps=0` each step but an episode's first may change the task: the
    probabilistic schedule.

    Attributes:
      min_steps: steps that a task lasts at least.
      probability: chance of a change in each step after those.
    """

    min_steps: int = 100
    probability: float = 0.05

    def init(self, key: Array) -> Array:
        """Returns the number of steps since the last change."""
        del key
        return jnp.int32(0)

    def update(self, key: Array, state: Array, x: Array) -> tuple[Array, Array]:
        """See `Schedule.update`."""
        del x
        return self.advance(state, jax.random.uniform(key))

    def advance(self, steps: Array, uniform: Array) -> tuple[Array, Array]:
        """Returns the event and the steps since the last change, from one draw."""
        due = (steps > self.min_steps) & (uniform < self.probability)
        event = jnp.where(due, ELAPSED, NO_EVENT)
        return event, jnp.where(due, 0, steps) + 1

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        if self.min_steps < 0:
            problems.append(f"min_steps={self.min_steps} must not be negative")
        if not 0 <= self.probability <= 1:
            problems.append(f"probability={self.probability} must be between 0 and 1")
        return problems
