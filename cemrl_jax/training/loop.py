"""Training: the state of a run, and the host loop around the phases."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.agent import make_agent
from cemrl_jax.agents.cemrl.phases import make_phases
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import replay, task_pools
from cemrl_jax.data.types import Metrics, ReplayState, Transition, WorkerState
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.evaluation.evaluate import HEADLINE, evaluation_pools, make_evaluate
from cemrl_jax.reporting.progress import Progress, Row
from cemrl_jax.runtime import parallel
from cemrl_jax.training.checkpoint import Checkpoints

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

    @property
    def extrapolate_tasks(self) -> Array:
        """A key of its own, which leaves those above as they are."""
        return jax.random.fold_in(self.test_tasks, 1)


def make_pools(config: Config) -> dict[str, Task]:
    """Draws the tasks of a run, each pool from its own key.

    There is a pool "extrapolate", outside the range of "train" and "test", where the
    task distribution has one.
    """
    keys, task = Keys.of(config.seed), config.env.make().distribution
    num_test = config.env.num_test_tasks
    pools = {
        "train": task.sample(keys.train_tasks, config.env.num_train_tasks),
        "test": task.sample(keys.test_tasks, num_test),
    }
    extrapolate = getattr(task, "extrapolate", None)
    if extrapolate is not None:
        with contextlib.suppress(ValueError):  # nothing is outside of the range
            pools["extrapolate"] = extrapolate(keys.extrapolate_tasks, num_test)
    return pools


def stored_pools(config: Config, directory: pathlib.Path) -> dict[str, Task]:
    """Returns the tasks that are stored with a run.

    They count even if the same seed would give others today. A run from before tasks
    were stored has none; then they are drawn.

    Raises:
      ConfigError: the configuration asks for other tasks than the run has.
    """
    if not (directory / task_pools.FILE).exists():
        return make_pools(config)
    own = config_lib.load(directory / "config.json")
    for field in ("seed", "env.task", "env.num_train_tasks", "env.num_test_tasks"):
        given, stored = (config_lib.get_field(x, field) for x in (config, own))
        if given != stored:
            raise ConfigError(
                f"{field}={given} must stay {stored}: the tasks of a run are stored"
                " with it; start another with --config and --init-from"
            )
    return task_pools.load(directory)


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
        task=task.replace(overrides={}),
    )


def _first(tasks: Task) -> Task:
    return jax.tree.map(lambda leaf: leaf[0], tasks)


def make_workers(
    config: Config, env: NonStationaryEnv, tasks: Task, num_devices: int
) -> WorkerState:
    """Returns the workers `[D, ...]` of a fresh run, each on its device.

    Raises:
      ConfigError: the replay does not fit into the devices' memory.
    """
    example = example_transition(env, _first(tasks))
    num_envs = config.rollout.num_envs // num_devices
    size = replay.num_bytes(example, num_envs, config.replay_length)
    size *= 2  # seeds are joined, and checkpoints written, from a copy
    available = parallel.memory_bytes()
    if available is not None and size > available:
        raise ConfigError(
            f"replay.capacity={config.replay.capacity} needs {size / 2**30:.1f} GiB"
            " (itself and a copy) on each device, which has"
            f" {available / 2**30:.1f} GiB free: lower it"
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
        """Compiles a function, jitted or of `spmd`, for arguments like these."""
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
      pools: its tasks by pool, see `make_pools`.
      epoch: epochs done.
      env_steps: environment steps done.
    """

    config: Config
    directory: pathlib.Path
    learner: LearnerState
    worker: WorkerState
    pools: dict[str, Task]
    epoch: int = 0
    env_steps: int = 0


def start_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns a fresh run; nothing is written yet."""
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = jax.jit(agent.init)(Keys.of(config.seed).agent)
    pools = make_pools(config)
    worker = make_workers(config, env, pools["train"], parallel.num_devices())
    return Run(config, directory, learner, worker, pools)


def store_run(run: Run) -> None:
    """Writes what a run is, its configuration and its tasks, into its folder."""
    config_lib.save(run.config, run.directory / "config.json")
    if not (run.directory / task_pools.FILE).exists():
        task_pools.save(run.pools, run.directory)


def resume_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns the run in a folder as its newest checkpoint left it.

    With as many devices as before it continues to the last digit. With another number
    the replay is shared out anew and the devices draw other random numbers.

    Raises:
      CheckpointError: there is no checkpoint that can be resumed.
      ConfigError: the configuration asks for another replay or other tasks than the
        run has.
    """
    pools = stored_pools(config, directory)
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        epoch = saved.latest()
        counters = saved.counters(epoch)
        env = config.env.make()
        agent = make_agent(config, env.obs_size, env.action_size)
        like = jax.eval_shape(agent.init, jax.random.key(0))
        learner = saved.learner(epoch, like)
        num_devices = counters["num_devices"]
        example = example_transition(env, _first(pools["train"]))

        def make(key: Array, tasks: Task) -> WorkerState:
            num_envs = config.rollout.num_envs // num_devices
            memory = replay.init(example, num_envs, counters["replay_length"])
            return WorkerState(replay=memory, key=key, tasks=tasks)

        shapes = jax.eval_shape(
            jax.vmap(make, in_axes=(0, None)),
            jax.random.split(jax.random.key(0), num_devices),
            pools["train"],
        )
        worker = saved.worker(epoch, shapes)
    worker = reshard(worker, parallel.num_devices())
    memory = replay.resize(worker.replay, config.replay_length)
    worker = parallel.place(worker.replace(replay=memory))
    env_steps = counters["env_steps"]
    return Run(config, directory, learner, worker, pools, epoch, env_steps)


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
        for name in ("world_model", "actor", "critic", "temperature")
    }
    return learner.replace(
        **trained,
        target_critic=other.target_critic,
        normalizer=other.normalizer,
        loss_weights=other.loss_weights,
    )


