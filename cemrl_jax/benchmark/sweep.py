"""Benchmark: how fast the program's phases run, and how fast they could.

A sweep measures rollouts and updates as training runs them, and in the same process
the limits that the machine sets: the physics alone, a matrix product, a copy, a
program that does nothing. Everything is compiled ahead, warmed up, finished before
the clock is read, and reported as the median of several repeats.
"""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.phases import (
    PolicyPhase,
    Sampling,
    WorldModelPhase,
    make_collect,
    make_fused,
)
from cemrl_jax.agents.cemrl.types import Batch, LearnerState
from cemrl_jax.benchmark import counts, hlo
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import replay
from cemrl_jax.data.rollout import BREAKDOWN, deal_tasks
from cemrl_jax.data.types import ReplayState, Transition, WorkerState
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.runtime import parallel, provenance
from cemrl_jax.training.run import make_pools
from cemrl_jax.training.state import example_transition

Row = dict[str, Any]
Seconds = dict[str, list[float]]
"""Program -> seconds of each repeat."""

NUM_DISPATCHES = 30
NUM_ROUNDS = 1000
"""Of the loops that measure what small kernels cost."""
SEGMENT = 8
"""Windows of a segment, where drawing in segments is measured besides."""


@dataclasses.dataclass
class BenchmarkConfig:
    """What a benchmark measures; counts are totals over all devices.

    Every combination of environments, batch size and devices becomes a row.

    Attributes:
      name: begins the name of the result file.
      output_dir: folder of the results.
      base: the training preset that is measured; its rollout.num_envs and
        sac.batch_size give way to the lists below.
      num_envs: numbers of environments.
      batch_sizes: transitions in an update.
      num_devices: numbers of devices.
      num_steps: control steps in a timed rollout.
      num_updates: updates in a timed phase.
      replay_points: transitions in the replay that updates draw from.
      num_repeats: timed runs of each program, after one that is not timed.
      matmul_size: rows and columns of the matrices that are multiplied.
      copy_mebibytes: size of the array that is copied.
      max_minutes: no measurement begins after this time; those done are kept.
    """

    name: str = "benchmark"
    output_dir: str = "benchmarks/results"
    base: Config = dataclasses.field(default_factory=Config)
    num_envs: tuple[int, ...] = (64,)
    batch_sizes: tuple[int, ...] = (256,)
    num_devices: tuple[int, ...] = (1,)
    num_steps: int = 20
    num_updates: int = 50
    replay_points: int = 200_000
    num_repeats: int = 5
    matmul_size: int = 2048
    copy_mebibytes: int = 256
    max_minutes: float = 10.0

    def validate(self, available: int) -> None:
        """Checks every rule, for so many available devices.

        Raises:
          ConfigError: lists each broken rule with the field, its value and the rule.
        """
        problems = config_lib.type_problems(self)
        if not problems:
            problems = self._list_problems(available) + self._range_problems()
        if problems:
            raise ConfigError("\n".join(problems))
        self.base.validate(1)

    def rollout_config(self, num_envs: int) -> Config:
        """Returns the training configuration with so many environments."""
        rollout = dataclasses.replace(
            self.base.rollout, num_envs=num_envs, num_steps=self.num_steps
        )
        return dataclasses.replace(self.base, rollout=rollout)

    def update_config(self, batch_size: int) -> Config:
        """Returns the training configuration with this batch size."""
        sac = dataclasses.replace(self.base.sac, batch_size=batch_size)
        return dataclasses.replace(self.base, sac=sac)

    def _list_problems(self, available: int) -> list[str]:
        problems = []
        for field in ("num_envs", "batch_sizes", "num_devices"):
            values = getattr(self, field)
            if not values or any(type(v) is not int or v < 1 for v in values):
                problems.append(f"{field}={values} must list integers of at least 1")
            elif field == "num_devices" and max(values) > available:
                problems.append(
                    f"{field}={values} must not exceed the {available} devices here;"
                    " a CPU passes for more with"
                    f" XLA_FLAGS=--xla_force_host_platform_device_count={max(values)}"
                )
        if not problems:
            problems = [
                f"{field}={getattr(self, field)} must be multiples of"
                f" num_devices={num_devices}"
                for num_devices in self.num_devices
                for field in ("num_envs", "batch_sizes")
                if any(v % num_devices for v in getattr(self, field))
            ]
        return problems

    def _range_problems(self) -> list[str]:
        rules = {
            1: ("num_steps", "num_updates", "num_repeats", "matmul_size"),
            1e-6: ("max_minutes", "copy_mebibytes"),
        }
        problems = [
            f"{field}={getattr(self, field)} must be"
            f" {'at least 1' if least == 1 else 'above 0'}"
            for least, fields in rules.items()
            for field in fields
            if getattr(self, field) < least
        ]
        problems += [
            f"{field}={getattr(self, field)!r} must not be empty"
            for field in ("name", "output_dir")
            if not getattr(self, field)
        ]
        if self.base.num_seeds != 1:
            problems.append(f"base.num_seeds={self.base.num_seeds} must be 1")
        least = self.base.rollout.num_envs * self.base.rollout.num_steps
        if self.replay_points < least:
            problems.append(
                f"replay_points={self.replay_points} must hold at least one collect,"
                f" base.rollout.num_envs * base.rollout.num_steps = {least}"
            )
        return problems


