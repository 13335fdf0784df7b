"""Every robot with a task distribution and a schedule, compiled once per session."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import pytest
from helpers import HAS_METAWORLD

from cemrl_jax.envs import ROBOTS, SCHEDULES, TASKS, NonStationaryEnv, Task
from cemrl_jax.envs.tasks import Goal

NUM_ENVS = 64
CASES = {
    "ant": ("ant", "goal", "timed"),
    "half_cheetah": ("half_cheetah", "dynamics", "probabilistic"),
    "hopper": ("hopper", "velocity", "location"),
    "humanoid": ("humanoid", "planar_angle", "stationary"),
    "point": ("point", "direction", "location"),
    "sawyer": ("sawyer", "metaworld", "timed"),
    "walker2d": ("walker2d", "multi_task", "sequence"),
    "half_cheetah_cripple": ("half_cheetah", "cripple", "stationary"),
}
"""Name -> robot, task distribution, schedule; each table entry occurs."""
QUICK = ("half_cheetah", "point")
"""Their MJX steps compile in seconds; those of the others take up to 90 s."""


def on_each_engine(names: Iterable[str]) -> list[Any]:
    """Names and engines for `parametrize`; what compiles long is marked slow."""
    return [
        pytest.param(
            name,
            engine,
            id=f"{name}-{engine}",
            marks=_marks(name, engine),
        )
        for name in names
        for engine in ("mujoco", "mjx")
        if name != "point" or engine == "mjx"
    ]


def _marks(name: str, engine: str) -> list[Any]:
    quick = engine == "mujoco" or name in QUICK
    missing = name == "sawyer" and not HAS_METAWORLD
    return ([] if quick else [pytest.mark.slow]) + [
        pytest.mark.skipif(missing, reason="no metaworld")
    ]


@dataclasses.dataclass
class World:
    """An environment with its functions for `NUM_ENVS` environments, compiled."""

    env: Any  # a NonStationaryEnv; tests look into its robot
    pool: Task
    tasks: Task
    reset: Any
    step: Any

    @property
    def nominal_tasks(self) -> Task:
        """The tasks, with the robot's own model where they change it."""
        overrides = {
            name: jax.numpy.repeat(self.env.robot.parameters[name][None], NUM_ENVS, 0)
            for name in self.tasks.overrides
        }
        return self.tasks.replace(overrides=overrides)

    def actions(self, key):
        shape = (NUM_ENVS, self.env.action_size)
        return jax.random.uniform(key, shape, minval=-1, maxval=1)


@functools.cache
def world(name: str, engine: str = "mjx") -> World:
    robot, task, schedule = CASES[name]
    distribution = Goal(planar=True) if robot == "ant" else TASKS[task]()
    body: Any = ROBOTS[robot]()
    body = body if robot == "point" else body.on_engine(engine)
    env = NonStationaryEnv(body, distribution, SCHEDULES[schedule]())
    pool = jax.jit(lambda key: env.distribution.sample(key, 16))(jax.random.key(1))
    tasks = jax.tree.map(lambda leaf: leaf[jax.numpy.arange(NUM_ENVS) % 16], pool)
    reset, step = jax.vmap(env.reset), jax.vmap(env.step, in_axes=(0, 0, None))
    return World(env, pool, tasks, jax.jit(reset), jax.jit(step))
