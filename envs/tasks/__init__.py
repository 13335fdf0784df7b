"""What the robot must do: one file per task distribution, one line in `TASKS`."""

from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.tasks.cripple import Cripple
from cemrl_jax.envs.tasks.direction import Direction
from cemrl_jax.envs.tasks.dynamics import Dynamics
from cemrl_jax.envs.tasks.goal import Goal
from cemrl_jax.envs.tasks.multi_task import MultiTask
from cemrl_jax.envs.tasks.planar_angle import PlanarAngle
from cemrl_jax.envs.tasks.velocity import Velocity

TASKS = {
    "velocity": Velocity,
    "direction": Direction,
    "planar_angle": PlanarAngle,
    "goal": Goal,
    "multi_task": MultiTask,
    "dynamics": Dynamics,
    "cripple": Cripple,
    "metaworld": Manipulation,
}
"""Name -> task distribution, for configurations."""
