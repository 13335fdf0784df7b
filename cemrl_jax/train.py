"""Training: the compiled phases of an epoch and the host loop around them."""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax import losses, normalizer, parallel, replay
from cemrl_jax.agent import Agent, make_agent
from cemrl_jax.checkpoint import Checkpoints
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.evaluate import HEADLINE, evaluation_pools, make_evaluate
from cemrl_jax.logging import Progress
from cemrl_jax.rollout import deal_tasks, returns, rollout
from cemrl_jax.types import (
    Batch,
    LearnerState,
    Metrics,
    Params,
    ReplayState,
    Transition,
    WorkerState,
)
from envs import NonStationaryEnv, Task

Step = Callable[[LearnerState, WorkerState], tuple[LearnerState, WorkerState, Metrics]]


# ---------------------------------------------------------------- phases


def make_collect(
    env: NonStationaryEnv, agent: Agent, num_envs: int, num_steps: int
) -> Step:
    """Returns the phase that collects an episode in each of `num_envs` per device."""

    def collect(
        learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        key, key_tasks, key_rollout = jax.random.split(worker.key, 3)
        transitions = rollout(
            env,
            agent.policy(learner, deterministic=False),
            deal_tasks(key_tasks, worker.tasks, num_envs),
            worker.tasks,
            key_rollout,
            num_steps,
        )
        learner = learner.replace(
            normalizer=normalizer.update(
                learner.normalizer, transitions, parallel.DEVICES
            )
        )
        worker = worker.replace(replay=replay.add(worker.replay, transitions), key=key)
        metrics = {
            "collect/return": returns(transitions).mean(),
            "collect/falls": transitions.terminated.sum(1).mean(),
        }
        return learner, worker, parallel.average(metrics)

    return collect


def make_fused(agent: Agent, batch_size: int, num_updates: int) -> Step:
    """Returns the phase in which each update trains the model and the policy.

    `batch_size` is per device.
    """

    def train(
        learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        def update(learner: LearnerState, key: Array) -> tuple[LearnerState, Metrics]:
            key_draw, key_update = jax.random.split(key)
            place = replay.draw(worker.replay, key_draw, batch_size, "all", 1)
            rows = replay.windows(worker.replay.data, place, agent.window_steps)
            return agent.update(learner, agent.make_batch(learner, rows), key_update)

        key, key_updates = jax.random.split(worker.key)
        keys = jax.random.split(key_updates, num_updates)
        learner, metrics = jax.lax.scan(update, learner, keys)
        metrics = parallel.average(jax.tree.map(jnp.mean, metrics))
        metrics["elbo/state_weight"] = learner.loss_weights[0]
        return learner, worker.replace(key=key), metrics

    return train


class ModelTraining(struct.PyTreeNode):
    """State of a phase that trains the model, with its early stopping.

    Attributes:
      learner: the learner.
      key: randomness of this device.
      step: `[]` int32 model steps so far.
      best_params: parameters at the lowest validation error.
      best_error: `[]` that error, state plus reward.
      best_step: `[]` int32 when it was reached.
      stop: `[]` bool, no better one for too long.
      metrics: of the last step.
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
    state: ModelTraining,
    agent: Agent,
    validation_errors: Array,
    train_errors: Array,
    patience: int,
) -> ModelTraining:
    """Adapts the loss weights, remembers the best parameters, decides whether to stop.

    Args:
      state: the phase, `state.step` being the step just taken.
      agent: says how errors make loss weights.
      validation_errors: `[2]` state and reward error of a validation batch.
      train_errors: `[2]` the same of a training batch.
      patience: steps without a better validation before it stops.

    Returns:
      The phase. Unlike the original, the best parameters include the prior's.
    """
    weights = agent.balanced_weights(train_errors)
    error = validation_errors.sum()
    better = error < state.best_error
    best_step = jnp.where(better, state.step, state.best_step)
    return state.replace(
        learner=state.learner.replace(loss_weights=weights),
        best_params=jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            state.learner.model.params,
            state.best_params,
        ),
        best_error=jnp.where(better, error, state.best_error),
        best_step=best_step,
        stop=state.step - best_step > patience,
    )


@dataclasses.dataclass(frozen=True)
class ModelPhase:
    """Trains the model alone until it stops improving (reconstruction_trainer.py).

    Attributes:
      agent: the agent.
      batch_size: per device.
      max_steps: model steps at most.
      interval: steps from one validation to the next.
      fold: one in so many transitions is for validation.
      patience: steps without a better validation before it stops.
    """

    agent: Agent
    batch_size: int
    max_steps: int
    interval: int
    fold: int
    patience: int

    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase; the learner returns with its best parameters."""
        key, key_phase, key_last = jax.random.split(worker.key, 3)
        state = ModelTraining(
            learner=learner,
            key=key_phase,
            step=jnp.int32(0),
            best_params=learner.model.params,
            best_error=jnp.float32(jnp.inf),
            best_step=jnp.int32(0),
            stop=jnp.bool_(False),
            metrics=self._no_metrics(learner, worker.replay),
        )
        state = jax.lax.while_loop(
            lambda state: (state.step < self.max_steps) & ~state.stop,
            lambda state: self._step(state, worker.replay),
            state,
        )
        model = state.learner.model.replace(params=state.best_params)
        learner = state.learner.replace(model=model)
        errors = self._errors(learner, worker.replay, key_last, "validation")
        metrics = state.metrics | {
            "elbo/validation_state_error": errors[0],
            "elbo/validation_reward_error": errors[1],
            "elbo/best_step": state.best_step.astype(jnp.float32),
            "elbo/steps": state.step.astype(jnp.float32),
            "elbo/state_weight": learner.loss_weights[0],
        }
        return learner, worker.replace(key=key), parallel.average(metrics)

    def _step(self, state: ModelTraining, memory: ReplayState) -> ModelTraining:
        key, key_draw, key_noise, key_validation = jax.random.split(state.key, 4)
        batch = self._batch(state.learner, memory, key_draw, "train")
        noise = self.agent.model_noise(key_noise, self.batch_size)
        learner, metrics, _ = self.agent.model_step(state.learner, batch, noise)
        state = state.replace(learner=learner, key=key, metrics=metrics)
        state = jax.lax.cond(
            state.step % self.interval == 0,
            lambda state: self._validate(state, memory, key_validation),
            lambda state: state,
            state,
        )
        return state.replace(step=state.step + 1)

    def _validate(
        self, state: ModelTraining, memory: ReplayState, key: Array
    ) -> ModelTraining:
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
            learner.model.params,
            self.agent,
            self._batch(learner, memory, key, split),
            self.agent.elbo.state_difference,
        )
        return parallel.average(errors)

    def _batch(
        self, learner: LearnerState, memory: ReplayState, key: Array, split: str
    ) -> Batch:
        place = replay.draw(memory, key, self.batch_size, split, self.fold)
        rows = replay.windows(memory.data, place, self.agent.window_steps)
        return self.agent.make_batch(learner, rows)

    def _no_metrics(self, learner: LearnerState, memory: ReplayState) -> Metrics:
        def step(key: Array) -> Metrics:
            batch = self._batch(learner, memory, key, "train")
            noise = self.agent.model_noise(key, self.batch_size)
            return self.agent.model_step(learner, batch, noise)[1]

        shapes = jax.eval_shape(step, jax.random.key(0))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


@dataclasses.dataclass(frozen=True)
class PolicyPhase:
    """Trains the policy on tasks inferred with a model that stays as it is.

    Each transition of the replay goes through the encoder's per-transition part once,
    before the updates; an update only merges T embeddings. The original relabels the
    whole buffer for the same reason.

    Attributes:
      agent: the agent.
      batch_size: per device.
      num_updates: SAC updates.
      chunk: transitions per environment that are embedded at once; divides the length
        of the replay.
    """

    agent: Agent
    batch_size: int
    num_updates: int
    chunk: int

    def __call__(
        self, learner: LearnerState, worker: WorkerState
    ) -> tuple[LearnerState, WorkerState, Metrics]:
        """Runs the phase."""
        embedded = self.embed(learner, worker.replay)
        nothing = self._embed_features(learner, jnp.zeros(self.agent.num_features))

        def update(learner: LearnerState, key: Array) -> tuple[LearnerState, Metrics]:
            key_draw, key_noise = jax.random.split(key)
            place = replay.draw(worker.replay, key_draw, self.batch_size, "all", 1)
            now = jax.tree.map(lambda leaf: leaf[place], worker.replay.data)
            z = self._infer(learner, embedded, nothing, place, now.step)
            noise = self.agent.policy_noise(key_noise, self.batch_size)
            return self.agent.policy_step(learner, now, z, noise)

        key, key_updates = jax.random.split(worker.key)
        keys = jax.random.split(key_updates, self.num_updates)
        learner, metrics = jax.lax.scan(update, learner, keys)
        metrics = parallel.average(jax.tree.map(jnp.mean, metrics))
        return learner, worker.replace(key=key), metrics

    def embed(self, learner: LearnerState, memory: ReplayState) -> Any:
        """Returns the embeddings of the whole replay, `[E, L, ...]`."""

        def embed_chunk(start: Array) -> Any:
            rows = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, self.chunk, 1),
                memory.data,
            )
            scaled = normalizer.normalize(learner.normalizer, rows)
            return self._embed_features(learner, normalizer.features(scaled))

        def write(number: Array, embedded: Any) -> Any:
            start = number * self.chunk
            return jax.tree.map(
                lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(
                    leaf, new, start, 1
                ),
                embedded,
                embed_chunk(start),
            )

        length = memory.data.step.shape[1]
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((leaf.shape[0], length, *leaf.shape[2:])),
            jax.eval_shape(embed_chunk, jnp.int32(0)),
        )
        return jax.lax.fori_loop(0, memory.size // self.chunk, write, empty)

    def _embed_features(self, learner: LearnerState, x: Array) -> Any:
        params = learner.model.params["encoder"]
        return self.agent.encoder.apply(params, x, method="embed")

    def _infer(
        self,
        learner: LearnerState,
        embedded: Any,
        nothing: Any,
        place: tuple[Array, Array],
        step: Array,
    ) -> Array:
        env, index = place
        before = replay.windows(embedded, (env, index - 1), self.agent.window_steps - 1)
        exists = replay.exists(step, self.agent.window_steps)
        window = jax.tree.map(
            lambda leaf, blank: jnp.where(
                exists.reshape(exists.shape + (1,) * blank.ndim), leaf, blank
            ),
            before,
            nothing,
        )
        params = learner.model.params["encoder"]
        posterior = self.agent.encoder.apply(params, window, method="infer")
        return losses.infer_task(posterior)


def make_phases(
    config: Config, env: NonStationaryEnv, agent: Agent, num_devices: int
) -> dict[str, Step]:
    """Returns the phases of an epoch by name, in order; "collect" is the first."""
    train, batch_size = config.train, config.sac.batch_size // num_devices
    num_envs = config.rollout.num_envs // num_devices
    collect = make_collect(env, agent, num_envs, config.rollout.num_steps)
    if train.schedule == "fused":
        fused = make_fused(agent, batch_size, train.num_updates)
        return {"collect": collect, "train": fused}
    model = ModelPhase(
        agent,
        batch_size,
        max_steps=train.num_model_steps,
        interval=train.validation_interval,
        fold=train.validation_fold,
        patience=train.early_stopping_steps,
    )
    chunk = config.rollout.num_steps
    policy = PolicyPhase(agent, batch_size, train.num_updates, chunk)
    return {"collect": collect, "model": model, "policy": policy}


# ---------------------------------------------------------------- initial state


@dataclasses.dataclass(frozen=True)
class Keys:
    """The run's randomness by use; all from the seed."""

    agent: Array
    train_tasks: Array
    test_tasks: Array
    workers: Array
    evaluation: Array

    @classmethod
    def of(cls, seed: int) -> "Keys":
        """Splits the key of a seed."""
        return cls(*jax.random.split(jax.random.key(seed), 5))


def make_pools(config: Config) -> dict[str, Task]:
    """Returns the training and test tasks of a run, each from its own key."""
    keys, task = Keys.of(config.seed), config.env.task
    return {
        "train": task.sample(keys.train_tasks, config.env.num_train_tasks),
        "test": task.sample(keys.test_tasks, config.env.num_test_tasks),
    }


def example_transition(env: NonStationaryEnv, task: Task) -> Transition:
    """Returns a transition of zeros with an environment's shapes, `task` without N."""
    obs, zero = jnp.zeros(env.obs_size), jnp.float32(0)
    return Transition(
        obs=obs,
        action=jnp.zeros(env.action_size),
        reward=zero,
        next_obs=obs,
        terminated=zero,
        step=jnp.int32(0),
        task=task.replace(model={}),
    )


def make_workers(
    config: Config, env: NonStationaryEnv, tasks: Task, num_devices: int
) -> WorkerState:
    """Returns the workers `[D, ...]` of a fresh run, each on its device.

    Raises:
      ConfigError: the replay does not fit into the devices' memory.
    """
    example = example_transition(env, jax.tree.map(lambda leaf: leaf[0], tasks))
    num_envs = config.rollout.num_envs // num_devices
    size = replay.num_bytes(example, num_envs, config.replay_length)
    available = parallel.memory_bytes()
    if available is not None and size > available:
        raise ConfigError(
            f"replay.capacity={config.replay.capacity} needs {size / 2**30:.1f} GiB on"
            f" each device, which has {available / 2**30:.1f} GiB free: lower it"
        )

    def make(key: Array, tasks: Task) -> WorkerState:
        memory = replay.init(example, num_envs, config.replay_length)
        return WorkerState(replay=memory, key=key, tasks=tasks)

    keys = parallel.split_keys(Keys.of(config.seed).workers, num_devices)
    return parallel.on_each_device(make, keys, tasks)


# ---------------------------------------------------------------- host loop


class Program:
    """A step compiled ahead of time, so that it can never compile again.

    Attributes:
      compile_seconds: how long that took.
    """

    def __init__(self, function: Any, *args: Any) -> None:
        """Compiles `function`, which has a `lower` method, for arguments like these."""
        start = time.perf_counter()
        self._compiled = function.lower(*args).compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, *args: Any) -> tuple[Any, float]:
        """Returns the result, finished, and the seconds that it took."""
        start = time.perf_counter()
        result = jax.block_until_ready(self._compiled(*args))
        return result, time.perf_counter() - start


