"""Run with a joint that has no torque."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import Robot, Task
from cemrl_jax.envs.tasks.binding import bound, parameters_of
from cemrl_jax.envs.tasks.pools import draw_from, reward_tasks


@dataclasses.dataclass
class Cripple:
    """One joint's actuator does nothing; a change draws from the pool.

    Base task 0 is the healthy robot, base task i the i-th of the joints without
    torque. A pool holds them in turn.

    Attributes:
      joints: actuators that fail in `sample`, by number; the robot's others fail in
        `extrapolate`.
      direction: the reward is the velocity forward (+1) or backward (-1).
    """

    joints: tuple[int, ...] = (0, 1, 2, 3)
    direction: float = 1.0

    def __post_init__(self) -> None:
        """The robot comes with `bind`; it is no setting."""
        self.robot: Any = None

    @property
    def num_base_tasks(self) -> int:
        """The healthy robot and each joint that may fail in `sample`."""
        return 1 + len(self.joints)

    def bind(self, robot: Robot) -> "Cripple":
        """Returns this distribution for a robot.

        Raises:
          ValueError: the robot has no such actuators.
        """
        count = len(parameters_of(robot, ("actuator_gear",))["actuator_gear"])
        if max(self.joints) >= count:
            raise ValueError(f"joints={self.joints} must be below {count}")
        return bound(self, robot)

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`: healthy and the joints, no randomness."""
        del key
        return self._tasks(num_tasks, (-1, *self.joints), 0)

    def extrapolate(self, key: Array, num_tasks: int) -> Task:
        """Returns the joints in turn that never fail in `sample`.

        Raises:
          ValueError: every joint fails in `sample`.
        """
        del key
        gear = parameters_of(self.robot, ("actuator_gear",))["actuator_gear"]
        others = tuple(sorted(set(range(len(gear))) - set(self.joints)))
        if not others:
            raise ValueError(f"joints={self.joints} leaves no other joint")
        return self._tasks(num_tasks, others, self.num_base_tasks)

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        if not self.joints or min(self.joints) < 0:
            problems.append(f"joints={self.joints} must hold numbers of actuators")
        if abs(self.direction) != 1:
            problems.append(f"direction={self.direction} must be +1.0 or -1.0")
        return problems

    def _tasks(self, num_tasks: int, joints: tuple[int, ...], first: int) -> Task:
        gear = parameters_of(self.robot, ("actuator_gear",))["actuator_gear"]
        base = jnp.arange(num_tasks) % len(joints)
        broken = jnp.array(joints)[base][:, None] == jnp.arange(len(gear))
        return reward_tasks(
            "direction",
            jnp.full(num_tasks, self.direction, jnp.float32),
            first + base,
            {"actuator_gear": jnp.where(broken[..., None], 0, gear)},
        )
