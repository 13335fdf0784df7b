"""The phase in which each update trains the world model and the policy."""

import dataclasses
import functools

import jax
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl.agent import Agent, Noise
from cemrl_jax.agents.cemrl.phases.sampling import Places, Sampling
from cemrl_jax.agents.cemrl.phases.updates import mean_over_updates, skipped_steps
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data import replay
from cemrl_jax.data.replay import Place
from cemrl_jax.data.types import Metrics, ReplayState, WorkerState


class Draws(struct.PyTreeNode):
    """All that is random in a fused update.

    Attributes:
      places: of the ELBO's batch.
      policy_place: of SAC's; None for the same batch.
      noise: of the networks.
    """

    places: Places
    policy_place: Place | None
    noise: Noise


def make_fused(
    agent: Agent,
    sampling: Sampling,
    num_updates: int,
    independent_policy: bool = False,
) -> Phase:
    """Returns the phase in which each update trains the world model and the policy.

    Args:
      agent: the agent.
      sampling: of the ELBO's batch, and of SAC's unless that is independent.
      num_updates: updates.
      independent_policy: draw SAC's transitions one by one, not in segments.
    """
    independent_policy &= sampling.windows_per_segment > 1
    single = dataclasses.replace(sampling, windows_per_segment=1)

    def draw(memory: ReplayState, key: Array) -> Draws:
        key_draw, key_policy, key_update = jax.random.split(key, 3)
        policy_place = None
        if independent_policy:
            policy_place = replay.draw(
                memory,
                key_policy,
                sampling.batch_size,
                "all",
                sampling.fold,
            )
        return Draws(
            places=sampling.places(memory, key_draw),
            policy_place=policy_place,
            noise=agent.noise(key_update, sampling.batch_size),
        )

    def train(
        learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        def update(learner: LearnerState, draws: Draws) -> tuple[LearnerState, Metrics]:
            memory, learner = worker.replay, learner.replace(normalizer=statistics)
            batch = sampling.gather(agent, learner, memory, draws.places)
            policy_batch = None
            if draws.policy_place is not None:
                place = Places(draws.policy_place)
                policy_batch = single.gather(agent, learner, memory, place)
            learner, metrics = agent.update(learner, batch, draws.noise, policy_batch)
            return learner.replace(normalizer=None), metrics

        key, key_updates = jax.random.split(worker.key)
        keys = jax.random.split(key_updates, num_updates)
        draw_here = functools.partial(draw, worker.replay)
        statistics = learner.normalizer
        learner = agent.pack(learner).replace(normalizer=None)
        with jax.default_matmul_precision(agent.precision):
            learner, metrics = mean_over_updates(update, learner, keys, draw_here)
        learner = agent.unpack(learner).replace(normalizer=statistics)
        metrics = metrics | skipped_steps(learner)
        metrics["elbo/state_weight"] = learner.loss_weights[0]
        return learner, worker.replace(key=key), metrics

    return train