def describe(config: Config, num_seeds: int = 1) -> str:
    """Returns what a run, or each of so many seeds, will do and its memory."""
    env, devices = config.env.make(), jax.devices()
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = jax.eval_shape(agent.init, jax.random.key(0))
    trained = (learner.world_model, learner.actor, learner.critic)
    params = sum(leaf.size for leaf in jax.tree.leaves([x.params for x in trained]))
    example = example_transition(env, _first(make_pools(config)["train"]))
    num_envs, length = config.rollout.num_envs, config.replay_length
    size = replay.num_bytes(example, num_envs, length) * num_seeds
    others = f" and {num_seeds - 1} more" if num_seeds > 1 else ""
    return (
        f"{config.name}, seed {config.seed}{others}: {config.train.num_epochs} epochs,"
        f" {config.train.schedule}, on {len(devices)} x {devices[0].device_kind}\n"
        f"{params:,} parameters; replay of {num_envs * length:,} transitions takes"
        f" {size / 2**20:,.1f} MiB"
    )


@dataclasses.dataclass
class Member:
    """One seed of a group that trains together: its run and where it writes."""

    run: Run
    progress: Progress
    checkpoints: Checkpoints


def train(run: Run, progress: Progress, checkpoints: Checkpoints) -> None:
    """Runs the epochs that are left of one run; see `train_together`."""
    train_together([Member(run, progress, checkpoints)])


def train_together(
    members: Sequence[Member], profile_dir: pathlib.Path | None = None
) -> None:
    """Runs the epochs that are left of runs that differ in their seed only.

    All of them advance in the same programs, each with its own learner, replay, tasks
    and random numbers, and each as it would alone up to the rounding of float32.

    Args:
      members: the runs, at the same epoch; advanced in place.
      profile_dir: where to write what `jax.profiler` sees of the first of these epochs.
    """
    group = Group(members)
    group.compile()
    if group.epoch == 0:
        rows = group.empty_rows()
        for _ in range(group.config.rollout.num_initial):
            group.run_phase("collect", rows)
        group.finish_epoch(rows)
    while group.epoch < group.config.train.num_epochs:
        rows = group.empty_rows()
        with _profile(profile_dir):
            for name in group.programs:
                group.run_phase(name, rows)
        profile_dir = None
        group.advance()
        group.finish_epoch(rows)
    group.leave()
    for member in members:
        member.checkpoints.wait()
    members[0].progress.phase("done")


def _profile(directory: pathlib.Path | None) -> contextlib.AbstractContextManager:
    return jax.profiler.trace(directory) if directory else contextlib.nullcontext()


