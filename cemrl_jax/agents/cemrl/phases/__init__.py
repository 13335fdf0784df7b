"""The phases of an epoch: functions of learner and worker, compiled by `train`."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.agent import Agent, Noise, PolicyNoise
from cemrl_jax.agents.cemrl.bounds import Bound
from cemrl_jax.agents.cemrl.types import TRAINED, Batch, LearnerState
from cemrl_jax.config import Config
from cemrl_jax.data import groups, normalizer, replay, success
from cemrl_jax.data.replay import Place
from cemrl_jax.data.rollout import (
    BREAKDOWN,
    sound_returns,
    with_physics,
    without_broken,
)
from cemrl_jax.data.types import (
    Metrics,
    Params,
    ReplayState,
    Transition,
    WorkerState,
)
from cemrl_jax.data.vectors import Compact
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.runtime import parallel


class Places(struct.PyTreeNode):
    """Where a batch of the ELBO comes from.

    Attributes:
      current: `[B]` transitions whose windows the encoder sees, or segments `[S, W]`.
      decoded: what the decoder predicts, of the same shape; None for `current`.
    """

    current: Place
    decoded: Place | None = None


def _at_precision_of_agent(phase: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a phase multiply matrices as precisely as its agent asks for."""

    @functools.wraps(phase)
    def precise(self: Any, learner: LearnerState, worker: WorkerState) -> Any:
        with jax.default_matmul_precision(self.agent.precision):
            return phase(self, learner, worker)

    return precise


class _Means(struct.PyTreeNode):
    """Means of metrics, updated step by step.

    Attributes:
      sums: `[M]` of the finite values of each metric.
      counts: `[M]` of them.
    """

    sums: Array
    counts: Array


DRAWN_BYTES = 32 * 2**20
"""What is drawn at once for the updates to come may take so much memory."""


def mean_over_updates(
    update: Callable[[Any, Any], tuple[Any, Metrics]],
    state: Any,
    inputs: Any,
    draw: Callable[[Any], Any] = lambda chosen: chosen,
) -> tuple[Any, Metrics]:
    """Takes an update after the other.

    Args:
      update: `(state, drawn) -> (state, metrics)`.
      state: before the first one.
      inputs: `[N, ...]`.
      draw: returns what an update needs of its input: called for many at once.

    Returns:
      The state after the last one, and the metrics, each averaged over the updates in
      which it was finite. The others are of skipped steps, which are counted.
    """
    first = jax.eval_shape(draw, jax.tree.map(lambda leaf: leaf[0], inputs))
    update = jax.jit(update, inline=True)  # traced once for its shapes and the loop
    names = list(jax.eval_shape(lambda *args: update(*args)[1], state, first))

    def step(carry: Compact, drawn: Compact) -> tuple[Compact, None]:
        state, means = carry.tree
        state, metrics = update(state, drawn.tree)
        values = jnp.stack([metrics[name] for name in names])
        finite = jnp.isfinite(values)
        means = _Means(
            sums=means.sums + jnp.where(finite, values, 0),
            counts=means.counts + finite,
        )
        return Compact.of((state, means)), None

    def some(carry: Compact, inputs: Any) -> tuple[Compact, None]:
        # As vectors: arrays with short axes may take a multiple of their size.
        drawn = jax.vmap(lambda chosen: Compact.of(draw(chosen), math.inf))(inputs)
        return jax.lax.scan(step, carry, drawn)[0], None

    zeros = jnp.zeros(len(names))
    carry = Compact.of((state, _Means(zeros, zeros)))
    num_updates = jax.tree.leaves(inputs)[0].shape[0]
    size = _at_once(num_updates, first)
    if size < num_updates:
        split = lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:])  # noqa: E731
        carry, _ = jax.lax.scan(some, carry, jax.tree.map(split, inputs))
    else:
        carry, _ = some(carry, inputs)
    state, means = carry.tree
    values = parallel.average(means.sums / means.counts)
    return state, dict(zip(names, values, strict=True))