# ---------------------------------------------------------------- timing


class Program:
    """A phase compiled ahead of time that runs again and again on its own results.

    Attributes:
      compile_seconds: tracing and compiling.
      memory_bytes: what the compiler says that a device needs, arguments included.
      num_kernels: see `count_kernels`.
    """

    def __init__(self, step: Callable[..., Any], learner: Any, worker: Any) -> None:
        """Compiles `step(learner, worker) -> (learner, worker, metrics)`."""
        self._state = jax.tree.map(jnp.copy, (learner, worker))
        start = time.perf_counter()
        self._compiled = parallel.spmd(step).lower(*self._state).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self._compiled.memory_analysis()
        self.memory_bytes = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
        self.num_kernels = count_kernels(self._compiled.as_text() or "")

    def run(self) -> float:
        """Runs the phase once; returns the seconds until it has finished.

        Raises:
          FloatingPointError: it computed something that is not finite.
        """
        start = time.perf_counter()
        *self._state, metrics = jax.block_until_ready(self._compiled(*self._state))
        seconds = time.perf_counter() - start
        bad = [
            name
            for name, value in metrics.items()
            if not name.startswith(BREAKDOWN) and not jnp.isfinite(value)
        ]
        if bad:
            raise FloatingPointError(f"{', '.join(bad)} is not finite")
        return seconds

    @property
    def worker(self) -> Any:
        """The worker as the last run left it."""
        return self._state[1]


def repeat(runs: dict[str, Callable[[], float]], num_repeats: int) -> Seconds:
    """Times each run `num_repeats` times after a warm-up, one after the other in turn.

    Taking turns lets a noisy machine disturb all of them alike.
    """
    for run in runs.values():
        run()
    rounds = [{name: run() for name, run in runs.items()} for _ in range(num_repeats)]
    return {name: [seconds[name] for seconds in rounds] for name in runs}


def median_seconds(function: Callable[..., Any], x: Any, num_repeats: int) -> float:
    """Times a compiled `x = function(x)`, after a warm-up."""
    seconds = []
    for _ in range(num_repeats + 1):
        start = time.perf_counter()
        x = jax.block_until_ready(function(x))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Returns the floating-point operations of a function on one device.

    XLA counts them in the program before optimisation, so they do not depend on the
    platform, and the CPU's XLA does so since those of GPUs and TPUs cannot. The
    function must hold no loop, whose body would count only once.
    """
    add_axis = lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)  # noqa: E731
    shapes = jax.tree.map(add_axis, args)
    mapped = jax.vmap(function, axis_name=parallel.DEVICES)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        cost = jax.jit(mapped).lower(*shapes).cost_analysis()
    assert cost is not None
    return float(cost["flops"])


def count_kernels(program: str) -> int:
    """Counts what a step of a compiled program's largest loop launches.

    Args:
      program: HLO after optimisation; loops within the step are multiplied out.
    """
    loops = counts.Counter(hlo.parse(program)).count().loops
    return max((int(counts.num_kernels(loop.once)) for loop in loops), default=0)


def num_bytes(tree: Any) -> int:
    """Returns the size of all arrays of a tree, bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


