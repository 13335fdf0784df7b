"""What task distributions share that change the model of a robot."""

import copy
from typing import Any, TypeVar

import numpy as np

from cemrl_jax.envs.base import Robot

Distribution = TypeVar("Distribution")


def bound(distribution: Distribution, robot: Robot) -> Distribution:
    """Returns a copy of a distribution whose attribute `robot` is set."""
    result: Any = copy.copy(distribution)
    result.robot = robot
    return result


def parameters_of(robot: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns nominal values of a robot's model by name.

    Raises:
      ValueError: there is no robot, or it has no such parameter to change.
    """
    if robot is None:
        raise ValueError("tasks that change a model need bind(robot) before sample")
    known = getattr(robot, "parameters", {})
    for name in names:
        if name not in known:
            raise ValueError(
                f"{name} is not a parameter of {type(robot).__name__} that a task may"
                f" change; it has {', '.join(known) or 'none'}"
            )
    return {name: known[name] for name in names}
