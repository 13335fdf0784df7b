"""What a run saves: checkpoints of epochs, where it was stopped, its experience.

checkpoints/<epoch>/   learner and state after an epoch
interrupted/<clock>/   the same between two phases, where a signal stopped the run
failed/<epoch>/        weights only, at which the numbers of a run were not finite
failed/breakdown.npz   what the newest step that broke an environment began with
replay/                the experience, see `journal`; states say which of it counts
*.discarded/           what a start was killed in deleting; the next one ends it
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from cemrl_jax.data.types import Transition
from cemrl_jax.runtime import parallel
from cemrl_jax.training.checkpoint import CheckpointError, Checkpoints
from cemrl_jax.training.journal import Journal

CHECKPOINTS, INTERRUPTED, REPLAY = "checkpoints", "interrupted", "replay"
FAILED, BREAKDOWN_FILE = "failed", "breakdown.npz"
DISCARDED = "discarded"


@dataclasses.dataclass(frozen=True)
class Ring:
    """Which collects a replay holds, and where; counts are per environment.

    Attributes:
      collects: collects so far; the newest has the number `collects - 1`.
      held: collects that the replay holds.
      num_steps: transitions of a collect.
      cursor: where the next transition goes.
      length: transitions that there is room for.
    """

    collects: int
    held: int
    num_steps: int
    cursor: int
    length: int

    @property
    def numbers(self) -> range:
        """The collects that it holds, oldest first."""
        return range(self.collects - self.held, self.collects)

    def start(self, collect: int) -> int:
        """Returns where a collect begins."""
        return (self.cursor - (self.collects - collect) * self.num_steps) % self.length


def complete(directory: pathlib.Path) -> list[int]:
    """Returns the numbers of the complete checkpoints in a folder, oldest first."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def discard(directory: pathlib.Path, *names: str) -> None:
    """Deletes a folder of a run; half of it is never left under its name.

    Args:
      directory: of the run.
      names: of the folder, and of those that it is in.
    """
    folder = directory.joinpath(*names)
    aside = directory / ".".join((*names, DISCARDED))
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


class Storage:
    """What one run saves. Use as a context, which waits for what is being written."""

    def __init__(
        self, directory: pathlib.Path, keep: int = 1, next_collect: int = 0
    ) -> None:
        """Opens the folder of a run for writing.

        Args:
          directory: the folder.
          keep: number of latest checkpoints to keep, the best one apart.
          next_collect: collects whose experience is on disk already.
        """
        self._directory = directory
        self._next_collect = next_collect
        self._epochs = Checkpoints(directory / CHECKPOINTS, keep)
        self._journal = Journal(directory / REPLAY)
        if parallel.is_first_process():
            self._journal.sweep(next_collect)
            for aside in directory.glob(f"*.{DISCARDED}"):
                shutil.rmtree(aside, ignore_errors=True)
        self._states: dict[pathlib.Path, dict[str, Any]] = {}

    def __enter__(self) -> "Storage":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for what is being written; an earlier failure is not covered up."""
        self._epochs.__exit__(*exception)

    def save(
        self,
        number: int,
        learner: Any,
        state: dict[str, Any],
        ring: Ring | None,
        rows: Callable[[int], Transition],
        value: float | None,
    ) -> None:
        """Writes a checkpoint, and the experience that is not on disk yet.

        Args:
          number: the epoch, or the run's clock where it is interrupted.
          learner: what is learnt.
          state: where the run is, as JSON has it.
          ring: what the replay holds; None to save weights only.
          rows: returns what this process's devices hold, `[E, n, ...]` on the host, at
            a place of the ring.
          value: what the best checkpoint is best at; None where the run is interrupted,
            which waits until everything is on disk.

        Raises:
          CheckpointError: this or an earlier one could not be written.
        """
        self.wait()
        if ring is not None:
            for collect in ring.numbers:
                if collect >= self._next_collect:
                    self._journal.write(collect, rows(ring.start(collect)))
            self._next_collect = ring.collects
        state = state | {"ring": ring and dataclasses.asdict(ring)}
        if value is not None:
            self._epochs.save(number, learner, state, value)
            return
        folder = self._directory / INTERRUPTED
        with Checkpoints(folder, keep_best=False) as interrupted:
            interrupted.save(number, learner, state, 0.0)
            interrupted.wait()

    @property
    def newest_epoch(self) -> int | None:
        """The number of the newest checkpoint, being written included, if any."""
        return max(self._epochs.epochs(), default=None)

    def is_best(self, value: float) -> bool:
        """Returns whether no checkpoint has a value as high as this."""
        return self._epochs.is_best(value)

    def wait(self) -> None:
        """Waits until everything is written, and deletes what is not needed any more.

        Raises:
          CheckpointError: something could not be written.
        """
        self._epochs.wait()
        if parallel.is_first_process():
            self._delete_old()

    def _delete_old(self) -> None:
        """Deletes a stop that was left behind, and experience of no checkpoint."""
        try:
            epochs = self._saved(CHECKPOINTS)
            newest = max((state["clock"] for state in epochs), default=-1)
            # Half of a stop may have been deleted: its number says enough.
            if max(complete(self._directory / INTERRUPTED), default=newest) < newest:
                with contextlib.suppress(OSError):
                    discard(self._directory, INTERRUPTED)
            stops = self._saved(INTERRUPTED)
        except CheckpointError:
            return  # who repairs or removes the damaged one may need any of it
        rings = [Ring(**s["ring"]) for s in (*epochs, *stops) if s["ring"]]
        needed = {number for ring in rings for number in ring.numbers}
        self._journal.keep(needed, before=self._next_collect)

    def _saved(self, name: str) -> list[dict[str, Any]]:
        """Returns the states of the complete checkpoints in a folder."""
        folder = self._directory / name
        paths = [folder / str(number) for number in complete(folder)]
        new = [path for path in paths if path not in self._states]
        if new:
            with Checkpoints(folder, read_only=True) as saved:
                self._states |= {path: saved.state(int(path.name)) for path in new}
        return [self._states[path] for path in paths]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that a run can go on from.

    Attributes:
      folder: of such checkpoints.
      number: its number there.
      state: where the run was.
    """

    folder: pathlib.Path
    number: int
    state: dict[str, Any]

    @property
    def clock(self) -> int:
        """Phases done since the start."""
        return self.state["clock"]

    def forget(self) -> None:
        """Deletes it, for a run that goes on from an earlier one."""
        discard(self.folder.parent, self.folder.name, str(self.number))

    def learner(self, like: Any) -> Any:
        """Returns the learner on one device, see `Checkpoints.learner`."""
        with Checkpoints(self.folder, read_only=True) as saved:
            return saved.learner(self.number, like)


