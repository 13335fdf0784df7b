"""The phase that collects experience."""

import jax
import jax.numpy as jnp

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data import groups, normalizer, replay, success
from cemrl_jax.data.rollout import BREAKDOWN, sound_returns, without_broken
from cemrl_jax.data.types import Metrics, WorkerState
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.runtime import parallel


def make_collect(
    env: NonStationaryEnv, agent: Agent, num_envs: int, num_steps: int
) -> Phase:
    """Returns the phase that collects an episode in each of `num_envs` per device."""

    def collect(
        learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        key, key_tasks, key_rollout = jax.random.split(worker.key, 3)
        episodes = groups.run(
            env,
            lambda rows: agent.policy(learner, deterministic=False),
            groups.deal(env, key_tasks, worker.tasks, num_envs),
            worker.tasks,
            key_rollout,
            num_steps,
        )
        transitions = without_broken(episodes)
        learner = learner.replace(
            normalizer=normalizer.update(
                learner.normalizer, transitions, parallel.DEVICES
            )
        )
        worker = worker.replace(replay=replay.add(worker.replay, transitions), key=key)
        metrics = {
            "collect/return": sound_returns(episodes),
            "collect/falls": transitions.terminated.sum(1).mean(),
        }
        metrics = parallel.average(metrics)
        broken = episodes.broken.sum().astype(jnp.float32)
        lost = replay.num_lost(worker.replay, transitions).astype(jnp.float32)
        metrics["collect/broken"] = parallel.total(broken)
        metrics["collect/lost"] = parallel.total(lost)
        names = env.train_names
        counts = success.tally(episodes, len(names))
        if counts is not None:
            found = success.rates(parallel.total(counts.sum(0)), names)
            metrics |= {f"collect/{name}": value for name, value in found.items()}
        if episodes.breakdown is not None:
            values = parallel.one_of(episodes.breakdown, episodes.broken.any(1))
            metrics |= {BREAKDOWN + name: value for name, value in values.items()}
        return learner, worker, metrics

    return collect
