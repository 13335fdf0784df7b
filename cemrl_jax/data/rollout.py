"""Episodes: environments side by side, stepped inside one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Belief, Policy
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import EnvState, NonStationaryEnv, Task

BREAKDOWN = "breakdown/"
"""Before the names of what a step began with that broke an environment."""


class Episodes(struct.PyTreeNode):
    """What a rollout returns.

    Attributes:
      transitions: `[E, L]`, all finite. Where an environment broke, the transition is
        none: it leads nowhere, with an action and a reward of zero.
      broken: `[E, L]` bool, where one did.
      success: `[E, L]` bool, steps that solved their task; None if the world has none.
      belief: `[E, L]` what each step acted on; None unless it was asked for.
      breakdown: `[E, ...]` what the last step that broke each environment began with,
        zeros where none did: leaves of the physics' state by name, see `_beginning`,
        "action" and "spec" of the task; None of environments in groups, whose states
        differ in size.
    """

    transitions: Transition
    broken: Array
    success: Array | None = None
    belief: Belief | None = None
    breakdown: dict[str, Array] | None = None


class _Carry(struct.PyTreeNode):
    """State of a rollout: environments, the policy's memory, breakdowns, all `[E]`."""

    env: EnvState
    memory: Any
    breakdown: dict[str, Array]


def rollout(
    env: NonStationaryEnv,
    policy: Policy,
    tasks: Task,
    pool: Task,
    key: Array,
    num_steps: int,
    frozen: Array | bool = False,
    believe: bool = False,
) -> Episodes:
    """Runs one episode of fixed length in each of E environments.

    A robot that falls or breaks starts again in the first state of another environment
    of this rollout, with the task that it had and a schedule that begins anew.

    Args:
      env: the environment.
      policy: acts; it sees no task unless it says so.
      tasks: `[E]` tasks to start with.
      pool: tasks that a change may draw from: `[N]`, or `[E, N]` for each its own.
      key: the key is consumed.
      num_steps: L.
      frozen: `[E]` or `[]` bool, keep the first task whatever the schedule says.
      believe: return beliefs as well.

    Returns:
      Transitions `[E, L]`, their tasks without the overrides of the model, and which
      of them broke.
    """
    num_envs = tasks.kind.shape[0]
    key_reset, key_steps = jax.random.split(key)
    first = jax.vmap(env.reset)(jax.random.split(key_reset, num_envs), tasks)
    with jax.default_matmul_precision("highest"):
        fresh = policy.start(num_envs)
    frozen = jnp.broadcast_to(frozen, (num_envs,))
    step = _make_step(env, policy, pool, frozen, first, fresh, believe)
    nothing = jnp.zeros((num_envs, env.action_size))
    none = jax.tree.map(jnp.zeros_like, _beginning(env, first, nothing))
    carry = _Carry(env=first, memory=fresh, breakdown=none)
    inputs = (jax.random.split(key_steps, num_steps), jnp.arange(num_steps))
    with jax.default_matmul_precision("highest"):
        carry, episodes = jax.lax.scan(step, carry, inputs)
    episodes = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), episodes)
    return episodes.replace(breakdown=carry.breakdown)


def _make_step(
    env: NonStationaryEnv,
    policy: Policy,
    pool: Task,
    frozen: Array,
    first: EnvState,
    fresh: Any,
    believe: bool,
) -> Callable[[_Carry, tuple[Array, Array]], tuple[_Carry, Episodes]]:
    """Returns one step of `rollout`, for `jax.lax.scan` over keys and numbers.

    Robots that fall go on in the states `first`, with the memory `fresh`.
    """
    num_envs = frozen.shape[0]
    pool_axis = 0 if pool.kind.ndim == 2 else None
    step_env = jax.vmap(env.step, in_axes=(0, 0, pool_axis, 0))

    def step(carry: _Carry, inputs: tuple[Array, Array]) -> tuple[_Carry, Episodes]:
        key, number = inputs
        before = carry.env
        task = before.task if policy.sees_task else None
        belief = policy.believe(carry.memory, task) if believe else None
        action = policy.act(carry.memory, before.obs, key, task)
        after = step_env(before, action, pool, frozen)
        data = transition(before, action, after)
        fallen = after.terminated
        other = 1 + number % max(num_envs - 1, 1)
        start = jax.tree.map(lambda leaf: jnp.roll(leaf, other, 0), first)
        seen = data if policy.sees_task else data.replace(task=None)
        memory = policy.observe(carry.memory, seen)
        carry = _Carry(
            env=where_env(fallen, jax.vmap(env.restart)(after, start), after),
            memory=policy.restart(memory, fresh, fallen),
            breakdown=where_env(
                after.broken, _beginning(env, before, action), carry.breakdown
            ),
        )
        return carry, Episodes(data, after.broken, after.success, belief)

    return step


