"""Episodes with what the agent believed in each step, for analysis and pictures."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Belief
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data.rollout import transition
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import EnvState, NonStationaryEnv, Schedule, Task
from cemrl_jax.envs.base import NO_EVENT, SELECT
from cemrl_jax.envs.groups import Groups


class Recording(struct.PyTreeNode):
    """Episodes `[E, L]`, a robot that falls lies there until the end.

    Attributes:
      transitions: the steps themselves.
      belief: on which each step acted, from before the step.
      x: `[E, L]` where the robot is after the step, m.
      velocity: `[E, L]` its mean velocity along the x-axis in the step, m/s.
      qpos: `[E, L, nq]` pose after the step; `[E, L, 1]`, m, without an engine.
      number: `[E, L]` int32 the task's number in the pool, -1 if it is not there.
      changed: `[E, L]` bool, the step is the first of another task.
      alive: `[E, L]` bool, the robot had not fallen before the step.
    """

    transitions: Transition
    belief: Belief
    x: Array
    velocity: Array
    qpos: Array
    number: Array
    changed: Array
    alive: Array


class Plan(struct.PyTreeNode):
    """When tasks change in an episode.

    Attributes:
      events: `[L]` int32 what a schedule would report in each step.
      follow: `[]` bool, ask the environment's schedule and not `events`.
    """

    events: Array
    follow: Array


class _PlannedState(struct.PyTreeNode):
    """Attributes: inner: the environment's schedule. plan: see `Plan`. step: `[]`."""

    inner: Any
    plan: Plan
    step: Array


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A schedule whose events are data, so that one program runs any of them."""

    inner: Schedule
    num_steps: int

    def init(self, key: Array) -> _PlannedState:
        """See `Schedule.init`: nothing is planned."""
        nothing = jnp.zeros(self.num_steps, jnp.int32) + NO_EVENT
        plan = Plan(events=nothing, follow=jnp.bool_(True))
        return _PlannedState(self.inner.init(key), plan, jnp.int32(0))

    def update(
        self, key: Array, state: _PlannedState, x: Array
    ) -> tuple[Array, _PlannedState]:
        """See `Schedule.update`."""
        event, inner = self.inner.update(key, state.inner, x)
        planned = state.plan.events[state.step]
        event = jnp.where(state.plan.follow, event, planned)
        return event, state.replace(inner=inner, step=state.step + 1)


Record = Callable[[LearnerState, Task, Task, Plan, Array], Recording]
"""`record(learner, tasks [E], pool [N], plan [E], key) -> Recording [E, L]`."""


def make_record(
    env: NonStationaryEnv,
    agent: Agent,
    num_steps: int,
    deterministic: bool = True,
) -> Record:
    """Returns the recorder of episodes, ready for jit.

    Args:
      env: the environment, of one model; see `make_recorder`.
      agent: applies the learner.
      num_steps: L.
      deterministic: act on the policy's mean.
    """
    env = env.with_schedule(_Planned(env.schedule, num_steps))

    def record(
        learner: LearnerState, tasks: Task, pool: Task, plan: Plan, key: Array
    ) -> Recording:
        num_envs = tasks.kind.shape[0]
        policy = agent.policy(learner, deterministic)
        key_reset, key_steps = jax.random.split(key)
        first = jax.vmap(env.reset)(jax.random.split(key_reset, num_envs), tasks)
        first = first.replace(schedule=first.schedule.replace(plan=plan))
        step_env = jax.vmap(env.step, in_axes=(0, 0, None))

        def step(carry: tuple, key: Array) -> tuple[tuple, Recording]:
            before, memory, alive = carry
            task = before.task if policy.sees_task else None
            believed = policy.believe(memory, task)
            action = policy.act(memory, before.obs, key, task)
            after = step_env(before, action, pool)
            data = transition(before, action, after)
            seen = _seen(env, before, after, pool)
            recorded = Recording(transitions=data, belief=believed, alive=alive, **seen)
            alive = alive & jnp.logical_not(after.terminated)
            return (after, policy.observe(memory, data), alive), recorded

        with jax.default_matmul_precision("highest"):
            start = (first, policy.start(num_envs), jnp.ones(num_envs, bool))
            keys = jax.random.split(key_steps, num_steps)
            _, recording = jax.lax.scan(step, start, keys)
        return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), recording)

    return record


def make_recorder(env: NonStationaryEnv, agent: Agent, num_steps: int) -> Record:
    """Returns the recorder of episodes as it is used on the host, of any environment.

    In groups each episode runs in the model of its first task: its events may select
    tasks of that model only, and poses are filled up with zeros to the longest. Where
    the pool has no task of that model, they change to each other's.

    Args:
      env: the environment, or groups.
      agent: applies the learner, on the policy's mean.
      num_steps: L.
    """
    if not isinstance(env, Groups):
        single = jax.jit(make_record(env, agent, num_steps))
        return lambda *args: jax.device_get(single(*args))
    programs = [jax.jit(make_record(part, agent, num_steps)) for part in env.models]

    def record(
        learner: LearnerState, tasks: Task, pool: Task, plan: Plan, key: Array
    ) -> Recording:
        models, models_of_pool = env.model_of(tasks.base), env.model_of(pool.base)
        found, places = [], []
        for model in np.unique(models):
            rows = np.flatnonzero(models == model)
            own = np.flatnonzero(models_of_pool == model)
            own_tasks = jax.tree.map(lambda x, at=rows: x[at], tasks)
            own_pool = jax.tree.map(lambda x, at=own: x[at], pool)
            made = programs[model](
                learner,
                own_tasks,
                own_pool if len(own) else own_tasks,
                Plan(_events_among(own, plan.events[rows]), plan.follow[rows]),
                key,
            )
            made = jax.device_get(made)
            known = own if len(own) else np.full(len(rows), -1)
            number = np.where(made.number < 0, -1, known[made.number])
            found.append(made.replace(number=number))
            places.append(rows)
        size = max(made.qpos.shape[-1] for made in found)
        found = [made.replace(qpos=_filled(made.qpos, size)) for made in found]
        order = np.argsort(np.concatenate(places))
        return jax.tree.map(lambda *x: np.concatenate(x)[order], *found)

    return record


def _events_among(own: np.ndarray, events: Array) -> Array:
    """Returns events whose selected tasks count among these of the pool only.

    Raises:
      ValueError: another is selected.
    """
    number = np.asarray(events) - SELECT
    if not np.isin(number[number >= 0], own).all():
        raise ValueError("a task of another model cannot follow within an episode")
    place = np.searchsorted(own, np.maximum(number, 0))
    return jnp.asarray(SELECT + np.where(number >= 0, place, number))


def _filled(qpos: np.ndarray, size: int) -> np.ndarray:
    return np.pad(qpos, [(0, 0), (0, 0), (0, size - qpos.shape[-1])])


def _seen(
    env: NonStationaryEnv, before: EnvState, after: EnvState, pool: Task
) -> dict[str, Array]:
    """Returns the fields of a `Recording` that need no agent, `[E, ...]` by name."""
    position = jax.vmap(env.robot.x_position)
    x = position(after.physics)
    same = jax.vmap(_equal)(before.task, after.task)
    matches = jax.vmap(jax.vmap(_equal, (None, 0)), (0, None))(after.task, pool)
    return {
        "x": x,
        "velocity": (x - position(before.physics)) / env.robot.control_dt,
        "qpos": getattr(after.physics, "qpos", x[:, None]),
        "number": jnp.where(matches.any(1), matches.argmax(1), -1).astype(jnp.int32),
        "changed": jnp.logical_not(same),
    }


def _equal(a: Task, b: Task) -> Array:
    """Returns whether two tasks are the same, `[]` bool."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return jnp.stack([jnp.all(left == right) for left, right in pairs]).all()
