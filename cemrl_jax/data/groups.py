"""Rollouts of environments that may come in groups, see `cemrl_jax.envs.groups`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.agents.base import Policy
from cemrl_jax.data.rollout import Episodes, deal_tasks, rollout
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.groups import Groups


def deal(env: NonStationaryEnv, key: Array, pool: Task, num_envs: int) -> Task:
    """Deals the tasks of a pool `[N]` to environments `[E]`, as evenly as possible.

    In groups each environment has the base task of its place.
    """
    if not isinstance(env, Groups):
        return deal_tasks(key, pool, num_envs)
    count = env.num_bases
    keys = jax.random.split(key, count)
    own = [jax.tree.map(lambda x, b=b: x[b::count], pool) for b in range(count)]
    dealt = [deal_tasks(k, tasks, num_envs // count) for k, tasks in zip(keys, own)]
    turns = jax.tree.map(lambda *x: jnp.stack(x, 1), *dealt)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), turns)


def run(
    env: NonStationaryEnv,
    make_policy: Callable[[Any], Policy],
    tasks: Task,
    pool: Task,
    key: Array,
    num_steps: int,
    frozen: Array | bool = False,
    believe: bool = False,
) -> Episodes:
    """Runs one episode in each of E environments, see `rollout`.

    Args:
      env: the environment, or groups.
      make_policy: rows -> the policy that acts in them.
      tasks: `[E]`, in groups with base tasks in turn.
      pool: `[N]` or `[E, N]`, likewise.
      key: the key is consumed.
      num_steps: see `rollout`.
      frozen: see `rollout`.
      believe: see `rollout`.
    """
    num_envs = tasks.kind.shape[0]
    if not isinstance(env, Groups):
        policy = make_policy(slice(None))
        return rollout(
            env, policy, tasks, pool, key, num_steps, frozen, believe=believe
        )
    frozen = jnp.broadcast_to(frozen, (num_envs,))
    axis, size = pool.kind.ndim - 1, pool.kind.shape[-1]
    keys, found = jax.random.split(key, len(env.parts)), []
    places = zip(env.parts, keys, env.rows(num_envs), env.rows(size))
    for part, own_key, rows, tasks_of_part in places:
        own_pool = jax.tree.map(lambda x, at=tasks_of_part: x.take(at, axis), pool)
        if axis:
            own_pool = jax.tree.map(lambda x, at=rows: x[at], own_pool)
        own = jax.tree.map(lambda x, at=rows: x[at], tasks)
        policy = make_policy(rows)
        found.append(
            rollout(
                *(part, policy, own, own_pool, own_key, num_steps, frozen[rows]),
                believe=believe,
            )
        )
    found = [episodes.replace(breakdown=None) for episodes in found]
    order = np.argsort(np.concatenate(env.rows(num_envs)))
    return jax.tree.map(lambda *x: jnp.concatenate(x)[order], *found)
