"""The host loop: runs the phases of an epoch, evaluates, logs, saves."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.data.types import Metrics
from cemrl_jax.evaluation.evaluate import HEADLINE, evaluation_pools, make_evaluate
from cemrl_jax.reporting.progress import Progress, Row
from cemrl_jax.runtime import parallel
from cemrl_jax.runtime.programs import Program
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.run import Keys, Run


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
        self._env = self.config.env.make()
        self._algorithm = make_algorithm(self.config, self._env)
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
        env, algorithm = self._env, self._algorithm
        phases = algorithm.phases(env, parallel.num_devices())
        for name, step in phases.items():
            progress.phase(f"compiling {name}")
            mapped = parallel.spmd(_for_seeds(step, len(self._members)))
            self.programs[name] = Program(mapped, self._learner, self._worker)
        progress.phase("compiling evaluate")
        evaluate = make_evaluate(
            env,
            algorithm.policy,
            config.rollout.num_steps,
            config.evaluation.num_episodes,
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
        updates = np.asarray(self._algorithm.num_updates(self._learner))
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
