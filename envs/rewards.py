"""Rewards: pure functions of what happened in a step and of the task's parameter."""

import jax
import jax.numpy as jnp
from jax import Array

from envs.base import Motion, Task


def velocity(motion: Motion, spec: Array) -> Array:
    """Minus the distance to the goal velocity `spec` (m/s)."""
    return -jnp.abs(motion.x_velocity - spec)


def direction(motion: Motion, spec: Array) -> Array:
    """Velocity towards `spec` (+1 forward, -1 backward)."""
    return motion.direction_weight * motion.x_velocity * spec


REWARDS = {"velocity": velocity, "direction": direction}
"""Name -> term of the reward that depends on the task; `Task.kind` is its index."""


def kind_of(name: str) -> int:
    """Returns the index of a reward, for `Task.kind`."""
    return list(REWARDS).index(name)


def reward(task: Task, motion: Motion) -> Array:
    """Returns the whole reward `[]` of a step: task term, minus cost, plus bonus."""
    goal = jax.lax.switch(task.kind, list(REWARDS.values()), motion, task.spec)
    return goal - motion.cost + motion.bonus
