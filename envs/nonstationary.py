"""The environment: a robot or world whose task changes while an episode runs."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import (
    NO_EVENT,
    SELECT,
    EnvState,
    Robot,
    Schedule,
    Task,
    TaskDistribution,
    World,
)
from cemrl_jax.envs.worlds import world_of

LIMIT = 1e10
"""Beyond this MuJoCo itself takes a position, velocity or acceleration for broken."""


@dataclasses.dataclass(frozen=True)
class NonStationaryEnv:
    """Robot x task distribution x schedule. The only place where a task changes.

    A step follows the original (meta_rand_envs/base.py:59-79): the schedule looks at
    the robot's position, the task changes, the physics advances, and the reward is
    that of the new task.
    """

    robot: Robot | World
    distribution: TaskDistribution
    schedule: Schedule

    def __post_init__(self) -> None:
        """Lets robot and distribution know each other, where they ask for it."""
        suited = getattr(self.robot, "suited", None)
        if suited is not None:
            object.__setattr__(self, "robot", suited(self.distribution))
        bind = getattr(self.distribution, "bind", None)
        if bind is not None:
            object.__setattr__(self, "distribution", bind(self.robot))

    @functools.cached_property
    def world(self) -> World:
        """The robot, as what receives tasks."""
        return world_of(self.robot)

    @property
    def obs_size(self) -> int:
        """Size of an observation."""
        return self.world.obs_size

    @property
    def action_size(self) -> int:
        """Size of an action; each entry lives in [-1, 1]."""
        return self.world.action_size

    @property
    def can_fall(self) -> bool:
        """Whether episodes can end early; see `Robot`, which is taken at its word."""
        return getattr(self.world, "can_fall", True)

    @property
    def base_names(self) -> tuple[str, ...]:
        """Names of the base tasks, for success rates; none where they have no names."""
        return getattr(self.distribution, "base_names", ())

    @property
    def train_names(self) -> tuple[str, ...]:
        """The first of `base_names`: those of the pools that training draws from."""
        return self.base_names[: getattr(self.distribution, "num_train_bases", None)]

    def with_schedule(self, schedule: Schedule) -> "NonStationaryEnv":
        """Returns the environment with tasks that change by another schedule."""
        return dataclasses.replace(self, schedule=schedule)

    def reset(self, key: Array, task: Task) -> EnvState:
        """Starts an episode with `task`; the key is consumed."""
        key_robot, key_schedule, key = jax.random.split(key, 3)
        physics = self.world.reset(key_robot, task)
        return EnvState(
            physics=physics,
            obs=self.world.observe(physics, task),
            reward=jnp.float32(0),
            terminated=jnp.bool_(False),
            broken=jnp.bool_(False),
            success=jnp.bool_(False) if self.world.is_solvable else None,
            step=jnp.int32(0),
            task=task,
            schedule=self.schedule.init(key_schedule),
            key=key,
        )

    def step(
        self, state: EnvState, action: Array, pool: Task, frozen: Array | bool = False
    ) -> EnvState:
        """Takes one control step.

        Args:
          state: the environment before the step.
          action: `[action_size]` in [-1, 1]; clipped by the robot.
          pool: `[N]` tasks that a change may draw from.
          frozen: `[]` bool, keep the task whatever the schedule says.

        Returns:
          The environment after the step. One that is broken, by its physics or by an
          action that is not finite, counts as fallen.
        """
        key, key_schedule, key_task = jax.random.split(state.key, 3)
        x = self.world.x_position(state.physics)
        event, schedule = self.schedule.update(key_schedule, state.schedule, x)
        changed = (event != NO_EVENT) & jnp.logical_not(frozen)
        next_task = self._next_task(key_task, pool, state.task, event)
        task = jax.tree.map(
            lambda new, old: jnp.where(changed, new, old), next_task, state.task
        )
        physics = self.world.step(state.physics, action, task)
        obs = self.world.observe(physics, task)
        reward, success = self.world.judge(state.physics, physics, action, task)
        # An engine clips an infinite action, so that nothing else shows it.
        broken = ~(_sound((physics, obs, reward)) & jnp.isfinite(action).all())
        keep = lambda new, old: jnp.where(broken, old, new)  # noqa: E731
        return EnvState(
            physics=jax.tree.map(keep, physics, state.physics),
            obs=keep(obs, state.obs),
            reward=keep(reward, jnp.float32(0)),
            terminated=broken | self.can_fall & self.world.terminated(physics),
            broken=broken,
            success=None if success is None else success & ~broken,
            step=state.step + 1,
            task=task,
            schedule=schedule,
            key=key,
        )

    def _next_task(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """Returns the task after an event: by its number, or by the distribution."""
        changed = self.distribution.change(key, pool, task, event)
        number = jnp.maximum(event - SELECT, 0) % pool.kind.shape[0]
        return jax.tree.map(
            lambda leaf, other: jnp.where(event >= SELECT, leaf[number], other),
            pool,
            changed,
        )

    def restart(self, state: EnvState, start: EnvState) -> EnvState:
        """Begins a new episode of the task of `state` from the body of `start`."""
        key, key_schedule = jax.random.split(state.key)
        return state.replace(
            physics=start.physics,
            obs=start.obs,
            step=jnp.zeros_like(state.step),
            schedule=self.schedule.init(key_schedule),
            key=key,
        )


def _sound(tree: Any) -> Array:
    """Returns whether all numbers are finite and within MuJoCo's limits, `[]` bool."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([(jnp.abs(leaf) < LIMIT).all() for leaf in leaves]).all()
