"""Everything that a run executes, compiled from shapes before anything is made."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import success
from cemrl_jax.envs import Task, engines
from cemrl_jax.envs.groups import Groups
from cemrl_jax.evaluation import cases, inference
from cemrl_jax.evaluation.evaluate import (
    Rows,
    Scores,
    evaluation_pools,
    make_plan,
    make_scores,
)
from cemrl_jax.runtime import parallel
from cemrl_jax.runtime.program_store import ProgramStore, StoredProgram, shapes_of
from cemrl_jax.runtime.programs import (
    FEW_PIECES,
    ONCE,
    QUICKLY,
    Program,
    compile_all,
)
from cemrl_jax.training import seeds, state
from cemrl_jax.training.keys import Keys

REDUCES = {
    "collect": "rollout.num_envs",
    "evaluate": "evaluation.num_episodes or env.num_test_tasks",
    "policy": "replay.capacity, encoder.width_factor or encoder.num_classes",
}
"""Phase -> the fields that its working memory grows with; others: the batch size."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Episodes that one call of the evaluation's program runs.

    Attributes:
      rows: which episodes belong to which case.
      share: the episodes and keys of this process's devices.
      total: episodes of a seed, without padding.
    """

    rows: Rows
    share: Any
    total: int


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates every seed, the episodes shared out over all devices.

    One program serves all cases, as many at a time as the headline has.

    Attributes:
      program: `(learner, share)` -> scores `[D, n]`, with several seeds `[D, N, n]`.
      parts: the headline, and the other cases of a checkpoint's evaluation.
      num_seeds: N.
      base_names: names of the base tasks, see `NonStationaryEnv`.
      window_steps: T.
      num_classes: K.
    """

    program: Program
    parts: tuple[Part, ...]
    num_seeds: int
    base_names: tuple[str, ...]
    window_steps: int
    num_classes: int

    def __call__(
        self, learner: Any, complete: bool
    ) -> tuple[list[dict[str, float]], float]:
        """Returns the numbers of each case for each seed, and seconds.

        Those are the mean return and success rates.

        Args:
          learner: of all seeds.
          complete: evaluate all cases, and say how tasks are inferred: see
            `cemrl_jax.evaluation.inference`.
        """
        results: list[dict[str, float]] = [{} for _ in range(self.num_seeds)]
        total_seconds = 0.0
        for part in self.parts if complete else self.parts[:1]:
            values, seconds = self.program(learner, part.share)
            total_seconds += seconds
            scores = jax.tree.map(functools.partial(self._rows, part), values)
            for number, result in enumerate(results):
                own = jax.tree.map(lambda x, number=number: x[:, number], scores)
                split = part.rows.by_case(own)
                for case, values in split.items():
                    result |= self._metrics(case, values)
                if complete and inference.CASE in split:
                    seen = split[inference.CASE].traces
                    result |= inference.metrics(
                        seen, self.window_steps, self.num_classes
                    )
        return results, total_seconds

    def _rows(self, part: Part, values: Any) -> np.ndarray:
        """Returns what the program gave of each episode and seed, `[n, N, ...]`."""
        if self.num_seeds == 1:
            return parallel.collect_rows(values, part.total)[:, None]
        return parallel.collect_rows(jnp.swapaxes(values, 1, 2), part.total)

    def _metrics(self, case: cases.Case, scores: Scores) -> dict[str, float]:
        """Returns the numbers of a case; no rate of a base task without episodes."""
        metrics = {case.metric: float(np.mean(scores.returns))}
        if scores.counts is not None:
            counts = np.asarray(scores.counts).sum(0)
            there = counts[0] > 0
            names = [name for name, on in zip(self.base_names, there) if on]
            found = success.rates(counts[:, there], names)
            metrics |= {case.prefix + name: float(x) for name, x in found.items()}
        return metrics


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run executes.

    Attributes:
      phases: the phases of an epoch by name, in order.
      evaluate: the evaluation.
      resident_bytes: what the state and the episodes to evaluate take on each device.
      init: makes the learner of a run that begins, see `state.lower_init`.
    """

    phases: dict[str, Program]
    evaluate: Evaluator
    resident_bytes: int
    init: Program | None = None

    @property
    def compile_seconds(self) -> dict[str, float]:
        """Program -> seconds."""
        return {name: x.compile_seconds for name, x in self._all().items()}

    @property
    def peak_bytes(self) -> int:
        """Memory that a run needs on each device at most, bytes."""
        return self.resident_bytes + max(x.working_bytes for x in self._all().values())

    def check_memory(self, config: Config) -> None:
        """Compares what a run will need with what each device has.

        Raises:
          ConfigError: it does not fit; names the field to lower.
        """
        available = parallel.memory_bytes()
        if available is None or self.peak_bytes <= available:
            return
        name, largest = max(self._all().items(), key=lambda x: x[1].working_bytes)
        gib = lambda size: f"{size / 2**30:.2f} GiB"  # noqa: E731
        reduce = REDUCES.get(name, "sac.batch_size")
        if self.resident_bytes > largest.working_bytes:
            reduce = f"replay.capacity={config.replay.capacity}"
        if config.num_seeds > 1:
            reduce += f" or num_seeds={config.num_seeds}"
        raise ConfigError(
            f"{reduce} must be lower: each device needs {gib(self.resident_bytes)} for"
            f" replay and networks and {gib(largest.working_bytes)} to run {name}, and"
            f" has {gib(available)}"
        )

    def _all(self) -> dict[str, Program]:
        return self.phases | {"evaluate": self.evaluate.program}


def compile_programs(
    config: Config,
    numbers: list[int],
    pools: list[dict[str, Task]],
    say: Callable[[str], None] = lambda name: None,
    begins: bool = False,
    store: ProgramStore | None = None,
) -> Programs:
    """Compiles all programs of a run from shapes; allocates next to nothing.

    Args:
      config: the configuration; its `seed` does not matter.
      numbers: the seeds that train together.
      pools: their tasks by pool.
      say: told the name of each program.
      begins: the run begins, and needs a learner.
      store: where they are looked for first, and kept.
    """
    env = config.env.make()
    algorithm, num_seeds = make_algorithm(config, env), len(numbers)
    start = state.shapes(config, num_seeds, pools[0]["train"])
    phases = algorithm.phases(env, parallel.num_devices())
    lower: dict[str, Callable[[], Any]] = {}
    for name, phase in phases.items():
        mapped = parallel.spmd(seeds.phase_for_seeds(phase, num_seeds))
        lower[name] = lambda mapped=mapped: parallel.lower(
            mapped, start.learner, start.worker
        )
    function = make_scores(env, algorithm.policy, config.rollout.num_steps)
    mapped = parallel.spread(seeds.for_seeds(function, num_seeds))
    parts = evaluation_parts(config, numbers, pools)
    lower["evaluate"] = lambda: parallel.lower(mapped, start.learner, parts[0].share)
    if begins:
        lower["init"] = lambda: state.lower_init(config, num_seeds)
    shapes = shapes_of([start.learner, start.worker, parts[0].share])
    described = descriptions(config, lower, f"{num_seeds} seeds, {shapes}")
    known = {"learner": start.learner, "worker": start.worker}
    arguments = dict.fromkeys(phases, (start.learner, start.worker)) | {
        "evaluate": (start.learner, parts[0].share),
        "init": (jax.random.key(0),),
    }
    kept = {
        name: StoredProgram(store, text, arguments[name], known)
        for name, text in described.items()
        if store
    }
    programs = compile_all(lower, say, compiler_options(config), kept)
    init = programs.pop("init", None)
    evaluate = Evaluator(
        programs.pop("evaluate"),
        parts,
        num_seeds,
        env.base_names,
        config.encoder.window_steps,
        config.encoder.num_classes,
    )
    own = state.num_bytes([start.worker, *(part.share for part in parts)])
    resident = state.num_bytes(start.learner) + own // parallel.num_local_devices()
    return Programs(programs, evaluate, resident, init)


def compiler_options(config: Config) -> dict[str, dict[str, Any]]:
    """Returns compiler options of programs that are not worth the usual ones."""
    if jax.default_backend() != "cpu":
        return {}
    options = {"init": ONCE}
    if config.env.resolved_engine in engines.C_ENGINES:
        # What calls C MuJoCo spends its time there.
        options |= {"collect": QUICKLY, "evaluate": QUICKLY}
    elif isinstance(config.env.make(), Groups):
        # Each holds every physical model.
        options |= {"collect": FEW_PIECES, "evaluate": FEW_PIECES}
    return options


def descriptions(config: Config, names: Iterable[str], shapes: str) -> dict[str, str]:
    """Returns what a store tells programs by, of those that a later process can run.

    Programs that call Python have an address of this process in them. Those of the
    engine mujoco_ffi have the number of a model that it knows once an environment has
    been traced, as it is for the shapes of a run's state.
    """
    engine = config.env.resolved_engine
    calls_python = engine == "mujoco"
    same = dataclasses.replace(config, name="", seed=0, output_dir="")
    text = f"{json.dumps(config_lib.to_dict(same))} {engine} {shapes}"
    return {
        name: f"{name} {text}"
        for name in names
        if not (calls_python and name in ("collect", "evaluate"))
    }


def evaluation_parts(
    config: Config, numbers: list[int], pools: list[dict[str, Task]]
) -> tuple[Part, ...]:
    """Returns the episodes of a checkpoint's evaluation, the headline's first."""
    schedule = config.env.schedule
    chosen, size = cases.complete(schedule), len(cases.headline(schedule))
    distinct: dict[str, list[cases.Case]] = {}
    for case in chosen:  # those that are the same episodes stay in one part
        same = "fixed" if cases.own_protocol(schedule) == "fixed" else case.protocol
        distinct.setdefault(f"{case.pool} {case.mode} {same}", []).append(case)
    groups = list(distinct.values())
    parts = []
    for first in range(0, len(groups), size):
        some = groups[first : first + size]
        some += groups[: size - len(some)]  # every part has the program's shapes
        parts.append(_part(config, numbers, pools, [c for g in some for c in g]))
    return tuple(parts)


def _part(
    config: Config,
    numbers: list[int],
    pools: list[dict[str, Task]],
    chosen: list[cases.Case],
) -> Part:
    episodes, schedule = config.evaluation.num_episodes, config.env.schedule
    plans = [
        make_plan(evaluation_pools(own), schedule, episodes, chosen) for own in pools
    ]
    shared = [parallel.share(plan) for plan, _ in plans]
    keys = [
        parallel.own_rows(
            parallel.split_keys(Keys.of(number).evaluation, parallel.num_devices())
        )
        for number in numbers
    ]
    if len(numbers) == 1:
        share = (shared[0][0], keys[0])
    else:
        join = lambda trees: jax.tree.map(lambda *x: jnp.stack(x, 1), *trees)  # noqa: E731
        share = (join([rows for rows, _ in shared]), jnp.stack(keys, 1))
    return Part(plans[0][1], parallel.place_own(share), shared[0][1])
