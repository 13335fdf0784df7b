"""Bodies: one file per robot, one line in `ROBOTS`."""

from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.robots.ant import Ant
from cemrl_jax.envs.robots.half_cheetah import HalfCheetah
from cemrl_jax.envs.robots.hopper import Hopper
from cemrl_jax.envs.robots.humanoid import Humanoid
from cemrl_jax.envs.robots.point import Point
from cemrl_jax.envs.robots.walker2d import Walker2d

ROBOTS = {
    "ant": Ant,
    "half_cheetah": HalfCheetah,
    "hopper": Hopper,
    "humanoid": Humanoid,
    "point": Point,
    "sawyer": Sawyer,
    "walker2d": Walker2d,
}
"""Name -> robot, for configurations."""
