"""What the robot must do: one file per task distribution, one line in `TASKS`."""

from envs.tasks.cripple import Cripple
from envs.tasks.direction import Direction
from envs.tasks.dynamics import Dynamics
from envs.tasks.goal import Goal
from envs.tasks.multi_task import MultiTask
from envs.tasks.planar_angle import PlanarAngle
from envs.tasks.velocity import Velocity

TASKS = {
    "velocity": Velocity,
    "direction": Direction,
    "planar_angle": PlanarAngle,
    "goal": Goal,
    "multi_task": MultiTask,
    "dynamics": Dynamics,
    "cripple": Cripple,
}
"""Name -> task distribution, for configurations."""
