"""The host loop: runs the phases of an epoch, evaluates, logs, saves."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config
from cemrl_jax.data import replay, success
from cemrl_jax.data.rollout import BREAKDOWN
from cemrl_jax.data.types import Transition
from cemrl_jax.reporting.progress import Progress, Row
from cemrl_jax.runtime import parallel
from cemrl_jax.training import seeds
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.programs import Programs, compile_programs
from cemrl_jax.training.run import Run
from cemrl_jax.training.signals import StopRequest
from cemrl_jax.training.state import State
from cemrl_jax.training.storage import (
    BREAKDOWN_FILE,
    CHECKPOINTS,
    FAILED,
    Ring,
    Storage,
    discard,
)

MAX_BROKEN = 0.1
"""Share of an epoch's steps that may break an environment before a run gives up."""
SUMMED = ("collect/broken", "collect/lost")
"""What the phases of an epoch add up, as their seconds; of the rest the last counts."""


@dataclasses.dataclass
class Member:
    """One seed of a group that trains together: its run and where it writes.

    Attributes:
      run: what it has done.
      progress: takes its rows.
      storage: what it saves.
      failed: the epoch at which its numbers were no longer finite, None if they are.
      failure: that epoch and what was wrong, in words; empty if nothing was.
      breakdown: what the newest step that broke an environment began with, by name.
    """

    run: Run
    progress: Progress
    storage: Storage
    failed: int | None = None
    failure: str = ""
    breakdown: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def train(
    run: Run, progress: Progress, storage: Storage, stop: StopRequest | None = None
) -> int:
    """Runs the epochs that are left of one run; see `train_together`."""
    programs = compile_programs(
        run.config, [run.config.seed], [run.pools], progress.compiling
    )
    programs.check_memory(run.config)
    progress.compiled(programs.compile_seconds)
    state = State(run.learner, run.worker)
    return train_together([Member(run, progress, storage)], state, programs, stop=stop)