# ---------------------------------------------------------------- limits


def machine_limits(matmul_size: int, copy_mebibytes: int, num_repeats: int) -> Row:
    """Measures what one device can do at best, on random data.

    Returns:
      Rate of a float32 matrix product at JAX's default precision (which on some GPUs
      is TF32) and at the highest, and of a copy, each byte read and written once; and
      what `small_kernels` measures.
    """
    key = jax.random.key(0)
    a = jax.random.normal(key, (matmul_size, matmul_size)) / math.sqrt(matmul_size)
    flops = 2 * matmul_size**3
    limits = {}
    for name, precision in (("matmul", "default"), ("matmul_highest", "highest")):
        product = jax.jit(functools.partial(jnp.matmul, a, precision=precision))
        seconds = median_seconds(product, a, max(num_repeats, 5))
        limits[f"limit_{name}_flops_per_second"] = flops / seconds
    x = jax.random.normal(key, (int(copy_mebibytes * 2**20) // 4,))
    # In place and with an addition: a plain copy could be optimised away.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    rate = 2 * num_bytes(x) / median_seconds(copy, x, max(num_repeats, 5))
    limits |= {"limit_copy_bytes_per_second": rate}
    return limits | small_kernels(max(num_repeats, 5))


def small_kernels(num_repeats: int) -> Row:
    """Measures what kernels cost that have next to nothing to do.

    Returns:
      Seconds of one such kernel in a loop of known length, and of a step of the same
      loop where only the device knows whether it goes on.
    """
    x = jnp.eye(64)

    def known(x: Array) -> Array:
        return jax.lax.fori_loop(0, NUM_ROUNDS, lambda _, x: jnp.tanh(x @ x), x)

    def unknown(x: Array) -> Array:
        going_on = lambda state: (state[0] < NUM_ROUNDS) & (state[1][0, 0] < 2)  # noqa: E731
        step = lambda state: (state[0] + 1, jnp.tanh(state[1] @ state[1]))  # noqa: E731
        return jax.lax.while_loop(going_on, step, (0, x))[1]

    loops = {}
    for name, loop in (("known", known), ("unknown", unknown)):
        compiled = jax.jit(loop).lower(x).compile()
        loops[name] = (compiled, median_seconds(compiled, x, num_repeats))
    program, seconds = loops["known"]
    num_kernels = NUM_ROUNDS * max(1, count_kernels(program.as_text() or ""))
    return {
        "limit_kernel_seconds": seconds / num_kernels,
        "limit_unknown_loop_step_seconds": loops["unknown"][1] / NUM_ROUNDS,
    }


class PhysicsWorker(struct.PyTreeNode):
    """Robots `[E]` in their first states, what they are, and randomness."""

    physics: Any
    tasks: Task
    key: Array


def make_physics(env: NonStationaryEnv, num_steps: int) -> Callable[..., Any]:
    """Returns the phase that only steps robots, with random actions."""

    def physics(learner: Array, worker: PhysicsWorker) -> Any:
        num_envs = worker.tasks.kind.shape[0]

        def step(state: Any, key: Array) -> tuple[Any, None]:
            shape = (num_envs, env.action_size)
            action = jax.random.uniform(key, shape, minval=-1, maxval=1)
            return jax.vmap(env.world.step)(state, action, worker.tasks), None

        key, key_steps = jax.random.split(worker.key)
        keys = jax.random.split(key_steps, num_steps)
        last, _ = jax.lax.scan(step, worker.physics, keys)
        metrics = {"x": jax.vmap(env.world.x_position)(last).mean()}
        return learner, worker.replace(key=key), parallel.average(metrics)

    return physics


def nothing(learner: LearnerState, worker: WorkerState) -> Any:
    """The phase that does next to nothing: what a dispatch costs."""
    learner = learner.replace(num_updates=learner.num_updates + 1)
    return learner, worker, {}


# ---------------------------------------------------------------- state


def random_replay(
    key: Array, tasks: Task, env: NonStationaryEnv, shape: tuple[int, int, int]
) -> ReplayState:
    """Returns a full replay of noise in chunks `[E, C, n]`, an episode each."""
    num_envs, _, steps = shape
    example = example_transition(env, jax.tree.map(lambda leaf: leaf[0], tasks))
    key_obs, key_action, key_reward, key_task = jax.random.split(key, 4)
    draw = lambda key, like: jax.random.normal(key, (*shape, *like.shape))  # noqa: E731
    obs = draw(key_obs, example.obs)
    dealt = deal_tasks(key_task, tasks, num_envs).replace(overrides={})
    chunks = Transition(
        obs=obs,
        action=jnp.tanh(draw(key_action, example.action)),
        reward=draw(key_reward, example.reward),
        next_obs=jnp.roll(obs, -1, 2),
        terminated=jnp.zeros(shape),
        step=jnp.broadcast_to(jnp.arange(steps), shape),
        task=jax.tree.map(
            lambda leaf: jnp.broadcast_to(
                leaf.reshape(num_envs, 1, 1, *leaf.shape[1:]), shape + leaf.shape[1:]
            ),
            dealt,
        ),
    )
    return replay.full(chunks, env.can_fall)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: the environment and the agent of a configuration.

    Attributes:
      config: the configuration.
      env: its environment.
      agent: its agent.
      learner: a fresh learner.
      tasks: the training tasks.
    """

    config: Config
    env: NonStationaryEnv
    agent: Agent
    learner: LearnerState
    tasks: Task

    @classmethod
    def of(cls, config: Config) -> "Subject":
        """Builds everything from the configuration."""
        env = config.env.make()
        agent = agent_for(config, env)
        learner = jax.jit(agent.init)(jax.random.key(config.seed))
        return cls(config, env, agent, learner, make_pools(config)["train"])

    def workers(
        self, num_envs: int, length: int, num_steps: int, num_devices: int
    ) -> WorkerState:
        """Returns workers `[D, ...]` with `num_envs` environments each."""

        def make(key: Array, tasks: Task) -> WorkerState:
            key_data, key = jax.random.split(key)
            shape = num_envs, length // num_steps, num_steps
            memory = random_replay(key_data, tasks, self.env, shape)
            return WorkerState(replay=memory, key=key, tasks=tasks)

        keys = parallel.split_keys(jax.random.key(1), num_devices)
        return parallel.on_each_device(make, keys, self.tasks)


# ---------------------------------------------------------------- rollouts


def measure_rollout(subject: Subject, num_devices: int, num_repeats: int) -> Row:
    """Times the collecting phase in turns with the physics alone."""
    config, env = subject.config, subject.env
    num_envs = config.rollout.num_envs // num_devices
    steps = config.rollout.num_steps
    worker = subject.workers(num_envs, steps, steps, num_devices)

    def make(key: Array, tasks: Task) -> PhysicsWorker:
        key_reset, key_tasks, key = jax.random.split(key, 3)
        tasks = deal_tasks(key_tasks, tasks, num_envs)
        keys_reset = jax.random.split(key_reset, num_envs)
        return PhysicsWorker(jax.vmap(env.world.reset)(keys_reset, tasks), tasks, key)

    keys = parallel.split_keys(jax.random.key(2), num_devices)
    robots = parallel.on_each_device(make, keys, subject.tasks)
    collect = make_collect(env, subject.agent, num_envs, steps)
    programs = {
        "rollout": Program(collect, subject.learner, worker),
        "physics": Program(make_physics(env, steps), jnp.float32(0), robots),
    }
    row = timings(programs, num_repeats)
    seconds = row["seconds"]
    rate = config.rollout.num_envs * steps / seconds["rollout"]
    simulator = getattr(env.robot, "simulator", None)
    return row | {
        "env_steps_per_second": rate,
        "physics_steps_per_second": rate * getattr(simulator, "substeps", 1),
        "limit_env_steps_per_second": rate * seconds["rollout"] / seconds["physics"],
        "rollout_share_of_physics": seconds["physics"] / seconds["rollout"],
    }


def timings(programs: dict[str, Program], num_repeats: int) -> Row:
    """Times programs in turns; returns what is said of each, by its name.

    `spread` is the distance between the slowest and the fastest run, in medians.
    """
    runs = {name: program.run for name, program in programs.items()}
    times = repeat(runs, num_repeats)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "compile_seconds": {
            n: program.compile_seconds for n, program in programs.items()
        },
        "seconds": medians,
        "spread": {n: (max(s) - min(s)) / medians[n] for n, s in times.items()},
        "program_memory_bytes": {
            n: program.memory_bytes for n, program in programs.items()
        },
        "kernels": {n: program.num_kernels for n, program in programs.items()},
    }


# ---------------------------------------------------------------- updates


class EmbeddedWorker(struct.PyTreeNode):
    """A worker with the embeddings `[E, L, ...]` of its replay."""

    worker: WorkerState
    embedded: Any


@dataclasses.dataclass(frozen=True)
class UpdatesOnly(PolicyPhase):
    """The policy phase on embeddings that were made before.

    Attributes:
      embedded: the embeddings `[E, L, ...]`.
    """

    embedded: Any = None

    def embed(self, learner: LearnerState, memory: ReplayState) -> Any:
        """Returns what is there already."""
        del learner, memory
        return self.embedded


def measure_embedding(
    subject: Subject, worker: WorkerState, num_repeats: int
) -> tuple[Row, EmbeddedWorker]:
    """Times the embedding of the replay and an empty dispatch."""
    phase = PolicyPhase(subject.agent, 1, 1)

    def embed(learner: LearnerState, state: EmbeddedWorker) -> Any:
        embedded = phase.embed(learner, state.worker.replay)
        return learner, state.replace(embedded=embedded), {}

    blank = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(
            jax.vmap(phase.embed, in_axes=(None, 0)), subject.learner, worker.replay
        ),
    )
    program = Program(embed, subject.learner, EmbeddedWorker(worker, blank))
    row = timings({"embed": program}, num_repeats)
    data = worker.replay.data
    points = data.lines.shape[0] * data.num_envs * data.length
    row["embed_points_per_second"] = points / row["seconds"]["embed"]
    empty = Program(nothing, subject.learner, worker)
    dispatches = repeat({"empty": empty.run}, NUM_DISPATCHES)["empty"]
    row["empty_dispatch_seconds"] = statistics.median(dispatches)
    return row, program.worker


def measure_updates(
    subject: Subject,
    state: EmbeddedWorker,
    num_devices: int,
    num_updates: int,
    num_repeats: int,
) -> Row:
    """Times the phases that learn: fused, and the model's and the policy's alone."""
    config, agent, learner = subject.config, subject.agent, subject.learner
    batch_size = config.sac.batch_size // num_devices
    sampling = Sampling(
        batch_size, config.elbo.windows_per_segment, decode=config.elbo.decode
    )

    def model(windows: int) -> WorldModelPhase:
        return WorldModelPhase(
            agent,
            batch_size,
            max_steps=num_updates,
            interval=config.train.validation_interval,
            fold=config.train.validation_fold,
            patience=num_updates,
            windows_per_segment=windows,
        )

    def policy(learner: LearnerState, state: EmbeddedWorker) -> Any:
        phase = UpdatesOnly(agent, batch_size, num_updates, state.embedded)
        learner, worker, metrics = phase(learner, state.worker)
        return learner, state.replace(worker=worker), metrics

    fused = functools.partial(make_fused, agent, num_updates=num_updates)
    independent = config.sac.independent_transitions
    own = fused(sampling, independent_policy=independent)
    programs = {
        "fused": Program(own, learner, state.worker),
        "model": Program(model(sampling.windows_per_segment), learner, state.worker),
        "policy": Program(policy, learner, state),
    }
    if segment := segment_size(config, batch_size):
        runs = dataclasses.replace(sampling, windows_per_segment=segment)
        alone = fused(runs, independent_policy=True)
        programs |= {
            "fused_segments": Program(fused(runs), learner, state.worker),
            "fused_segments_model_only": Program(alone, learner, state.worker),
            "model_segments": Program(model(segment), learner, state.worker),
        }
    row = timings(programs, num_repeats)
    rates = {name: num_updates / row["seconds"][name] for name in programs}
    segment_rates = {
        f"{name}_updates_per_second": rate
        for name, rate in rates.items()
        if "segments" in name
    }
    return (
        row
        | segment_rates
        | ({"windows_per_segment": segment} if segment else {})
        | {
            "updates_per_second": rates["fused"],
            "samples_per_second": rates["fused"] * config.sac.batch_size,
            "model_steps_per_second": rates["model"],
            "policy_steps_per_second": rates["policy"],
        }
        | work(subject, state.worker, sampling)
    )


def segment_size(config: Config, batch_size: int) -> int:
    """Returns W of the segments that are measured besides, 0 where there are none."""
    fits = not batch_size % SEGMENT and config.rollout.num_steps >= SEGMENT
    plain = config.elbo.windows_per_segment == 1
    return SEGMENT if fits and plain and config.encoder.kind != "trajectory" else 0


def work(subject: Subject, worker: WorkerState, sampling: Sampling) -> Row:
    """Counts what updates must do at least, per device.

    Returns:
      Floating-point operations; and for the fused update the fewest bytes: the
      learner read and written once, the batch's windows read once.
    """
    agent, batch_size = subject.agent, sampling.batch_size
    learner = jax.eval_shape(lambda: subject.learner)
    memory: ReplayState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), worker.replay
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    def draw(sampling: Sampling) -> tuple[Batch, int]:
        """Returns a batch's shapes, and the bytes of what is gathered for it."""
        places = jax.eval_shape(sampling.places, memory, key)
        gather = functools.partial(sampling.gather, agent)
        rows = functools.partial(sampling.rows, agent)
        batch: Batch = jax.eval_shape(gather, learner, memory, places)
        return batch, num_bytes(jax.eval_shape(rows, memory, places.current))

    batch, read = draw(sampling)
    policy_batch = None
    if subject.config.sac.independent_transitions and sampling.windows_per_segment > 1:
        single = Sampling(batch_size)
        policy_batch, more = draw(single)
        read += more
    noise = functools.partial(agent.world_model_noise, batch_size=batch_size)
    policy_noise = functools.partial(agent.policy_noise, batch_size=batch_size)
    z = jax.ShapeDtypeStruct((batch_size, agent.context_size), jnp.float32)
    return {
        "update_flops": count_flops(agent.update, learner, batch, key, policy_batch),
        "model_flops": count_flops(
            agent.world_model_step, learner, batch, jax.eval_shape(noise, key)
        ),
        "policy_flops": count_flops(
            agent.policy_step,
            learner,
            batch.current,
            z,
            jax.eval_shape(policy_noise, key),
        ),
        "update_bytes": 2 * num_bytes(learner) + read,
    }


def shares(row: Row) -> Row:
    """Returns which share of the machine's limits the updates of a row reach."""
    product = row["limit_matmul_flops_per_second"]
    copy = row["limit_copy_bytes_per_second"]
    rate = row["updates_per_second"]
    return {
        "update_share_of_arithmetic": row["update_flops"] * rate / product,
        "update_share_of_bandwidth": row["update_bytes"] * rate / copy,
        "model_share_of_arithmetic": row["model_flops"]
        * row["model_steps_per_second"]
        / product,
        "policy_share_of_arithmetic": row["policy_flops"]
        * row["policy_steps_per_second"]
        / product,
    }


# ---------------------------------------------------------------- sweep


def sweep(config: BenchmarkConfig, say: Callable[[str], None]) -> Iterator[Row]:
    """Measures every combination; yields its row as soon as it is complete.

    A rollout does not depend on the batch size, nor an update on the number of
    environments (its replay has `replay_points`): each is measured once and stands in
    every row that it belongs to.

    Args:
      config: a valid configuration.
      say: told what is measured next, and if time is over.
    """
    start = time.perf_counter()
    say("limits of the machine")
    repeats = config.num_repeats
    limits = machine_limits(config.matmul_size, config.copy_mebibytes, repeats)
    for num_devices in config.num_devices:
        where = f"on {num_devices} device" + "s" * (num_devices > 1)
        rollouts: dict[int, Row] = {}
        say(f"replay of {config.replay_points:,} transitions {where}")
        memory, state = prepare_replay(config, num_devices)
        for batch_size in config.batch_sizes:
            updates: Row | None = None
            learning = Subject.of(config.update_config(batch_size))
            for num_envs in config.num_envs:
                if time.perf_counter() - start > 60 * config.max_minutes:
                    say(f"max_minutes={config.max_minutes:g} are over: rest left out")
                    return
                if updates is None:
                    say(f"updates with batches of {batch_size:,} {where}")
                    updates = measure_updates(
                        learning, state, num_devices, config.num_updates, repeats
                    )
                if num_envs not in rollouts:
                    say(f"rollout of {num_envs:,} environments {where}")
                    acting = Subject.of(config.rollout_config(num_envs))
                    rollouts[num_envs] = measure_rollout(acting, num_devices, repeats)
                row = sizes(config, learning)
                row |= {"num_envs": num_envs, "num_devices": num_devices}
                yield complete(row, limits, memory, updates, rollouts[num_envs])


def prepare_replay(
    config: BenchmarkConfig, num_devices: int
) -> tuple[Row, EmbeddedWorker]:
    """Fills the replay that all updates draw from, and times its embedding."""
    subject, rollout = Subject.of(config.base), config.base.rollout
    num_envs = max(1, rollout.num_envs // num_devices)
    episodes = config.replay_points // (num_devices * num_envs * rollout.num_steps)
    length = max(1, episodes) * rollout.num_steps
    worker = subject.workers(num_envs, length, rollout.num_steps, num_devices)
    row, state = measure_embedding(subject, worker, config.num_repeats)
    return row | {"replay_points": num_devices * num_envs * length}, state


def complete(row: Row, *parts: Row) -> Row:
    """Joins the parts of a row; adds the shares and the memory at its peak."""
    for part in parts:
        for name, value in part.items():
            known = row.get(name)
            row[name] = known | value if isinstance(known, dict) else value
    stats = jax.local_devices()[0].memory_stats() or {}
    row |= shares(row)
    if "peak_bytes_in_use" in stats:
        row["peak_memory_bytes"] = stats["peak_bytes_in_use"]
        row["peak_memory_source"] = "allocator, since the start"
    else:
        row["peak_memory_bytes"] = max(row["program_memory_bytes"].values())
        row["peak_memory_source"] = "compiler, largest program"
    return row


def sizes(config: BenchmarkConfig, subject: Subject) -> Row:
    """Returns where and with which sizes a row is measured.

    The numbers of environments and devices are left to the caller.
    """
    base, learner = subject.config, subject.learner
    parts = {
        **learner.world_model.params,
        "actor": learner.actor.params,
        "critic": learner.critic.params,
    }
    return environment("sweep", config) | {
        "robot": type(base.env.robot).__name__,
        "num_envs": 0,
        "batch_size": base.sac.batch_size,
        "num_devices": 0,
        "num_steps": config.num_steps,
        "num_updates": config.num_updates,
        "num_repeats": config.num_repeats,
        "encoder": base.encoder.kind,
        "window_steps": base.encoder.window_steps,
        "num_classes": base.encoder.num_classes,
        "latent_size": base.encoder.latent_size,
        "encoder_width_factor": base.encoder.width_factor,
        "decoder_width_factor": base.elbo.decoder_width_factor,
        "hidden_size": base.sac.hidden_size,
        "num_layers": base.sac.num_layers,
        "obs_size": subject.agent.obs_size,
        "action_size": subject.agent.action_size,
        "parameters": {
            name: sum(leaf.size for leaf in jax.tree.leaves(part))
            for name, part in parts.items()
            if jax.tree.leaves(part)
        },
    }


def environment(measure: str, config: BenchmarkConfig) -> Row:
    """Returns what is measured, on which device, with which versions."""
    return {
        "measure": measure,
        "benchmark": config.name,
        "preset": config.base.name,
        "engine": config.base.env.resolved_engine,
    } | provenance.environment()