@dataclasses.dataclass
class Run:
    """A run in progress: state that outlives an epoch.

    Attributes:
      config: the configuration, validated.
      directory: where everything is written.
      learner: what is learnt.
      worker: replay and randomness `[D, ...]`.
      epoch: epochs done.
      env_steps: environment steps done.
    """

    config: Config
    directory: pathlib.Path
    learner: LearnerState
    worker: WorkerState
    epoch: int = 0
    env_steps: int = 0


def start_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns a fresh run; nothing is written yet."""
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = jax.jit(agent.init)(Keys.of(config.seed).agent)
    tasks = make_pools(config)["train"]
    worker = make_workers(config, env, tasks, parallel.num_devices())
    return Run(config, directory, learner, worker)


def resume_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns the run in a folder as its newest checkpoint left it.

    With as many devices as before it continues to the last digit. With another number
    the replay is shared out anew and the devices draw other random numbers.

    Raises:
      CheckpointError: there is no checkpoint that can be resumed.
      ConfigError: the configuration asks for another replay than the run has.
    """
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        epoch = saved.latest()
        counters = saved.counters(epoch)
        env = config.env.make()
        agent = make_agent(config, env.obs_size, env.action_size)
        like = jax.eval_shape(agent.init, jax.random.key(0))
        learner = saved.learner(epoch, like)
        num_devices = counters["num_devices"]
        tasks = make_pools(config)["train"]
        example = example_transition(env, jax.tree.map(lambda leaf: leaf[0], tasks))

        def make(key: Array, tasks: Task) -> WorkerState:
            num_envs = config.rollout.num_envs // num_devices
            memory = replay.init(example, num_envs, counters["replay_length"])
            return WorkerState(replay=memory, key=key, tasks=tasks)

        shapes = jax.eval_shape(
            jax.vmap(make, in_axes=(0, None)),
            jax.random.split(jax.random.key(0), num_devices),
            tasks,
        )
        worker = saved.worker(epoch, shapes)
    worker = reshard(worker, parallel.num_devices())
    memory = replay.resize(worker.replay, config.replay_length)
    worker = parallel.place(worker.replace(replay=memory))
    return Run(config, directory, learner, worker, epoch, counters["env_steps"])


