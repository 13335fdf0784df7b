"""Evaluation: every pool, protocol and mode in one rollout."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Policy
from cemrl_jax.data import groups
from cemrl_jax.data.rollout import Episodes, returns
from cemrl_jax.data.success import tally
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.groups import Groups
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.evaluation.cases import CASES, Case
from cemrl_jax.evaluation.inference import Trace, trace

MakePolicy = Callable[[Any, Array], Policy]
"""`Algorithm.policy`."""


class Plan(struct.PyTreeNode):
    """The episodes of an evaluation, one a row.

    Attributes:
      tasks: `[N]` to start with.
      pool: `[N, M]` tasks that changes draw from.
      deterministic: `[N]` bool, act on the mean.
      frozen: `[N]` bool, keep the task whatever the schedule says.
    """

    tasks: Task
    pool: Task
    deterministic: Array
    frozen: Array


class Evaluation(struct.PyTreeNode):
    """Episodes of all cases.

    Attributes:
      returns: case -> `[N]` undiscounted return of each episode.
      transitions: case -> `[N, L]` the episodes themselves.
      traces: case -> `[N, L]` what was inferred in them.
      counts: case -> `[N, 2, K]` tasks and solved tasks, see `success.tally`; None in
        a world without success.
    """

    returns: dict[str, Array]
    transitions: dict[str, Transition]
    traces: dict[str, Trace]
    counts: dict[str, Array] | None

    @property
    def metrics(self) -> dict[str, Array]:
        """Case -> mean return."""
        return {name: values.mean() for name, values in self.returns.items()}

    def joined(self, other: "Evaluation") -> "Evaluation":
        """Returns these episodes and those of other cases, in the same world."""
        counts = None
        if self.counts is not None and other.counts is not None:
            counts = self.counts | other.counts
        return Evaluation(
            returns=self.returns | other.returns,
            transitions=self.transitions | other.transitions,
            traces=self.traces | other.traces,
            counts=counts,
        )


class Scores(struct.PyTreeNode):
    """What is kept of episodes `[N]` when the episodes are not.

    Attributes:
      returns: `[N]` undiscounted return.
      traces: `[N, L]` what was inferred.
      counts: `[N, 2, K]`, see `Evaluation`.
    """

    returns: Array
    traces: Trace
    counts: Array | None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the episodes of each case are in a plan.

    Where the schedule is stationary, "changing" is the same as "fixed": the episodes
    of one stand for both.

    Attributes:
      cases: what is evaluated.
      size: episodes of a case.
      stationary: the schedule never changes a task.
    """

    cases: tuple[Case, ...]
    size: int
    stationary: bool

    @property
    def run(self) -> tuple[Case, ...]:
        """The cases that have episodes of their own, in the plan's order."""
        return tuple(dict.fromkeys(self._runs_as(case) for case in self.cases))

    def by_case(self, values: Any) -> dict[Case, Any]:
        """Returns each case -> its rows of `[N, ...]` arrays."""
        result = {}
        for case in self.cases:
            number = self.run.index(self._runs_as(case))
            rows = slice(number * self.size, (number + 1) * self.size)
            result[case] = jax.tree.map(lambda leaf, rows=rows: leaf[rows], values)
        return result

    def split(self, values: Any) -> dict[str, Any]:
        """Returns the metric of each case -> its rows of `[N, ...]` arrays."""
        return {case.metric: own for case, own in self.by_case(values).items()}

    def _runs_as(self, case: Case) -> Case:
        return dataclasses.replace(case, protocol="fixed") if self.stationary else case


