"""What a run tells: a CSV file, TensorBoard events, and a display."""

import csv
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bar,
)
from tensorboardX import SummaryWriter

from cemrl_jax.reporting.loggers import Logger, Row

COMPILE_SECONDS = "compile.json"
"""In a run's folder: program -> seconds that compiling it took, at its last start."""


class CsvLog:
    """A CSV file with a header that grows when a row brings new columns.

    Numbers are written with all their digits.
    """

    def __init__(self, path: pathlib.Path, keep_epochs: int | None = None) -> None:
        """Opens a file, new or to be continued.

        Args:
          path: the file.
          keep_epochs: drop existing rows of later epochs, which a resumed run will
            write again; None starts a new file.
        """
        self._path = path
        self._rows: list[dict[str, str]] = []
        self._columns: list[str] = []
        if keep_epochs is not None and path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or [])
                self._rows = [row for row in reader if int(row["epoch"]) <= keep_epochs]

    @property
    def last_step(self) -> int | None:
        """Environment steps at the last row, None if there is none."""
        return int(self._rows[-1]["env_steps"]) if self._rows else None

    def write(self, row: Row) -> None:
        """Adds a row; the file is complete when this returns."""
        self._columns += [name for name in row if name not in self._columns]
        self._rows.append({name: repr(value) for name, value in row.items()})
        partial = self._path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        partial.replace(self._path)


class Display(Protocol):
    """Shows a person how far the run is."""

    def phase(self, name: str) -> None:
        """Says what the run is doing now."""
        ...

    def row(self, row: Row, eta: float) -> None:
        """Shows a finished epoch and the seconds that are left."""
        ...

    def close(self) -> None:
        """Ends the display."""
        ...


class PlainDisplay:
    """One line per epoch, for files and pipes."""

    def __init__(self, num_epochs: int) -> None:
        """Of a run of so many epochs."""
        self._num_epochs = num_epochs

    def phase(self, name: str) -> None:
        """Says only what takes long: compiling."""
        if name.startswith("compiling"):
            print(name, flush=True)

    def row(self, row: Row, eta: float) -> None:
        """Prints the epoch."""
        epoch = f"epoch {row['epoch']:.0f}/{self._num_epochs}"
        print(f"{epoch}  {summary(row)}  eta {clock(eta)}", flush=True)

    def close(self) -> None:
        """Nothing to end."""


class TerminalDisplay:
    """A live line: epoch, phase, return, rates, time left."""

    def __init__(self, num_epochs: int, done: int) -> None:
        """Of a run of `num_epochs`, of which some are done."""
        self._bar = Bar(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[bold]{task.fields[phase]:<18}"),
            TextColumn("{task.fields[summary]}"),
            TextColumn("eta {task.fields[eta]}"),
            TimeElapsedColumn(),
            console=Console(),
        )
        self._task = self._bar.add_task(
            "", total=num_epochs, completed=done, phase="", summary="", eta="-"
        )
        self._last_return = float("nan")
        self._bar.start()

    def phase(self, name: str) -> None:
        """Shows the phase."""
        self._bar.update(self._task, phase=name)

    def row(self, row: Row, eta: float) -> None:
        """Advances the bar."""
        self._bar.update(
            self._task, completed=row["epoch"], summary=summary(row), eta=clock(eta)
        )

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._bar.stop()


class NoDisplay:
    """Shows nothing."""

    def phase(self, name: str) -> None:
        """See `Display.phase`."""

    def row(self, row: Row, eta: float) -> None:
        """See `Display.row`."""

    def close(self) -> None:
        """See `Display.close`."""


class Progress:
    """Takes the rows of a run and passes them on. Use as a context."""

    def __init__(
        self,
        directory: pathlib.Path | None,
        num_epochs: int,
        *,
        resumed_epoch: int | None = None,
        tensorboard: bool = True,
        show: bool = True,
        loggers: Sequence[Logger] = (),
    ) -> None:
        """Starts the display and opens the files.

        Args:
          directory: of the run; None in a process that leaves writing to another.
          num_epochs: of the run.
          resumed_epoch: the last epoch whose row an earlier part of the run keeps, -1
            for none; None in a run that begins.
          tensorboard: write events.
          show: display the progress; of seeds that train together one does.
          loggers: get every row too, and are closed at the end.
        """
        self._directory, self._loggers = directory, loggers
        done = max(resumed_epoch or 0, 0)
        self._csv = self._writer = None
        if directory:
            self._csv = CsvLog(directory / "progress.csv", resumed_epoch)
            self._writer = self._events(directory) if tensorboard else None
        self._num_epochs, self._first = num_epochs, done
        self._start = time.perf_counter()
        self._display: Display = _display(num_epochs, done) if show else NoDisplay()

    def _events(self, directory: pathlib.Path) -> SummaryWriter:
        """Opens a file of events that takes the place of those after the last row."""
        last = self._csv.last_step if self._csv else None
        return SummaryWriter(
            str(directory), purge_step=None if last is None else last + 1
        )

    def __enter__(self) -> "Progress":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the display and closes the files."""
        self._display.close()
        if self._writer is not None:
            self._writer.close()
        for logger in self._loggers:
            logger.close()

    def phase(self, name: str) -> None:
        """Says what the run is doing now."""
        self._display.phase(name)

    def compiling(self, program: str) -> None:
        """Says which program is being compiled."""
        self.phase(f"compiling {program}")

    def warn(self, text: str) -> None:
        """Says what went wrong without ending the run."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def compiled(self, seconds: dict[str, float]) -> None:
        """Reports the compile time of each program; the clock of the epochs starts."""
        parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"compiled in {sum(seconds.values()):.1f} s ({parts})", flush=True)
        if self._directory is not None:
            text = json.dumps(seconds, indent=2) + "\n"
            (self._directory / COMPILE_SECONDS).write_text(text)
        if self._writer is not None:
            for name, value in seconds.items():
                self._writer.add_scalar(f"compile_seconds/{name}", value, self._first)
        self._start = time.perf_counter()

    def row(self, row: Row, shown: Row | None = None) -> None:
        """Records a finished epoch; the display may show another row for it."""
        if self._csv is not None:
            self._csv.write(row)
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, int(row["env_steps"]))
            self._writer.flush()
        for logger in self._loggers:
            logger.row(row)
        self.show(shown or row)

    def show(self, row: Row) -> None:
        """Shows a finished epoch without recording it."""
        done = row["epoch"] - self._first
        elapsed = time.perf_counter() - self._start
        left = self._num_epochs - row["epoch"]
        eta = elapsed / done * left if done else float("nan")
        self._display.row(row, eta)


def _display(num_epochs: int, done: int) -> Display:
    live = Console().is_terminal
    return TerminalDisplay(num_epochs, done) if live else PlainDisplay(num_epochs)


def summary(row: Row) -> str:
    """Returns the numbers of an epoch that a person looks at."""
    parts = [f"{row['env_steps']:,.0f} steps"]
    names = {
        "test/fixed_deterministic_return": ("test return", "{:.1f}"),
        "test/changing_deterministic_return": ("changing", "{:.1f}"),
        "collect/return": ("return", "{:.1f}"),
        "speed/env_steps_per_second": ("env-steps/s", "{:,.0f}"),
        "speed/updates_per_second": ("updates/s", "{:,.0f}"),
    }
    parts += [
        f"{label} {form.format(row[name])}"
        for name, (label, form) in names.items()
        if name in row
    ]
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Returns a duration as h:mm:ss, `-` if it is not known."""
    if seconds != seconds:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
