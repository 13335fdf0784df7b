"""Run with another mass, inertia, damping or friction."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.envs.base import Robot, Task
from cemrl_jax.envs.tasks.binding import bound, parameters_of
from cemrl_jax.envs.tasks.pools import draw_from, reward_tasks

SCOPES = ("element", "part", "single")


@dataclasses.dataclass
class Dynamics:
    """Multiplies parameters of the robot's model; a change draws from the pool.

    A multiplier is `base ** u` with u uniform within +-`log_limit`: log-uniform. What
    MuJoCo derives from the parameters stays nominal, as in the original, except the
    masses of subtrees.

    Attributes:
      parameters: names of the model's fields to change.
      bases: base of each one's multipliers, above 1.
      log_limit: largest exponent of a base.
      scope: "element" (each number has a multiplier of its own), "part" (each body
        has one per parameter) or "single" (base task i changes the i-th number that
        is not zero, and nothing else).
      direction: the reward is the velocity forward (+1) or backward (-1).
    """

    parameters: tuple[str, ...] = (
        "body_mass",
        "body_inertia",
        "dof_damping",
        "geom_friction",
    )
    bases: tuple[float, ...] = (1.5, 1.5, 1.3, 1.5)
    log_limit: float = 3.0
    scope: str = "element"
    direction: float = 1.0

    def __post_init__(self) -> None:
        """The robot comes with `bind`; it is no setting."""
        self.robot: Any = None

    @property
    def num_base_tasks(self) -> int:
        """With "single" the number of parameters that are not zero, else 1."""
        if self.scope != "single" or self.robot is None:
            return 1
        return sum(int((value != 0).sum()) for value in self._nominal().values())

    def bind(self, robot: Robot) -> "Dynamics":
        """Returns this distribution for a robot.

        Raises:
          ValueError: the robot has no such parameters.
        """
        parameters_of(robot, self.parameters)
        return bound(self, robot)

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`."""
        return self._tasks(key, num_tasks, 0.0, self.log_limit)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Draws exponents outside the limit, up to one and a half times it."""
        return self._tasks(key, num_tasks, self.log_limit, 1.5 * self.log_limit)

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        if not self.parameters or len(self.parameters) != len(self.bases):
            problems.append(
                f"bases={self.bases} must be as many as the {len(self.parameters)}"
                " parameters, at least one"
            )
        if any(base <= 1 for base in self.bases):
            problems.append(f"bases={self.bases} must be above 1")
        if self.log_limit <= 0:
            problems.append(f"log_limit={self.log_limit} must be positive")
        if self.scope not in SCOPES:
            problems.append(f"scope={self.scope!r} must be one of {', '.join(SCOPES)}")
        if abs(self.direction) != 1:
            problems.append(f"direction={self.direction} must be +1.0 or -1.0")
        return problems

    def _nominal(self) -> dict[str, np.ndarray]:
        return parameters_of(self.robot, self.parameters)

    def _tasks(self, key: Array, num_tasks: int, inner: float, outer: float) -> Task:
        """Draws tasks whose exponents are between two sizes, of either sign."""
        nominal = self._nominal()
        number = jnp.arange(num_tasks) % self.num_base_tasks
        keys = jax.random.split(key, len(nominal))
        overrides, first = {}, 0
        for key, base, (name, value) in zip(keys, self.bases, nominal.items()):
            exponent = self._exponents(key, name, num_tasks, inner, outer)
            if self.scope == "single":
                numbers = first + np.cumsum(value != 0).reshape(value.shape) - 1
                chosen = (numbers == _columns(number, value.ndim)) & (value != 0)
                exponent = jnp.where(chosen, exponent, 0)
                first = numbers.max() + 1
            overrides[name] = value * base**exponent
        spec = jnp.full(num_tasks, self.direction, jnp.float32)
        base_task = number if self.scope == "single" else 0
        return reward_tasks("direction", spec, base_task, overrides)

    def _exponents(
        self, key: Array, name: str, num_tasks: int, inner: float, outer: float
    ) -> Array:
        """Draws exponents `[N, ...]` that broadcast against a parameter's value."""
        value = self._nominal()[name]
        rows = self.robot.parts[name] if self.scope == "part" else None
        shape = value.shape if rows is None else (rows.max() + 1,)
        uniform = jax.random.uniform(key, (num_tasks, *shape), minval=-1, maxval=1)
        exponent = jnp.sign(uniform) * (inner + (outer - inner) * jnp.abs(uniform))
        if rows is None:
            return exponent
        return _columns(exponent[:, rows], value.ndim - 1)


def _columns(values: Array, count: int) -> Array:
    """Appends axes of length 1 to an array."""
    return values.reshape(*values.shape, *[1] * count)