def _beginning(
    env: NonStationaryEnv, before: EnvState, action: Array
) -> dict[str, Array]:
    """Returns what a step `[E]` begins with; readings follow from the rest.

    A state that is an array alone is called "physics". One of no engine has its place
    "x" as well, m, whatever it calls that itself.
    """
    leaves = jax.tree_util.tree_leaves_with_path(before.physics)
    name_of = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    known = {name_of(path) or "physics": leaf for path, leaf in leaves}
    known = {name: x for name, x in known.items() if name.split("/")[0] != "readings"}
    if "qpos" not in known:
        known = {"x": jax.vmap(env.world.x_position)(before.physics)} | known
    return known | {"action": action, "spec": before.task.spec}


def transition(before: EnvState, action: Array, after: EnvState) -> Transition:
    """Returns the step between two states, its task without overrides of the model."""
    return Transition(
        obs=before.obs,
        action=jnp.where(after.broken[..., None], 0, action),
        reward=after.reward,
        next_obs=after.obs,
        terminated=after.terminated.astype(jnp.float32),
        step=before.step,
        task=after.task.replace(overrides={}),
    )


def where_env(mask: Array, new: Any, old: Any) -> Any:
    """Selects whole environments: `mask` is `[E]`, every leaf is `[E, ...]`."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(select, new, old)


def deal_tasks(key: Array, pool: Task, num_envs: int) -> Task:
    """Deals the tasks of a pool `[N]` to environments `[E]`, as evenly as possible.

    Each task gets `E // N` of them, and some, drawn by chance, one more.
    """
    key_rest, key_order = jax.random.split(key)
    num_tasks = pool.kind.shape[0]
    rounds, rest = divmod(num_envs, num_tasks)
    numbers = jnp.arange(num_tasks)
    some = jax.random.permutation(key_rest, numbers)[:rest]
    dealt = jnp.concatenate([jnp.tile(numbers, rounds), some])
    order = jax.random.permutation(key_order, dealt)
    return jax.tree.map(lambda leaf: leaf[order], pool)


def without_broken(episodes: Episodes) -> Transition:
    """Returns transitions `[E, L]` in which nothing has broken.

    All of them were really made. After a broken step an episode begins anew, so what
    follows takes its place. The end of such a row is filled up with its own beginning,
    which begins an episode as well. A row of broken steps only becomes a copy of
    another row.
    """
    broken = episodes.broken
    sound = (~broken).sum(1, keepdims=True)
    kept = jnp.argsort(broken, axis=1, stable=True)
    place = jnp.arange(broken.shape[1]) % jnp.maximum(sound, 1)
    step = jnp.take_along_axis(kept, place, 1)
    empty = sound[:, 0] == 0
    row = jnp.where(empty, jnp.argmin(empty), jnp.arange(broken.shape[0]))
    return jax.lax.cond(
        broken.any(),
        lambda data: jax.tree.map(lambda leaf: leaf[row[:, None], step[row]], data),
        lambda data: data,
        episodes.transitions,
    )


def sound_returns(episodes: Episodes) -> Array:
    """Returns the mean undiscounted return `[]` of the episodes that did not break.

    Where all of them did, of what there was before that.
    """
    values, broken = returns(episodes.transitions), episodes.broken.any(1)
    counted = ~broken | broken.all()
    return jnp.where(counted, values, 0).sum() / counted.sum()


def returns(transitions: Transition) -> Array:
    """Returns the undiscounted return `[E]` of each first episode in `[E, L]`."""
    fallen = jnp.cumsum(transitions.terminated, 1) - transitions.terminated
    return jnp.where(fallen > 0, 0, transitions.reward).sum(1)


def task_changes(task: Task) -> Array:
    """Returns which steps `[E, L]` are the first of another task, bool."""
    marks = [task.kind, task.base, task.number]
    spec = task.spec.reshape(*task.kind.shape, -1)
    marks = jnp.concatenate([spec, *(mark[..., None] for mark in marks)], -1)
    changed = (marks[:, 1:] != marks[:, :-1]).any(-1)
    return jnp.pad(changed, ((0, 0), (1, 0)))


def with_physics(task: Task, pool: Task) -> Task:
    """Returns tasks of transitions with the overrides that their numbers have.

    Transitions do not hold overrides. A family that has some draws from its pool, so
    each of its tasks has a number there.

    Args:
      task: `[*shape]` tasks without overrides.
      pool: `[N]` the tasks that they were drawn from.
    """
    overrides = jax.tree.map(lambda leaf: leaf[task.number], pool.overrides)
    return task.replace(overrides=overrides)
