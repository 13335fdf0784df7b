"""What the robot must do: one file per task distribution, one line in `TASKS`."""

from envs.tasks.direction import Direction
from envs.tasks.velocity import Velocity

TASKS = {"velocity": Velocity, "direction": Direction}
"""Name -> task distribution, for configurations."""
