"""Bodies: one file per robot, one line in `ROBOTS`."""

from envs.robots.ant import Ant
from envs.robots.half_cheetah import HalfCheetah
from envs.robots.hopper import Hopper
from envs.robots.humanoid import Humanoid
from envs.robots.point import Point
from envs.robots.walker2d import Walker2d

ROBOTS = {
    "ant": Ant,
    "half_cheetah": HalfCheetah,
    "hopper": Hopper,
    "humanoid": Humanoid,
    "point": Point,
    "walker2d": Walker2d,
}
"""Name -> robot, for configurations."""
