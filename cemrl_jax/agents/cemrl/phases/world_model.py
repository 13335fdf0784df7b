"""The phases that train the world model alone."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.phases.sampling import Places, Sampling
from cemrl_jax.agents.cemrl.phases.updates import (
    at_precision_of_agent,
    mean_over_updates,
    skipped_steps,
)
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.config import TrainConfig
from cemrl_jax.data.types import (
    Metrics,
    Params,
    ReplayState,
    Trainable,
    WorkerState,
)
from cemrl_jax.runtime import parallel


class WorldModelTraining(struct.PyTreeNode):
    """State of a phase that trains the world model, with its early stopping.

    Attributes:
      learner: the learner.
      key: randomness of this device.
      step: `[]` int32 world model steps so far.
      best_params: parameters at the lowest validation error.
      best_error: `[]` that error, state plus reward.
      best_step: `[]` int32 when it was reached.
      stop: `[]` bool, no better one for too long.
      metrics: of the last step that was taken.
    """

    learner: LearnerState
    key: Array
    step: Array
    best_params: Params
    best_error: Array
    best_step: Array
    stop: Array
    metrics: Metrics


def after_validation(
    state: WorldModelTraining,
    agent: Agent,
    validation_errors: Array,
    train_errors: Array,
    patience: int,
) -> WorldModelTraining:
    """Adapts the loss weights, remembers the best parameters, decides whether to stop.

    Args:
      state: the phase; `state.step` steps are done.
      agent: says how errors make loss weights.
      validation_errors: `[2]` state and reward error of a validation batch.
      train_errors: `[2]` the same of a training batch.
      patience: steps without a better validation before it stops.

    Returns:
      The phase. Unlike the original, the best parameters include the prior's.
    """
    weights = agent.balanced_weights(train_errors)
    old_weights = state.learner.loss_weights
    weights = parallel.where(jnp.isfinite(weights).all(), weights, old_weights)
    error = validation_errors.sum()
    better = error < state.best_error
    step = state.step - 1  # the number of the step just taken
    best_step = jnp.where(better, step, state.best_step)
    return state.replace(
        learner=state.learner.replace(loss_weights=weights),
        best_params=jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            state.learner.world_model.params,
            state.best_params,
        ),
        best_error=jnp.where(better, error, state.best_error),
        best_step=best_step,
        stop=step - best_step > patience,
    )


@dataclasses.dataclass(frozen=True)
class WorldModelPhase:
    """Trains the world model until it stops improving (reconstruction_trainer.py).

    Attributes:
      agent: the agent.
      sampling: how a batch is drawn; validations are of independent transitions.
      max_steps: world model steps at most.
      interval: steps from one validation to the next.
      patience: steps without a better validation before it stops.
    """

    agent: Agent
    sampling: Sampling
    max_steps: int
    interval: int
    patience: int

    @at_precision_of_agent
    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase; the learner returns with its best parameters."""
        key, key_phase, key_last = jax.random.split(worker.key, 3)
        state = WorldModelTraining(
            learner=learner,
            key=key_phase,
            step=jnp.int32(0),
            best_params=learner.world_model.params,
            best_error=jnp.float32(jnp.inf),
            best_step=jnp.int32(0),
            stop=jnp.bool_(False),
            metrics=self._no_metrics(learner, worker.replay),
        )
        rest = self.max_steps % self.interval
        state = jax.lax.while_loop(
            lambda state: (state.step < self.max_steps - rest) & ~state.stop,
            lambda state: self._interval(state, worker.replay, self.interval),
            state,
        )
        if rest:
            state = jax.lax.cond(
                state.stop,
                lambda state: state,
                lambda state: self._interval(state, worker.replay, rest),
                state,
            )
        world_model = state.learner.world_model.replace(params=state.best_params)
        learner = state.learner.replace(world_model=world_model)
        errors = self._errors(learner, worker.replay, key_last, "validation")
        metrics = state.metrics | {
            "elbo/validation_state_error": errors[0],
            "elbo/validation_reward_error": errors[1],
            "elbo/best_step": state.best_step.astype(jnp.float32),
            "elbo/steps": state.step.astype(jnp.float32),
            "elbo/state_weight": learner.loss_weights[0],
        }
        metrics = parallel.average(metrics) | skipped_steps(learner)
        return learner, worker.replace(key=key), metrics

    def _interval(
        self, state: WorldModelTraining, memory: ReplayState, num_steps: int
    ) -> WorldModelTraining:
        """Takes a step, validates, and unless that says stop takes the other steps.

        The number of steps is fixed, so a device need not be asked after each. A
        validation is not a branch of each step: where seeds train together, all would
        compute it in each step to throw it away.
        """
        key, key_validation = jax.random.split(state.key)
        state = self._step(state.replace(key=key), memory)
        state = self._validate(state, memory, key_validation)
        return jax.lax.cond(
            state.stop,
            lambda state: state,
            lambda state: jax.lax.fori_loop(
                0, num_steps - 1, lambda _, state: self._step(state, memory), state
            ),
            state,
        )

    def _step(
        self, state: WorldModelTraining, memory: ReplayState
    ) -> WorldModelTraining:
        key, key_draw, key_noise = jax.random.split(state.key, 3)
        batch = self.sampling.draw(self.agent, state.learner, memory, key_draw)
        noise = self.agent.world_model_noise(key_noise, batch.size)
        learner, metrics, _ = self.agent.world_model_step(state.learner, batch, noise)
        taken = learner.world_model.skipped[1] == 0
        metrics = parallel.where(taken, metrics, state.metrics)
        return state.replace(
            learner=learner, key=key, metrics=metrics, step=state.step + 1
        )

    def _validate(
        self, state: WorldModelTraining, memory: ReplayState, key: Array
    ) -> WorldModelTraining:
        key_validation, key_train = jax.random.split(key)
        return after_validation(
            state,
            self.agent,
            self._errors(state.learner, memory, key_validation, "validation"),
            self._errors(state.learner, memory, key_train, "train"),
            self.patience,
        )

    def _errors(
        self, learner: LearnerState, memory: ReplayState, key: Array, split: str
    ) -> Array:
        errors = losses.mean_prediction_errors(
            learner.world_model.params,
            self.agent,
            self.sampling.independent(self.agent, learner, memory, key, split),
            self.agent.elbo.state_difference,
        )
        return parallel.average(errors)

    def _no_metrics(self, learner: LearnerState, memory: ReplayState) -> Metrics:
        def step(key: Array) -> Metrics:
            batch = self.sampling.draw(self.agent, learner, memory, key)
            noise = self.agent.world_model_noise(key, batch.size)
            return self.agent.world_model_step(learner, batch, noise)[1]

        shapes = jax.eval_shape(step, jax.random.key(0))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