def train_together(
    members: Sequence[Member],
    state: State,
    programs: Programs,
    profile_dir: pathlib.Path | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Runs the epochs that are left of runs that differ in their seed only.

    All of them advance in the same programs, each with its own learner, replay, tasks
    and random numbers, and each as it would alone up to the rounding of float32.

    Args:
      members: the runs, at the same phase of the same epoch; advanced in place.
      state: of all of them; donated.
      programs: compiled for it.
      profile_dir: where to write what `jax.profiler` sees of the first of these epochs.
      stop: asked between two phases; the state there is then saved.

    Returns:
      Why it stopped, see `StopRequest.reason`; 0 if all epochs are done.
    """
    stop = stop or StopRequest()
    group = Group(members, state, programs)
    stop.at_once = False
    reason = 0
    while not reason and not group.is_finished:
        begun = group.begun
        with _profile(profile_dir if begun else None):
            reason = _run_epoch(group, stop)
        profile_dir = None if begun else profile_dir
    if reason:
        group.save_where_stopped()
    group.leave()
    for member in members:
        member.storage.wait()
    members[0].progress.phase("stopped" if reason else "done")
    return reason


def _run_epoch(group: "Group", stop: StopRequest) -> int:
    """Runs what is left of an epoch; returns why it stopped, 0 if it is over."""
    for name in group.phases_left():
        if reason := stop.reason():
            return reason
        group.run_phase(name)
    if reason := stop.reason():
        return reason
    group.finish_epoch()
    return 0


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
        self._rows: list[Row] = [dict(member.run.row) for member in members]
        self._saved_clock = members[0].run.clock
        for member in members:  # the programs donate what these would still hold
            member.run.learner = member.run.worker = None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._members[0].run.epoch

    @property
    def begun(self) -> bool:
        """Whether the initial collects are done."""
        return self._members[0].run.begun

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left."""
        return self._members[0].run.is_finished

    def phases_left(self) -> list[str]:
        """Returns the phases of the running epoch that are not done yet.

        The initial collects make an epoch of their own, number 0.
        """
        initial = ["collect"] * self.config.rollout.num_initial
        phases = list(self._programs.phases) if self.begun else initial
        return phases[self._members[0].run.phase :]

    def run_phase(self, name: str) -> None:
        """Runs a phase and adds its metrics and seconds to the rows."""
        self._members[0].progress.phase(name)
        rows = self._rows
        (self._learner, self._worker, metrics), seconds = self._programs.phases[name](
            self._learner, self._worker
        )
        self._keep_breakdowns(metrics)
        for metric, values in metrics.items():
            for row, value in zip(rows, np.atleast_1d(np.asarray(values))):
                if not success.is_absent(metric, value):
                    before = row.get(metric, 0.0) if metric in SUMMED else 0.0
                    row[metric] = before + float(value)
        rollout, updates = self.config.rollout, self.config.num_updates
        spent, speed = f"seconds/{name}", {}
        if name == "collect":
            steps = rollout.num_envs * rollout.num_steps
            for member in self._members:
                member.run.env_steps += steps
            speed["speed/env_steps_per_second"] = len(rows) * steps / seconds
        elif "sac/value" in metrics:
            speed["speed/updates_per_second"] = len(rows) * updates / seconds
        for row, member in zip(rows, self._members):
            row |= speed | {spent: row.get(spent, 0.0) + seconds}
            member.run.phase += 1
            member.run.clock += 1

    def _keep_breakdowns(self, metrics: dict[str, Any]) -> None:
        """Takes what broken steps began with out of a phase's metrics."""
        names = [name for name in metrics if name.startswith(BREAKDOWN)]
        found = {name.removeprefix(BREAKDOWN): metrics.pop(name) for name in names}
        if not found:
            return
        for number, broken in enumerate(np.atleast_1d(metrics["collect/broken"])):
            if broken:
                at = () if len(self._members) == 1 else number
                self._members[number].breakdown = {
                    name: np.asarray(value)[at] for name, value in found.items()
                }

    def finish_epoch(self) -> None:
        """Counts the epoch, evaluates and saves where it is due, writes the rows.

        Raises:
          FloatingPointError: the numbers of no seed are finite any more.
        """
        self._advance()
        rows = self._rows
        last = self.epoch == self.config.train.num_epochs
        due = last or self.epoch % self.config.checkpoint.interval == 0
        if due or self.epoch % self.config.evaluation.interval == 0:
            self._evaluate(rows, complete=due)
        self._add_counts(rows)
        problems = self._find_failures(rows)
        live = [r for r, m in zip(rows, self._members) if m.failed is None] or rows
        shown = {
            name: float(np.mean([row[name] for row in live if name in row]))
            for row in live
            for name in row
        }
        for row, member in zip(rows, self._members):
            if member.failed in (None, self.epoch):
                member.progress.row(row, shown)
        if self._members[0].failed not in (None, self.epoch):
            self._members[0].progress.show(shown)  # its display is that of all
        self._rows = [{} for _ in self._members]
        self._report(problems)
        self._save_good(rows, due)

    def save_where_stopped(self) -> None:
        """Saves between two phases, unless the state on disk is the same."""
        if self._members[0].run.clock <= self._saved_clock:
            return
        self._members[0].progress.phase("save")
        parallel.assert_replicated(self._learner)
        for number, member in enumerate(self._members):
            if member.failed is None:
                self._save(number, None)

    def leave(self) -> None:
        """Gives the runs their learners back, and a run that is alone its worker."""
        for number, member in enumerate(self._members):
            member.run.learner = self._learner_of(number)
        if len(self._members) == 1:
            self._members[0].run.worker = self._worker

    def _advance(self) -> None:
        """Counts the epoch whose phases are done."""
        for member in self._members:
            run = member.run
            run.epoch += run.begun
            run.begun, run.phase, run.clock = True, 0, run.clock + 1

    def _evaluate(self, rows: list[Row], complete: bool) -> None:
        self._members[0].progress.phase("evaluate")
        learner = parallel.on_own_devices(self._learner)
        results, seconds = self._programs.evaluate(learner, complete)
        for row, result in zip(rows, results):
            row |= result | {"seconds/evaluate": seconds}

    def _add_counts(self, rows: list[Row]) -> None:
        """Puts epoch, steps and updates in front of the rows."""
        updates = np.atleast_1d(np.asarray(self._algorithm.num_updates(self._learner)))
        for number, member in enumerate(self._members):
            total, in_a_row = np.asarray(self._skipped(number))
            rows[number]["train/skipped"] = int(total)
            rows[number]["train/skipped_in_a_row"] = int(in_a_row)
            head: Row = {
                "epoch": member.run.epoch,
                "env_steps": member.run.env_steps,
                "updates": int(updates[number]),
            }
            rows[number] = head | rows[number]

    def _find_failures(self, rows: list[Row]) -> dict[int, str]:
        """Marks seeds whose numbers are not finite; returns what is wrong with each."""
        problems = {}
        collects = self.config.rollout.num_initial if self.epoch == 0 else 1
        most = MAX_BROKEN * collects * self.config.collect_steps
        for number, (row, member) in enumerate(zip(rows, self._members)):
            bad = sorted(name for name, x in row.items() if not np.isfinite(x))
            problem = f"{', '.join(bad)} is not finite" if bad else ""
            broken = row.get("collect/broken", 0)
            if broken > most:
                problem = f"collect/broken: {broken:.0f} steps broke an environment"
            if row["train/skipped_in_a_row"] >= parallel.MAX_SKIPPED:
                problem = f"{parallel.MAX_SKIPPED} gradients in a row were not finite"
            if problem and member.failed is None:
                member.failed = self.epoch
                member.failure = f"epoch {self.epoch}: {problem}"
                problems[number] = problem
        return problems

    def _report(self, problems: dict[int, str]) -> None:
        """Keeps the weights of seeds that failed; the others go on.

        Raises:
          FloatingPointError: no seed is left.
        """
        for number, problem in problems.items():
            run = self._members[number].run
            self._keep_failure(number)
            good = self._members[number].storage.newest_epoch
            place = "none" if good is None else run.directory / CHECKPOINTS / str(good)
            text = (
                f"epoch {self.epoch}: {problem}. The last good checkpoint is {place};"
                f" its weights now are in {run.directory / FAILED}"
                f" (scripts/play.py --run={run.directory} --checkpoint={FAILED}); try a"
                " lower sac.learning_rate or elbo.learning_rate"
            )
            if all(member.failed is not None for member in self._members):
                raise FloatingPointError(text)
            self._members[0].progress.warn(
                f"seed {run.config.seed} stops, the others go on. {text}"
            )

    def _keep_failure(self, number: int) -> None:
        """Writes the weights of a seed that failed, in place of an earlier failure."""
        run = self._members[number].run
        if parallel.is_first_process():
            discard(run.directory, FAILED)
        parallel.agree(FAILED)  # nobody writes before it is gone
        with Checkpoints(run.directory / FAILED) as saved:
            state = run.position() | {"ring": None}
            saved.save(run.epoch, self._learner_of(number), state, -np.inf)
        breakdown: Any = self._members[number].breakdown
        if breakdown:
            np.savez(run.directory / FAILED / BREAKDOWN_FILE, **breakdown)

    def _save_good(self, rows: list[Row], due: bool) -> None:
        """Saves the sound seeds, where that is due or one is better than ever.

        All at once, so that a group can go on from there.
        """
        parallel.assert_replicated(self._learner)
        values = {
            number: rows[number][self._metric]
            for number, member in enumerate(self._members)
            if member.failed is None and self._metric in rows[number]
        }
        better = [
            self._members[n].storage.is_best(value) for n, value in values.items()
        ]
        if due or any(better):
            for number, value in values.items():
                self._members[0].progress.phase("save")
                self._save(number, value)

    def _save(self, number: int, value: float | None) -> None:
        """Saves a seed; None for its metric where the run is interrupted."""
        run = self._members[number].run
        self._saved_clock = run.clock
        run.row = dict(self._rows[number])  # is written while the next phase runs
        keys = parallel.all_rows(jax.random.key_data(self._worker.key))
        own = keys if len(self._members) == 1 else keys[:, number]
        self._members[number].storage.save(
            run.clock if value is None else run.epoch,
            self._learner_of(number),
            run.position() | {"keys": own.tolist()},
            self._ring(run) if self.config.checkpoint.replay else None,
            functools.partial(self._collected, number),
            value,
        )

    def _learner_of(self, number: int) -> Any:
        return seeds.learner_of(self._learner, number, len(self._members))

    def _skipped(self, number: int) -> Any:
        return self._algorithm.skipped(self._learner_of(number))

    def _ring(self, run: Run) -> Ring:
        """Returns what the replay of a seed holds."""
        memory, num_steps = self._worker.replay, self.config.rollout.num_steps
        cursor, size = (
            int(leaf.addressable_data(0)[0]) for leaf in (memory.cursor, memory.size)
        )
        return Ring(
            collects=run.collects,
            held=size // num_steps,
            num_steps=num_steps,
            cursor=cursor,
            length=self.config.replay_length,
        )

    def _collected(self, number: int, start: int) -> Transition:
        """Returns a collect of a seed `[E, n, ...]` of this process's devices."""
        seed = None if len(self._members) == 1 else number
        chunk = replay.cut(self._worker.replay.data, seed, start)
        return jax.tree.map(parallel.to_host, chunk)