def reshard(worker: WorkerState, num_devices: int) -> WorkerState:
    """Shares `[D, E / D, ...]` workers out over another number of devices."""
    old = worker.replay.cursor.shape[0]
    if old == num_devices:
        return worker

    def split(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(num_devices, -1, *leaf.shape[2:])

    def same(leaf: Any) -> Any:
        return np.repeat(leaf[:1], num_devices, 0)

    return WorkerState(
        replay=ReplayState(
            data=jax.tree.map(split, worker.replay.data),
            cursor=same(worker.replay.cursor),
            size=same(worker.replay.size),
        ),
        key=parallel.split_keys(worker.key[0], num_devices),
        tasks=jax.tree.map(same, worker.tasks),
    )


def with_weights(learner: LearnerState, directory: pathlib.Path) -> LearnerState:
    """Returns a fresh learner with the best weights of another run.

    Optimisers and counters stay fresh; the statistics belong to the weights.

    Raises:
      CheckpointError: no checkpoint, or networks of other sizes.
    """
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        other = saved.learner(saved.best(), jax.eval_shape(lambda: learner))
    trained = {
        name: getattr(learner, name).replace(params=getattr(other, name).params)
        for name in ("model", "actor", "critic", "temperature")
    }
    return learner.replace(
        **trained,
        target_critic=other.target_critic,
        normalizer=other.normalizer,
        loss_weights=other.loss_weights,
    )


def describe(run: Run) -> str:
    """Returns what a run is about to do and how much memory it takes."""
    config, devices = run.config, jax.local_devices()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(run.worker.replay))
    params = sum(leaf.size for leaf in jax.tree.leaves(run.learner.model.params))
    params += sum(leaf.size for leaf in jax.tree.leaves(run.learner.actor.params))
    params += sum(leaf.size for leaf in jax.tree.leaves(run.learner.critic.params))
    transitions = config.replay_length * config.rollout.num_envs
    return (
        f"{config.name}, seed {config.seed}: epochs {run.epoch} to"
        f" {config.train.num_epochs}, {config.train.schedule}, on {len(devices)} x"
        f" {devices[0].device_kind}\n"
        f"replay {transitions:,} transitions, {size / 2**20:,.1f} MiB;"
        f" {params:,} parameters; output in {run.directory}"
    )