def _at_once(num_updates: int, drawn: Any) -> int:
    """Returns for how many updates to draw at once, a divisor of their number."""
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(drawn))
    most = max(1, min(num_updates, DRAWN_BYTES // each))
    return next(n for n in range(most, 0, -1) if num_updates % n == 0)


def skipped_steps(learner: LearnerState) -> Metrics:
    """Counts the gradients of each optimiser that were skipped since the start."""
    return {
        f"train/skipped_{name}": getattr(learner, name).skipped[0].astype(jnp.float32)
        for name in TRAINED
    }


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


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a batch of the ELBO is drawn from a replay.

    Attributes:
      batch_size: B, per device.
      windows_per_segment: W, consecutive transitions of a run; 1 for independent ones.
      fold: one in so many transitions is for validation.
      decode: see `ElboConfig`.
    """

    batch_size: int
    windows_per_segment: int = 1
    fold: int = 1
    decode: str = "current"

    def draw(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, key: Array
    ) -> Batch:
        """Draws a batch of the transitions that are not for validation."""
        return self.gather(agent, learner, memory, self.places(memory, key))

    def places(self, memory: ReplayState, key: Array) -> Places:
        """Draws the places of a batch."""
        draw_decoded = replay.DECODED[self.decode]
        if draw_decoded is None:
            return Places(self._current(memory, key))
        key_current, key_decoded = jax.random.split(key)
        current = self._current(memory, key_current)
        return Places(current, draw_decoded(memory, key_decoded, current))

    def _current(self, memory: ReplayState, key: Array) -> Place:
        if self.windows_per_segment == 1:
            split = "all" if self.fold == 1 else "train"
            return replay.draw(memory, key, self.batch_size, split, self.fold)
        size = self.windows_per_segment
        return replay.draw_segments(memory, key, self.batch_size // size, size)

    def gather(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, places: Places
    ) -> Batch:
        """Returns the batch of places."""
        batch = self._gather(agent, learner, memory, places.current)
        if places.decoded is None:
            return batch
        env, index = (part.reshape(-1) for part in places.decoded)
        rows = replay.transitions(memory.data, (env, index))
        return batch.replace(scaled=agent.scale(learner, rows))

    def rows(self, agent: Agent, memory: ReplayState, place: Place) -> Transition:
        """Gathers windows `[B, T + 1, ...]`, or runs `[S, T + W, ...]` that share."""
        if self.windows_per_segment == 1:
            return replay.windows(memory.data, place, agent.window_steps)
        return replay.segments(memory.data, place, agent.window_steps)

    def _gather(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, place: Place
    ) -> Batch:
        rows = self.rows(agent, memory, place)
        if self.windows_per_segment == 1:
            return agent.make_batch(learner, rows)
        weight = None
        if self.fold > 1:
            trained = replay.is_in_train(place, memory.size, self.fold).reshape(-1)
            weight = trained / jnp.maximum(trained.mean(), 1 / self.batch_size)
        return agent.make_segments(learner, rows, weight)

    def independent(
        self,
        agent: Agent,
        learner: LearnerState,
        memory: ReplayState,
        key: Array,
        split: str,
    ) -> Batch:
        """Draws a batch of independent transitions of a split."""
        place = replay.draw(memory, key, self.batch_size, split, self.fold)
        return _independent(agent, learner, memory, place)


def _independent(
    agent: Agent, learner: LearnerState, memory: ReplayState, place: Place
) -> Batch:
    rows = replay.windows(memory.data, place, agent.window_steps)
    return agent.make_batch(learner, rows)


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

    def draw(memory: ReplayState, key: Array) -> Draws:
        key_draw, key_update = jax.random.split(key)
        policy_place = None
        if independent_policy:
            policy_place = replay.draw(
                memory,
                jax.random.fold_in(key_draw, 1),
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
                policy_batch = _independent(agent, learner, memory, draws.policy_place)
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
      batch_size: per device.
      max_steps: world model steps at most.
      interval: steps from one validation to the next.
      fold: one in so many transitions is for validation.
      patience: steps without a better validation before it stops.
      windows_per_segment: see `Sampling`; validations are of independent transitions.
    """

    agent: Agent
    batch_size: int
    max_steps: int
    interval: int
    fold: int
    patience: int
    windows_per_segment: int = 1

    @property
    def sampling(self) -> Sampling:
        """How a batch is drawn."""
        return Sampling(self.batch_size, self.windows_per_segment, self.fold)

    @_at_precision_of_agent
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
        return agent.policy_step(learner, now, context(place, now), noise)

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

    @_at_precision_of_agent
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

    @_at_precision_of_agent
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


def make_phases(
    config: Config, env: NonStationaryEnv, agent: Agent, num_devices: int
) -> dict[str, Phase]:
    """Returns the phases of an epoch by name, in order; "collect" is the first."""
    train, batch_size = config.train, config.sac.batch_size // num_devices
    num_envs = config.rollout.num_envs // num_devices
    collect = make_collect(env, agent, num_envs, config.rollout.num_steps)
    if agent.bound is not None:  # nothing reads the world model
        bound = BoundPhase(agent, agent.bound, batch_size, config.num_updates)
        return {"collect": collect, "policy": bound}
    sampling = Sampling(
        batch_size, config.elbo.windows_per_segment, decode=config.elbo.decode
    )
    if train.schedule == "fused":
        independent = config.sac.independent_transitions
        fused = make_fused(agent, sampling, config.num_updates, independent)
        return {"collect": collect, "train": fused}
    world_model = WorldModelPhase(
        agent,
        batch_size,
        max_steps=train.num_world_model_steps,
        interval=train.validation_interval,
        fold=train.validation_fold,
        patience=train.early_stopping_steps,
        windows_per_segment=config.elbo.windows_per_segment,
    )
    policy = PolicyPhase(agent, batch_size, config.num_updates)
    return {"collect": collect, "world_model": world_model, "policy": policy}
