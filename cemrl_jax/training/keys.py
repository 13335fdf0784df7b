"""A run's randomness."""

import dataclasses

import jax
from jax import Array


@dataclasses.dataclass(frozen=True)
class Keys:
    """The run's randomness by use; all from the seed."""

    agent: Array
    train_tasks: Array
    test_tasks: Array
    workers: Array
    evaluation: Array

    @classmethod
    def of(cls, seed: int) -> "Keys":
        """Splits the key of a seed."""
        return cls(*jax.random.split(jax.random.key(seed), 5))

    @property
    def extrapolate_tasks(self) -> Array:
        """A key of its own, which leaves those above as they are."""
        return jax.random.fold_in(self.test_tasks, 1)

    @property
    def validation_tasks(self) -> Array:
        """Likewise."""
        return jax.random.fold_in(self.test_tasks, 2)
