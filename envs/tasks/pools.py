"""What task distributions share: making pools and drawing from them."""

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.robots.locomotion import kind_of


def reward_tasks(
    reward: str,
    spec: Array,
    base: Array | int = 0,
    overrides: dict[str, Array] | None = None,
) -> Task:
    """Returns a pool of tasks with one reward.

    Args:
      reward: name in `envs.robots.locomotion.REWARDS`.
      spec: `[N]` or `[N, S]` parameters.
      base: `[N]` labels of the base tasks, or one for all.
      overrides: of the robot's model, each `[N, ...]`; nothing by default.
    """
    zeros = jnp.zeros(spec.shape[0], jnp.int32)
    return Task(
        kind=zeros + kind_of(reward),
        base=zeros + base,
        spec=spec,
        number=jnp.arange(spec.shape[0]),
        overrides=overrides or {},
    )


def draw_from(key: Array, pool: Task) -> Task:
    """Draws one task from a pool `[N]`."""
    index = jax.random.randint(key, (), 0, pool.kind.shape[0])
    return jax.tree.map(lambda leaf: leaf[index], pool)


def range_problems(low: float, high: float, unit: str) -> list[str]:
    """Returns what is wrong with the fields `low` and `high`."""
    if low > high:
        return [f"low={low} must not exceed high={high} ({unit})"]
    return []
