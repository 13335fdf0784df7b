"""The host loop: runs the phases of an epoch, evaluates, logs, saves."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config
from cemrl_jax.reporting.progress import Progress, Row
from cemrl_jax.runtime import parallel
from cemrl_jax.training import seeds
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.programs import Programs, compile_programs
from cemrl_jax.training.run import Run
from cemrl_jax.training.state import State

FAILED = "failed"
"""Folder of a run with the weights at which it was stopped."""


@dataclasses.dataclass
class Member:
    """One seed of a group that trains together: its run and where it writes.

    Attributes:
      run: what it has done.
      progress: takes its rows.
      checkpoints: of the run.
      failed: the epoch at which its numbers were no longer finite, None if they are.
    """

    run: Run
    progress: Progress
    checkpoints: Checkpoints
    failed: int | None = None


def train(run: Run, progress: Progress, checkpoints: Checkpoints) -> None:
    """Runs the epochs that are left of one run; see `train_together`."""
    programs = compile_programs(
        run.config, [run.config.seed], [run.pools], progress.compiling
    )
    programs.check_memory(run.config)
    progress.compiled(programs.compile_seconds)
    member = Member(run, progress, checkpoints)
    train_together([member], State(run.learner, run.worker), programs)


def train_together(
    members: Sequence[Member],
    state: State,
    programs: Programs,
    profile_dir: pathlib.Path | None = None,
) -> None:
    """Runs the epochs that are left of runs that differ in their seed only.

    All of them advance in the same programs, each with its own learner, replay, tasks
    and random numbers, and each as it would alone up to the rounding of float32.

    Args:
      members: the runs, at the same epoch; advanced in place.
      state: of all of them; donated.
      programs: compiled for it.
      profile_dir: where to write what `jax.profiler` sees of the first of these epochs.
    """
    group = Group(members, state, programs)
    if group.epoch == 0:
        rows = group.empty_rows()
        for _ in range(group.config.rollout.num_initial):
            group.run_phase("collect", rows)
        group.finish_epoch(rows)
    while group.epoch < group.config.train.num_epochs:
        rows = group.empty_rows()
        with _profile(profile_dir):
            for name in programs.phases:
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
    """Runs that advance together: their joint state, and the programs that advance it.

    Attributes:
      config: of the runs, apart from the seed.
    """

    def __init__(
        self, members: Sequence[Member], state: State, programs: Programs
    ) -> None:
        """Takes over a state, until `leave`."""
        self._members, self._programs = members, programs
        self.config: Config = members[0].run.config
        self._algorithm = make_algorithm(self.config, self.config.env.make())
        self._metric = self.config.checkpoint_metric
        self._learner, self._worker = parallel.join(state.learner, state.worker)
        for member in members:  # the programs donate what these would still hold
            member.run.learner = member.run.worker = None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._members[0].run.epoch

    def empty_rows(self) -> list[Row]:
        """Returns a row for each seed to fill in."""
        return [{} for _ in self._members]

    def run_phase(self, name: str, rows: list[Row]) -> None:
        """Runs a phase and adds its metrics and seconds to the rows."""
        self._members[0].progress.phase(name)
        (self._learner, self._worker, metrics), seconds = self._programs.phases[name](
            self._learner, self._worker
        )
        for metric, values in metrics.items():
            for row, value in zip(rows, np.atleast_1d(np.asarray(values))):
                row[metric] = float(value)
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
        """Evaluates and saves where this epoch is due, and writes the rows.

        Raises:
          FloatingPointError: the numbers of no seed are finite any more.
        """
        last = self.epoch == self.config.train.num_epochs
        due = last or self.epoch % self.config.checkpoint.interval == 0
        if due or self.epoch % self.config.evaluation.interval == 0:
            self._evaluate(rows, complete=due)
        updates = np.atleast_1d(np.asarray(self._algorithm.num_updates(self._learner)))
        for number, member in enumerate(self._members):
            head: Row = {
                "epoch": member.run.epoch,
                "env_steps": member.run.env_steps,
                "updates": int(updates[number]),
            }
            rows[number] = head | rows[number]
        problems = self._find_failures(rows)
        live = [r for r, m in zip(rows, self._members) if m.failed is None] or rows
        shown = {name: float(np.mean([row[name] for row in live])) for name in rows[0]}
        for row, member in zip(rows, self._members):
            if member.failed in (None, self.epoch):
                member.progress.row(row, shown)
        self._report(problems)
        self._save(rows, due)

    def _evaluate(self, rows: list[Row], complete: bool) -> None:
        self._members[0].progress.phase("evaluate")
        learner = parallel.on_own_devices(self._learner)
        results, seconds = self._programs.evaluate(learner, complete)
        for row, result in zip(rows, results):
            row |= result | {"seconds/evaluate": seconds}

    def _find_failures(self, rows: list[Row]) -> dict[int, str]:
        """Marks seeds whose numbers are not finite; returns what is wrong with each."""
        problems = {}
        for number, (row, member) in enumerate(zip(rows, self._members)):
            bad = sorted(name for name, x in row.items() if not np.isfinite(x))
            problem = f"{', '.join(bad)} is not finite" if bad else ""
            if row.get("collect/broken", 0) >= self.config.rollout.num_envs:
                problem = "all environments broke: see collect/broken"
            if problem and member.failed is None:
                member.failed = self.epoch
                problems[number] = problem
        return problems

    def _report(self, problems: dict[int, str]) -> None:
        """Keeps the weights of seeds that failed; the others go on.

        Raises:
          FloatingPointError: no seed is left.
        """
        for number, problem in problems.items():
            run = self._members[number].run
            self._keep_failed(number)
            text = (
                f"epoch {self.epoch}: {problem}. The last good checkpoint is kept; its"
                f" weights now are in {run.directory / FAILED}"
                f" (scripts/play.py --run={run.directory} --checkpoint={FAILED}); try a"
                " lower sac.learning_rate or elbo.learning_rate"
            )
            if all(member.failed is not None for member in self._members):
                raise FloatingPointError(text)
            self._members[0].progress.warn(
                f"seed {run.config.seed} stops, the others go on. {text}"
            )

    def _keep_failed(self, number: int) -> None:
        run = self._members[number].run
        with Checkpoints(run.directory / FAILED) as saved:
            saved.save(
                run.epoch, self._learner_of(number), None, self._counters(run), -np.inf
            )

    def _save(self, rows: list[Row], due: bool) -> None:
        """Saves each seed where that is due, or its metric better than ever."""
        parallel.assert_replicated(self._learner)
        for number, member in enumerate(self._members):
            value = rows[number].get(self._metric)
            if member.failed is not None or value is None:
                continue
            if not due and not member.checkpoints.is_best(value):
                continue
            self._members[0].progress.phase("save")
            worker = None
            if self.config.checkpoint.replay:
                worker = seeds.worker_of(self._worker, number, len(self._members))
            member.checkpoints.save(
                member.run.epoch,
                self._learner_of(number),
                worker,
                self._counters(member.run),
                value,
            )

    def _learner_of(self, number: int) -> Any:
        return seeds.learner_of(self._learner, number, len(self._members))

    def _counters(self, run: Run) -> dict[str, int]:
        return {
            "env_steps": run.env_steps,
            "num_devices": parallel.num_devices(),
            "replay_length": self.config.replay_length,
        }

    def leave(self) -> None:
        """Gives the runs their learners back, and a run that is alone its worker."""
        for number, member in enumerate(self._members):
            member.run.learner = self._learner_of(number)
        if len(self._members) == 1:
            self._members[0].run.worker = self._worker
