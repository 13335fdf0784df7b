"""Evaluation: every protocol, mode and pool in one rollout."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Policy
from cemrl_jax.data.rollout import returns, rollout
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.schedules import Stationary


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to judge a policy.

    Attributes:
      pool: "test", "train", or "extrapolate" (outside the range of both).
      protocol: "fixed" (the task stays for the episode, as in the authors' logged
        curves of velocity and multi-task families) or "changing" (the schedule runs,
        as in training).
      mode: "deterministic" or "stochastic" actions.
    """

    pool: str
    protocol: str
    mode: str

    @property
    def metric(self) -> str:
        """Name of the mean return in the log."""
        return f"{self.pool}/{self.protocol}_{self.mode}_return"


CASES = tuple(
    Case(pool, protocol, mode)
    for protocol in ("fixed", "changing")
    for pool, mode in (
        ("test", "deterministic"),
        ("test", "stochastic"),
        ("train", "deterministic"),
    )
)
"""What training evaluates."""

EXTRAPOLATION = tuple(
    Case("extrapolate", protocol, "deterministic") for protocol in ("fixed", "changing")
)
"""What can be evaluated besides, where a run has such tasks."""

HEADLINE = CASES[0].metric
"""The number that a run is judged by."""


class Evaluation(struct.PyTreeNode):
    """Episodes of all cases.

    Attributes:
      returns: case -> `[N]` undiscounted return of each episode.
      transitions: case -> `[N, L]` the episodes themselves.
    """

    returns: dict[str, Array]
    transitions: dict[str, Transition]

    @property
    def metrics(self) -> dict[str, Array]:
        """Case -> mean return."""
        return {name: values.mean() for name, values in self.returns.items()}


def make_evaluate(
    env: NonStationaryEnv,
    make_policy: Callable[[Any, Array], Policy],
    num_steps: int,
    num_episodes: int,
    cases: tuple[Case, ...] = CASES,
) -> Callable[[Any, dict[str, Task], Array], Evaluation]:
    """Returns `evaluate(learner, pools, key) -> Evaluation`, ready for jit.

    Args:
      env: the environment.
      make_policy: `Algorithm.policy`.
      num_steps: length of an episode.
      num_episodes: episodes per task and case.
      cases: what to evaluate; with each "changing" one its "fixed" one.

    Returns:
      A function of the learner, of the pools `{"train": [M], "test": [M], ...}` of
      tasks, all of which are run and which changes draw from, and of a key. Where the
      schedule is stationary, "changing" is the same as "fixed" and runs only once.
    """
    stationary = isinstance(env.schedule, Stationary)
    run = [case for case in cases if not stationary or case.protocol == "fixed"]

    def evaluate(learner: Any, pools: dict[str, Task], key: Array) -> Evaluation:
        size = pools["test"].kind.shape[0] * num_episodes
        tasks, pool = [], []
        for case in run:
            part = pools[case.pool]
            tasks.append(_repeat(part, num_episodes))
            pool.append(jax.tree.map(lambda x: jnp.stack([x] * size), part))
        deterministic = jnp.array([case.mode == "deterministic" for case in run])
        frozen = jnp.array([case.protocol == "fixed" for case in run])
        transitions = rollout(
            env,
            make_policy(learner, jnp.repeat(deterministic, size)),
            jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *tasks),
            jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pool),
            key,
            num_steps,
            jnp.repeat(frozen, size),
        )
        values = returns(transitions)
        evaluation = Evaluation(returns={}, transitions={})
        for number, case in enumerate(run):
            rows = slice(number * size, (number + 1) * size)
            names = [case.metric]
            if stationary:
                names.append(dataclasses.replace(case, protocol="changing").metric)
            for name in names:
                evaluation.returns[name] = values[rows]
                evaluation.transitions[name] = jax.tree.map(
                    lambda leaf, rows=rows: leaf[rows], transitions
                )
        return evaluation

    return evaluate


def evaluation_pools(pools: dict[str, Task]) -> dict[str, Task]:
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
