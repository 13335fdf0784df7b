"""Non-stationary environments: robots x task distributions x schedules."""

from cemrl_jax.envs.base import (
    EnvState,
    Robot,
    Schedule,
    Task,
    TaskDistribution,
)
from cemrl_jax.envs.nonstationary import NonStationaryEnv
from cemrl_jax.envs.robots import ROBOTS
from cemrl_jax.envs.schedules import SCHEDULES
from cemrl_jax.envs.tasks import TASKS

__all__ = [
    "ROBOTS",
    "SCHEDULES",
    "TASKS",
    "EnvState",
    "NonStationaryEnv",
    "Robot",
    "Schedule",
    "Task",
    "TaskDistribution",
]
