"""Run forward or backward."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import BACKWARD, FORWARD, Task
from cemrl_jax.envs.tasks.pools import reward_tasks


@dataclasses.dataclass
class Direction:
    """Forward (+1) and backward (-1); an event turns the robot round.

    Passing a forward change point turns +1 into -1, passing a backward one -1 into
    +1, and time turns both. Base task 0 is forward, 1 backward.

    Attributes:
      starts: the directions that episodes start with, each +1 or -1. Only one of
        them makes the one-sided family of continual learning.
    """

    starts: tuple[float, ...] = (-1.0, 1.0)

    @property
    def num_base_tasks(self) -> int:
        """Forward and backward: an event reaches both from any start."""
        return 2

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`: the starts in turn, no randomness."""
        del key
        spec = jnp.resize(jnp.array(self.starts, jnp.float32), (num_tasks,))
        return reward_tasks("direction", spec, _base(spec))

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del key
        away = jnp.where(event == FORWARD, task.spec > 0, task.spec < 0)
        one_way = (event == FORWARD) | (event == BACKWARD)
        turn = jnp.where(one_way, away, True)
        spec = jnp.where(turn, -task.spec, task.spec)
        same = pool.spec == spec
        number = jnp.where(same.any(), same.argmax(), -1)
        return task.replace(
            spec=spec, base=_base(spec), number=jnp.where(turn, number, task.number)
        )

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        if not self.starts or any(abs(start) != 1 for start in self.starts):
            return [f"starts={self.starts} must hold at least one of +1.0 and -1.0"]
        return []


def _base(spec: Array) -> Array:
    return (spec < 0).astype(jnp.int32)
