"""The host loop: runs the phases of an epoch, evaluates, logs, saves."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.data import replay
from cemrl_jax.data.types import Metrics, Transition
from cemrl_jax.evaluation.evaluate import HEADLINE, evaluation_pools, make_evaluate
from cemrl_jax.reporting.progress import Progress, Row
from cemrl_jax.runtime import parallel
from cemrl_jax.runtime.programs import Program
from cemrl_jax.training.run import Keys, Run
from cemrl_jax.training.signals import StopRequest
from cemrl_jax.training.storage import Ring, Storage


@dataclasses.dataclass
class Member:
    """One seed of a group that trains together: its run and where it writes."""

    run: Run
    progress: Progress
    storage: Storage


def train(
    run: Run, progress: Progress, storage: Storage, stop: StopRequest | None = None
) -> int:
    """Runs the epochs that are left of one run; see `train_together`."""
    return train_together([Member(run, progress, storage)], stop=stop)


def train_together(
    members: Sequence[Member],
    profile_dir: pathlib.Path | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Runs the epochs that are left of runs that differ in their seed only.

    All of them advance in the same programs, each with its own learner, replay, tasks
    and random numbers, and each as it would alone up to the rounding of float32.

    Args:
      members: the runs, at the same phase of the same epoch; advanced in place.
      profile_dir: where to write what `jax.profiler` sees of the first of these epochs.
      stop: asked between two phases; the state there is then saved.

    Returns:
      Why it stopped, see `StopRequest.reason`; 0 if all epochs are done.
    """
    stop = stop or StopRequest()
    group = Group(members)
    group.compile()
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
        self._rows: list[Row] = [dict(run.row) for run in runs]
        self._saved_clock = runs[0].clock
        self._pools = _stack([evaluation_pools(run.pools) for run in runs], 0)
        self._evaluation_keys = jnp.stack(
            [Keys.of(run.config.seed).evaluation for run in runs]
        )

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
        phases = list(self.programs) if self.begun else initial
        return phases[self._members[0].run.phase :]

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

    def run_phase(self, name: str) -> None:
        """Runs a phase and adds its metrics and seconds to the rows."""
        self._members[0].progress.phase(name)
        rows = self._rows
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
        for row, member in zip(rows, self._members):
            row |= speed
            member.run.phase += 1
            member.run.clock += 1

    def finish_epoch(self) -> None:
        """Counts the epoch, evaluates and saves where it is due, writes the rows."""
        rows = self._rows
        self._advance()
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
        self._rows = [{} for _ in self._members]
        if save:
            self._members[0].progress.phase("save")
            self._save([row[HEADLINE] for row in rows])

    def save_where_stopped(self) -> None:
        """Saves between two phases, unless the state on disk is the same."""
        if self._members[0].run.clock > self._saved_clock:
            self._members[0].progress.phase("save")
            self._save([None] * len(self._members))

    def _advance(self) -> None:
        """Counts the epoch whose phases are done."""
        for member in self._members:
            run = member.run
            run.epoch += run.begun
            run.begun, run.phase, run.clock = True, 0, run.clock + 1

    def _save(self, test_returns: Sequence[float | None]) -> None:
        """Saves each seed; None for a test return where the run is interrupted."""
        parallel.assert_replicated(self._learner)
        self._saved_clock = self._members[0].run.clock
        for number, (member, test_return) in enumerate(
            zip(self._members, test_returns)
        ):
            member.run.row = self._rows[number]
            keys = jax.random.key_data(self._worker.key[:, number])
            state = member.run.position() | {"keys": parallel.all_rows(keys).tolist()}
            member.storage.save(
                member.run.clock if test_return is None else member.run.epoch,
                _part(self._learner, number, 0),
                state,
                self._ring(number) if self.config.checkpoint.replay else None,
                functools.partial(self._collected, number),
                test_return,
            )

    def _ring(self, number: int) -> Ring:
        """Returns what the replay of a seed holds."""
        memory, num_steps = self._worker.replay, self.config.rollout.num_steps
        cursor, size = (
            int(leaf.addressable_data(0)[0, number])
            for leaf in (memory.cursor, memory.size)
        )
        return Ring(
            collects=self._members[number].run.collects,
            held=size // num_steps,
            num_steps=num_steps,
            cursor=cursor,
            length=self.config.replay_length,
        )

    def _collected(self, number: int, start: int) -> Transition:
        """Returns a collect of a seed `[E, n, ...]` of this process's devices."""
        steps = self.config.rollout.num_steps
        chunk = replay.cut(self._worker.replay.data, number, start, steps)
        return jax.tree.map(parallel.to_host, chunk)

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