def make_plan(
    pools: Mapping[str, Task],
    schedule: Any,
    num_episodes: int,
    cases: Sequence[Case],
    in_turn: bool = False,
) -> tuple[Plan, Rows]:
    """Returns the episodes of an evaluation.

    Args:
      pools: tasks `[M]` by pool, all of one size; every task of a case's pool is run.
      schedule: of the environment.
      num_episodes: episodes per task and case.
      cases: what to evaluate.
      in_turn: run all tasks once, then once more, not each task as often in a row.
    """
    size = pools["test"].kind.shape[0] * num_episodes
    rows = Rows(tuple(cases), size, isinstance(schedule, Stationary))
    repeat = _tile if in_turn else _repeat
    tasks = [repeat(pools[case.pool], num_episodes) for case in rows.run]
    pool = [
        jax.tree.map(lambda x: jnp.stack([x] * size), pools[case.pool])
        for case in rows.run
    ]
    join = lambda trees: jax.tree.map(lambda *x: jnp.concatenate(x), *trees)  # noqa: E731
    deterministic = jnp.array([case.mode == "deterministic" for case in rows.run])
    frozen = jnp.array([case.protocol == "fixed" for case in rows.run])
    plan = Plan(
        tasks=join(tasks),
        pool=join(pool),
        deterministic=jnp.repeat(deterministic, size),
        frozen=jnp.repeat(frozen, size),
    )
    return plan, rows


def run_plan(
    env: NonStationaryEnv,
    make_policy: MakePolicy,
    num_steps: int,
    learner: Any,
    plan: Plan,
    key: Array,
) -> Episodes:
    """Returns the episodes of a plan, `[N, L]`; the key is consumed."""
    act = lambda rows: make_policy(learner, plan.deterministic[rows])  # noqa: E731
    return groups.run(
        env, act, plan.tasks, plan.pool, key, num_steps, plan.frozen, believe=True
    )


def score(env: NonStationaryEnv, plan: Plan, episodes: Episodes) -> Scores:
    """Returns what is kept of the episodes of a plan."""
    counts = tally(episodes, len(env.base_names))
    return Scores(returns(episodes.transitions), trace(episodes, plan.pool), counts)


def make_evaluate(
    env: NonStationaryEnv,
    make_policy: MakePolicy,
    num_steps: int,
    num_episodes: int,
    cases: Sequence[Case] = CASES,
) -> Callable[[Any, dict[str, Task], Array], Evaluation]:
    """Returns `evaluate(learner, pools, key) -> Evaluation`, ready for jit.

    Args:
      env: the environment.
      make_policy: `Algorithm.policy`.
      num_steps: length of an episode.
      num_episodes: episodes per task and case.
      cases: what to evaluate.

    Returns:
      A function of the learner, of the pools `{"train": [M], "test": [M], ...}` of
      tasks, all of which are run and which changes draw from, and of a key.
    """

    def evaluate(learner: Any, pools: dict[str, Task], key: Array) -> Evaluation:
        in_turn = isinstance(env, Groups)
        plan, rows = make_plan(pools, env.schedule, num_episodes, cases, in_turn)
        episodes = run_plan(env, make_policy, num_steps, learner, plan, key)
        scores = score(env, plan, episodes)
        return Evaluation(
            returns=rows.split(scores.returns),
            transitions=rows.split(episodes.transitions),
            traces=rows.split(scores.traces),
            counts=None if scores.counts is None else rows.split(scores.counts),
        )

    return evaluate


def make_scores(
    env: NonStationaryEnv, make_policy: MakePolicy, num_steps: int
) -> Callable[[Any, tuple[Plan, Array]], Scores]:
    """Returns `evaluate(learner, (plan, key))`, which gives scores `[N]` only."""

    def evaluate(learner: Any, part: tuple[Plan, Array]) -> Scores:
        plan, key = part
        episodes = run_plan(env, make_policy, num_steps, learner, plan, key)
        return score(env, plan, episodes)

    return evaluate


def evaluation_pools(pools: Mapping[str, Task]) -> dict[str, Task]:
    """Returns pools as large as the test pool, `[M]`: the first M tasks of each.

    Where there are fewer they are repeated.
    """
    size = pools["test"].kind.shape[0]

    def resized(tasks: Task) -> Task:
        chosen = jnp.arange(size) % tasks.kind.shape[0]
        return jax.tree.map(lambda leaf: leaf[chosen], tasks)

    return {name: resized(tasks) for name, tasks in pools.items()}


def _repeat(tasks: Task, times: int) -> Task:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, 0), tasks)


def _tile(tasks: Task, times: int) -> Task:
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf] * times), tasks)
