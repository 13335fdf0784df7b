"""The phases that train the policy alone."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.agent import Agent, PolicyNoise
from cemrl_jax.agents.cemrl.bounds import Bound
from cemrl_jax.agents.cemrl.phases.updates import (
    at_precision_of_agent,
    mean_over_updates,
    skipped_steps,
)
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data import normalizer, replay
from cemrl_jax.data.replay import Place
from cemrl_jax.data.rollout import with_physics
from cemrl_jax.data.types import Metrics, Params, ReplayState, Transition, WorkerState


def train_policy(
    agent: Agent,
    learner: LearnerState,
    worker: WorkerState,
    batch_size: int,
    num_updates: int,
    context: Callable[[Place, Transition], Array],
) -> tuple[LearnerState, WorkerState, Metrics]:
    """Takes SAC steps on independent transitions of the replay.

    Args:
      agent: the agent.
      learner: the learner.
      worker: the worker.
      batch_size: B, per device.
      num_updates: steps.
      context: gives what the policy sees of the tasks of transitions `[B]`, `[B, C]`.

    Returns:
      What a phase returns.
    """
    memory = worker.replay

    def draw(key: Array) -> tuple[Place, PolicyNoise]:
        key_draw, key_noise = jax.random.split(key)
        place = replay.draw(memory, key_draw, batch_size, "all", 1)
        return place, agent.policy_noise(key_noise, batch_size)

    def update(
        learner: LearnerState, drawn: tuple[Place, PolicyNoise]
    ) -> tuple[LearnerState, Metrics]:
        place, noise = drawn
        now = replay.transitions(memory.data, place)
        learner = learner.replace(normalizer=constant["normalizer"])
        learner, metrics = agent.policy_step(learner, now, context(place, now), noise)
        return learner.replace(normalizer=None), metrics

    key, key_updates = jax.random.split(worker.key)
    keys = jax.random.split(key_updates, num_updates)
    packed = agent.pack(learner)
    constant = {"world_model": packed.world_model, "normalizer": packed.normalizer}
    trained, metrics = mean_over_updates(
        update, packed.replace(**dict.fromkeys(constant)), keys, draw
    )
    learner = agent.unpack(trained.replace(**constant))
    metrics = metrics | skipped_steps(learner)
    return learner, worker.replace(key=key), metrics


@dataclasses.dataclass(frozen=True)
class BoundPhase:
    """Trains a policy that is told something in place of z; see `Bound`.

    Attributes:
      agent: the agent.
      bound: what the policy is told.
      batch_size: per device.
      num_updates: SAC updates.
    """

    agent: Agent
    bound: Bound
    batch_size: int
    num_updates: int

    @at_precision_of_agent
    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase."""

        def context(place: Place, now: Transition) -> Array:
            del place
            task = with_physics(now.task, worker.tasks)
            return self.bound.describe(task, now.reward.shape)

        sizes = (self.batch_size, self.num_updates)
        return train_policy(self.agent, learner, worker, *sizes, context)


@dataclasses.dataclass(frozen=True)
class PolicyPhase:
    """Trains the policy on tasks inferred with a world model that stays as it is.

    Each transition of the replay goes through the encoder's per-transition part once,
    before the updates; an update only merges T embeddings. The original relabels the
    whole buffer for the same reason.

    Attributes:
      agent: the agent.
      batch_size: per device.
      num_updates: SAC updates.
    """

    agent: Agent
    batch_size: int
    num_updates: int

    @at_precision_of_agent
    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase."""
        encoder = learner.world_model.params["encoder"]
        embedded = self.embed(learner, worker.replay)
        nothing = self._embed_features(learner, jnp.zeros(self.agent.num_features))
        return train_policy(
            self.agent,
            learner,
            worker,
            self.batch_size,
            self.num_updates,
            lambda place, now: self._infer(encoder, embedded, nothing, place, now.step),
        )

    def embed(self, learner: LearnerState, memory: ReplayState) -> Any:
        """Returns the embeddings of the whole replay, `[E, L, ...]`."""

        def embed_chunk(start: Array) -> Any:
            rows = replay.chunk_at(memory.data, start)
            scaled = self.agent.scale(learner, rows)
            return self._embed_features(learner, normalizer.features(scaled))

        def write(number: Array, embedded: Any) -> Any:
            start = number * num_steps
            return jax.tree.map(
                lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(
                    leaf, new, start, 1
                ),
                embedded,
                embed_chunk(start),
            )

        num_steps, length = memory.data.num_steps, memory.data.length
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((leaf.shape[0], length, *leaf.shape[2:])),
            jax.eval_shape(embed_chunk, jnp.int32(0)),
        )
        return jax.lax.fori_loop(0, memory.size // num_steps, write, empty)

    def _embed_features(self, learner: LearnerState, x: Array) -> Any:
        params = learner.world_model.params["encoder"]
        return self.agent.encoder.apply(params, x, method="embed")

    def _infer(
        self,
        encoder: Params,
        embedded: Any,
        nothing: Any,
        place: Place,
        step: Array,
    ) -> Array:
        env, index = place
        newest = (env, index - 1)
        before = replay.look_back(embedded, newest, self.agent.window_steps - 1)
        exists = replay.exists(step, self.agent.window_steps)
        window = jax.tree.map(
            lambda leaf, blank: jnp.where(
                exists.reshape(exists.shape + (1,) * blank.ndim), leaf, blank
            ),
            before,
            nothing,
        )
        posterior = self.agent.encoder.apply(encoder, window, method="infer")
        return losses.infer_task(posterior)