class Group:
    """Runs that advance together: state with a seed axis, and its programs.

    Attributes:
      config: of the runs, apart from the seed.
      programs: the phases of an epoch, in order.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """Takes over the states of runs, until `leave`."""
        self._members = members
        runs = [member.run for member in members]
        self.config = runs[0].config
        self.programs: dict[str, Program] = {}
        self._learner, self._worker = parallel.join(
            _stack([run.learner for run in runs], 0),
            _stack([run.worker for run in runs], 1),
        )
        for run in runs:
            del run.learner, run.worker  # a second copy would not fit everywhere
        self._pools = _stack([evaluation_pools(run.pools) for run in runs], 0)
        self._evaluation_keys = jnp.stack(
            [Keys.of(run.config.seed).evaluation for run in runs]
        )

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._members[0].run.epoch

    def compile(self) -> None:
        """Compiles everything that will run, and reports how long it took."""
        config, progress = self.config, self._members[0].progress
        env = config.env.make()
        agent = make_agent(config, env.obs_size, env.action_size)
        phases = make_phases(config, env, agent, parallel.num_devices())
        for name, step in phases.items():
            progress.phase(f"compiling {name}")
            mapped = parallel.spmd(_for_seeds(step, len(self._members)))
            self.programs[name] = Program(mapped, self._learner, self._worker)
        progress.phase("compiling evaluate")
        evaluate = make_evaluate(
            env, agent, config.rollout.num_steps, config.evaluation.num_episodes
        )
        self._evaluate = Program(
            jax.jit(_for_seeds(evaluate, len(self._members))),
            parallel.on_first_device(self._learner),
            self._pools,
            self._evaluation_keys,
        )
        programs = self.programs | {"evaluate": self._evaluate}
        progress.compiled(
            {name: program.compile_seconds for name, program in programs.items()}
        )

    def empty_rows(self) -> list[Row]:
        """Returns a row for each seed to fill in."""
        return [{} for _ in self._members]

    def run_phase(self, name: str, rows: list[Row]) -> None:
        """Runs a phase and adds its metrics and seconds to the rows."""
        self._members[0].progress.phase(name)
        (self._learner, self._worker, metrics), seconds = self.programs[name](
            self._learner, self._worker
        )
        _add_metrics(rows, metrics)
        rollout, updates = self.config.rollout, self.config.train.num_updates
        speed = {f"seconds/{name}": seconds}
        if name == "collect":
            steps = rollout.num_envs * rollout.num_steps
            for member in self._members:
                member.run.env_steps += steps
            speed["speed/env_steps_per_second"] = len(rows) * steps / seconds
        elif "sac/value" in metrics:
            speed["speed/updates_per_second"] = len(rows) * updates / seconds
        for row in rows:
            row |= speed

    def advance(self) -> None:
        """Counts an epoch."""
        for member in self._members:
            member.run.epoch += 1

    def finish_epoch(self, rows: list[Row]) -> None:
        """Evaluates and saves where this epoch is due, and writes the rows."""
        _check_finite(rows, self.epoch)
        last = self.epoch == self.config.train.num_epochs
        save = last or self.epoch % self.config.checkpoint.interval == 0
        if save or self.epoch % self.config.evaluation.interval == 0:
            self._members[0].progress.phase("evaluate")
            learner = parallel.on_first_device(self._learner)
            evaluation, seconds = self._evaluate(
                learner, self._pools, self._evaluation_keys
            )
            _add_metrics(rows, jax.tree.map(lambda x: x.mean(-1), evaluation.returns))
            for row in rows:
                row["seconds/evaluate"] = seconds
        updates = np.asarray(self._learner.num_updates)
        for number, member in enumerate(self._members):
            head: Row = {
                "epoch": member.run.epoch,
                "env_steps": member.run.env_steps,
                "updates": int(updates[number]),
            }
            rows[number] = head | rows[number]
        shown = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
        for row, member in zip(rows, self._members):
            member.progress.row(row, shown)
        if save:
            self._members[0].progress.phase("save")
            self._save([row[HEADLINE] for row in rows])

    def _save(self, test_returns: list[float]) -> None:
        parallel.assert_replicated(self._learner)
        for number, (member, test_return) in enumerate(
            zip(self._members, test_returns)
        ):
            counters = {
                "env_steps": member.run.env_steps,
                "num_devices": parallel.num_devices(),
                "replay_length": self.config.replay_length,
            }
            worker = None
            if self.config.checkpoint.replay:
                worker = _part(self._worker, number, 1)
            member.checkpoints.save(
                member.run.epoch,
                _part(self._learner, number, 0),
                worker,
                counters,
                test_return,
            )

    def leave(self) -> None:
        """Gives the runs their states back."""
        learner = parallel.on_first_device(self._learner)
        for number, member in enumerate(self._members):
            member.run.learner = _part(learner, number, 0)
            member.run.worker = _part(self._worker, number, 1)


def _for_seeds(function: Callable[..., Any], num_seeds: int) -> Callable[..., Any]:
    """Returns a function of trees with a seed axis.

    One seed is taken out of it and put back: under `vmap` with an axis of length 1 a
    CPU rolls out little more than half as fast.
    """
    if num_seeds > 1:
        return jax.vmap(function)

    def alone(*args: Any) -> Any:
        result = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], result)

    return alone


def _stack(trees: Sequence[Any], axis: int) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *trees)


def _part(tree: Any, number: int, axis: int) -> Any:
    """Returns what `_stack` has put at a place of an axis."""
    place = (slice(None),) * axis + (number,)
    return jax.tree.map(lambda leaf: leaf[place], tree)


def _add_metrics(rows: list[Row], metrics: Metrics) -> None:
    """Adds metrics `[N]` to the rows of N seeds."""
    for name, values in metrics.items():
        for row, value in zip(rows, np.asarray(values)):
            row[name] = float(value)


def _check_finite(rows: list[Row], epoch: int) -> None:
    bad = {name for row in rows for name, x in row.items() if not np.isfinite(x)}
    if bad:
        raise FloatingPointError(
            f"epoch {epoch}: {', '.join(sorted(bad))} is not finite. The last good"
            " checkpoint is kept; try a lower sac.learning_rate or elbo.learning_rate"
        )
