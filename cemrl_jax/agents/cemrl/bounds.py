"""What bounds CEMRL from both sides: policies that infer nothing.

An oracle is told the true task in place of z, a blind policy is told nothing. What is
missing to the oracle is the price of inference; what is not above the blind policy was
not inferred. Neither reads the world model, so neither trains it: an update is SAC's
alone, the same as CEMRL's but for what stands in place of z.

In the step in which a task changes the oracle acts before it can be told, and learns
from it with the new one: a loose bound where tasks change every few steps.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.envs import NonStationaryEnv, Task


class Bound(Protocol):
    """What the policy is told in place of the inferred z."""

    @property
    def size(self) -> int:
        """C, the numbers that it is told."""
        ...

    @property
    def sees_task(self) -> bool:
        """Whether they depend on the task; None is enough for it if not."""
        ...

    def describe(self, task: Task | None, shape: tuple[int, ...]) -> Array:
        """Returns what stands in place of z, `[*shape, C]`.

        Args:
          task: `[*shape]` tasks with their overrides.
          shape: the leading axes.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Blind:
    """Zeros, as many as z has.

    Attributes:
      size: see `Bound`.
    """

    size: int
    sees_task = False

    def describe(self, task: Task | None, shape: tuple[int, ...]) -> Array:
        """See `Bound.describe`."""
        del task
        return jnp.zeros((*shape, self.size))


@dataclasses.dataclass(frozen=True, eq=False)
class Oracle:
    """The base task (one-hot, where there are several), its parameter, its physics.

    The physics are multipliers of the robot's nominal values, where these are not 0.

    Attributes:
      num_base_tasks: base tasks of the family.
      spec_size: numbers in a task's parameter.
      nominal: fields of the robot's model that tasks override, with their values.
    """

    num_base_tasks: int
    spec_size: int
    nominal: dict[str, np.ndarray]
    sees_task = True

    @classmethod
    def of(cls, env: NonStationaryEnv) -> "Oracle":
        """Returns the oracle of an environment's family of tasks."""
        family = env.distribution
        task = jax.eval_shape(lambda key: family.sample(key, 1), jax.random.key(0))
        known = getattr(env.robot, "parameters", {}) if task.overrides else {}
        return cls(
            num_base_tasks=getattr(family, "num_base_tasks", 1),
            spec_size=task.spec.size,
            nominal={name: np.asarray(known[name]) for name in sorted(task.overrides)},
        )

    @property
    def size(self) -> int:
        """See `Bound.size`."""
        physics = sum(int((value != 0).sum()) for value in self.nominal.values())
        return self._base_size + self.spec_size + physics

    @property
    def _base_size(self) -> int:
        return self.num_base_tasks if self.num_base_tasks > 1 else 0

    def describe(self, task: Task | None, shape: tuple[int, ...]) -> Array:
        """See `Bound.describe`."""
        assert task is not None
        parts = [
            jax.nn.one_hot(task.base, self.num_base_tasks)[..., : self._base_size],
            task.spec.reshape(*shape, self.spec_size),
        ]
        for name, value in self.nominal.items():
            changes = value != 0
            flat = task.overrides[name].reshape(*shape, value.size)
            parts.append(flat[..., changes.ravel()] / value[changes])
        return jnp.concatenate(parts, -1)


CONTEXTS: dict[str, Callable[[int, NonStationaryEnv], Bound | None]] = {
    "inferred": lambda latent_size, env: None,
    "oracle": lambda latent_size, env: Oracle.of(env),
    "blind": lambda latent_size, env: Blind(latent_size),
}
"""What the policy sees of the task -> what it is told; None where it infers."""