def saved(directory: pathlib.Path) -> list[Saved]:
    """Returns the points that a run can go on from, oldest first.

    One that cannot be read is left out where there is a newer one: a kill may have left
    half of what was being deleted.

    Raises:
      CheckpointError: the newest is damaged, or of an earlier version.
    """
    folder, stops = directory / CHECKPOINTS, directory / INTERRUPTED
    epochs = _read(folder, complete(folder))
    found = epochs + _read(stops, complete(stops), _clock(epochs))
    return sorted(found, key=lambda point: point.clock)


def newest(directory: pathlib.Path) -> Saved | None:
    """Returns where a run stands on disk; None if it has not saved anything yet.

    Raises:
      CheckpointError: the newest checkpoint is damaged, or of an earlier version.
    """
    folder, stops = directory / CHECKPOINTS, directory / INTERRUPTED
    epochs = _read(folder, complete(folder)[-1:])
    found = epochs + _read(stops, complete(stops)[-1:], _clock(epochs))
    return max(found, key=lambda point: point.clock, default=None)


def _clock(points: list[Saved]) -> int:
    return max((point.clock for point in points), default=-1)


def _read(folder: pathlib.Path, numbers: list[int], known: int = -1) -> list[Saved]:
    """Returns what can be read of a folder's checkpoints of these numbers.

    Raises:
      CheckpointError: the last of them cannot be, and its number is above `known`.
    """
    found = []
    if not numbers:
        return found
    with Checkpoints(folder, read_only=True) as all_:
        for number in numbers:
            try:
                found.append(Saved(folder, number, all_.state(number)))
            except CheckpointError:
                if number == numbers[-1] and number > known:
                    raise
    return found


def is_empty(directory: pathlib.Path) -> bool:
    """Returns whether a run has not saved anything."""
    names = (CHECKPOINTS, INTERRUPTED, FAILED)
    return not any(complete(directory / name) for name in names)


def failed(directory: pathlib.Path) -> int | None:
    """Returns the epoch at which a run's numbers were not finite; None if they are."""
    epochs = complete(directory / FAILED)
    good = complete(directory / CHECKPOINTS)
    return epochs[-1] if epochs and epochs[-1] > max(good, default=-1) else None


def read_collect(directory: pathlib.Path, collect: int, like: Transition) -> Transition:
    """Returns the experience of a collect of all devices on the host, `[E, n, ...]`.

    Args:
      directory: of the run.
      collect: its number.
      like: one transition, for the structure and the dtypes.

    Raises:
      CheckpointError: some of it is missing or damaged.
    """
    return Journal(directory / REPLAY).read(collect, like)