@dataclasses.dataclass(frozen=True)
class FixedWorldModelPhase:
    """Trains the world model for a number of steps, those of the fused phase.

    A validation is one batch. Where tasks change, its reward error was 0.003 in one
    epoch and 0.2 in another: a short phase that listens to it goes back to its first
    steps at times.

    Attributes:
      agent: the agent.
      sampling: how a batch is drawn.
      num_steps: world model steps.
    """

    agent: Agent
    sampling: Sampling
    num_steps: int

    @at_precision_of_agent
    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase."""
        agent, memory = self.agent, worker.replay

        def draw(key: Array) -> tuple[Places, Array]:
            key_draw, key_noise = jax.random.split(key)
            noise = agent.world_model_noise(key_noise, self.sampling.batch_size)
            return self.sampling.places(memory, key_draw), noise

        def update(
            state: tuple[Trainable, Array], drawn: tuple[Places, Array]
        ) -> tuple[tuple[Trainable, Array], Metrics]:
            (model, weights), (places, noise) = state, drawn
            own = packed.replace(world_model=model, loss_weights=weights)
            batch = self.sampling.gather(agent, own, memory, places)
            own, metrics, _ = agent.world_model_update(own, batch, noise)
            return (own.world_model, own.loss_weights), metrics

        key, key_updates = jax.random.split(worker.key)
        keys = jax.random.split(key_updates, self.num_steps)
        packed = agent.pack(learner)
        before = (packed.world_model, packed.loss_weights)
        (model, weights), metrics = mean_over_updates(update, before, keys, draw)
        packed = packed.replace(world_model=model, loss_weights=weights)
        learner = agent.unpack(packed)
        metrics = metrics | skipped_steps(learner)
        metrics["elbo/state_weight"] = weights[0]
        return learner, worker.replace(key=key), metrics


def make_world_model(agent: Agent, sampling: Sampling, train: TrainConfig) -> Phase:
    """Returns the phase that trains the world model alone.

    Args:
      agent: the agent.
      sampling: how a batch of all transitions is drawn.
      train: how many steps are taken, and what ends them.
    """
    if not train.early_stopping_steps:
        return FixedWorldModelPhase(agent, sampling, train.num_world_model_steps)
    return WorldModelPhase(
        agent,
        dataclasses.replace(sampling, fold=train.validation_fold),
        max_steps=train.num_world_model_steps,
        interval=train.validation_interval,
        patience=train.early_stopping_steps,
    )
