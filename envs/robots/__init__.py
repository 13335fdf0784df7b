"""Bodies: one file per robot, one line in `ROBOTS`."""

from envs.robots.half_cheetah import HalfCheetah
from envs.robots.point import Point

ROBOTS = {"half_cheetah": HalfCheetah, "point": Point}
"""Name -> robot, for configurations."""