def train(run: Run, progress: Progress, checkpoints: Checkpoints) -> None:
    """Runs the epochs that are left.

    Args:
      run: the run, fresh or restored; advanced in place.
      progress: where rows go.
      checkpoints: where states go.
    """
    config = run.config
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    pools = make_pools(config)
    pools = evaluation_pools(pools["train"], pools["test"])
    key_evaluation = Keys.of(config.seed).evaluation
    programs = {}
    for name, step in make_phases(config, env, agent, parallel.num_devices()).items():
        progress.phase(f"compiling {name}")
        programs[name] = Program(parallel.spmd(step), run.learner, run.worker)
    progress.phase("compiling evaluate")
    evaluate = Program(
        jax.jit(
            make_evaluate(
                env, agent, config.rollout.num_steps, config.evaluation.num_episodes
            )
        ),
        run.learner,
        pools,
        key_evaluation,
    )
    progress.compiled(
        {name: program.compile_seconds for name, program in programs.items()}
        | {"evaluate": evaluate.compile_seconds}
    )
    collect_steps = config.rollout.num_envs * config.rollout.num_steps

    def run_phase(name: str, row: dict[str, float]) -> None:
        progress.phase(name)
        (run.learner, run.worker, metrics), seconds = programs[name](
            run.learner, run.worker
        )
        row |= {key: float(value) for key, value in metrics.items()}
        row[f"seconds/{name}"] = seconds
        if name == "collect":
            run.env_steps += collect_steps
            row["speed/env_steps_per_second"] = collect_steps / seconds
        elif "sac/value" in metrics:
            row["speed/updates_per_second"] = config.train.num_updates / seconds

    def finish_epoch(row: dict[str, float]) -> None:
        last = run.epoch == config.train.num_epochs
        save = last or run.epoch % config.checkpoint.interval == 0
        if save or run.epoch % config.evaluation.interval == 0:
            progress.phase("evaluate")
            evaluation, seconds = evaluate(run.learner, pools, key_evaluation)
            row |= {key: float(value) for key, value in evaluation.metrics.items()}
            row["seconds/evaluate"] = seconds
        updates = int(run.learner.num_updates)
        head = {"epoch": run.epoch, "env_steps": run.env_steps, "updates": updates}
        progress.row(head | row)
        if save:
            progress.phase("save")
            checkpoints.save(
                run.epoch,
                run.learner,
                run.worker if config.checkpoint.replay else None,
                {
                    "env_steps": run.env_steps,
                    "num_devices": parallel.num_devices(),
                    "replay_length": config.replay_length,
                },
                row[HEADLINE],
            )

    if run.epoch == 0:
        row: dict[str, float] = {}
        for _ in range(config.rollout.num_initial):
            run_phase("collect", row)
        finish_epoch(row)
    while run.epoch < config.train.num_epochs:
        row = {}
        for name in programs:
            run_phase(name, row)
        run.epoch += 1
        _check_finite(row, run.epoch)
        finish_epoch(row)
    checkpoints.wait()


def _check_finite(row: dict[str, float], epoch: int) -> None:
    bad = [name for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"epoch {epoch}: {', '.join(bad)} is not finite. The last good checkpoint"
            " is kept; try a lower sac.learning_rate or elbo.learning_rate"
        )
