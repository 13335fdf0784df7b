"""Non-stationary environments: robots x task distributions x schedules."""

from envs.base import EnvState, Motion, Robot, Schedule, Task, TaskDistribution
from envs.nonstationary import NonStationaryEnv
from envs.robots import ROBOTS
from envs.schedules import SCHEDULES
from envs.tasks import TASKS

__all__ = [
    "ROBOTS",
    "SCHEDULES",
    "TASKS",
    "EnvState",
    "Motion",
    "NonStationaryEnv",
    "Robot",
    "Schedule",
    "Task",
    "TaskDistribution",
]
