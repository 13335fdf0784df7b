"""What a robot lacks to be a world: a place where only the reward knows the task."""

import dataclasses
from typing import Any, cast

import jax
from jax import Array

from cemrl_jax.envs.base import Robot, Task, World


@dataclasses.dataclass(frozen=True)
class RobotWorld:
    """A robot as a world. Its tasks show in the reward and in its own model only."""

    robot: Robot

    @property
    def action_size(self) -> int:
        """See `World.action_size`."""
        return self.robot.action_size

    @property
    def obs_size(self) -> int:
        """See `World.obs_size`."""
        observe = lambda key: self.robot.observe(self.robot.reset(key))  # noqa: E731
        return jax.eval_shape(observe, jax.random.key(0)).shape[0]

    @property
    def control_dt(self) -> float:
        """See `World.control_dt`."""
        return self.robot.control_dt

    @property
    def is_solvable(self) -> bool:
        """See `World.is_solvable`: steps are only better or worse."""
        return False

    @property
    def can_fall(self) -> bool:
        """See `World`."""
        return getattr(self.robot, "can_fall", True)

    def reset(self, key: Array, task: Task) -> Any:
        """See `World.reset`."""
        del task
        return self.robot.reset(key)

    def step(self, physics: Any, action: Array, task: Task) -> Any:
        """See `World.step`."""
        return self.robot.step(physics, action, task.overrides)

    def observe(self, physics: Any, task: Task) -> Array:
        """See `World.observe`."""
        del task
        return self.robot.observe(physics)

    def judge(
        self, before: Any, after: Any, action: Array, task: Task
    ) -> tuple[Array, None]:
        """See `World.judge`."""
        return self.robot.reward(before, after, action, task), None

    def x_position(self, physics: Any) -> Array:
        """See `World.x_position`."""
        return self.robot.x_position(physics)

    def terminated(self, physics: Any) -> Array:
        """See `World.terminated`."""
        return self.robot.terminated(physics)


def world_of(robot: Robot | World) -> World:
    """Returns a world as it is, a robot as a world."""
    if hasattr(robot, "judge"):
        return cast(World, robot)
    return RobotWorld(cast(Robot, robot))
