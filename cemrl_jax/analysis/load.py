"""Everything that is read from the folder of a run. What is missing gets a name."""

import csv
import dataclasses
import functools
import importlib
import json
import pathlib
import re
from typing import Any

import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import task_pools
from cemrl_jax.envs import Task
from cemrl_jax.evaluation.cases import ranking_metric
from cemrl_jax.reporting.progress import COMPILE_SECONDS
from cemrl_jax.runtime import provenance as runtime_provenance

AUTHOR_CURVES = pathlib.Path(__file__).parent / "assets" / "author_curves.json"
"""Preset -> the authors' runs: `env_steps`, `hours`, `test_return`, `train_return`."""
PROVENANCE = "run.json"


@dataclasses.dataclass
class RunFiles:
    """What the folder of a run holds.

    Attributes:
      directory: the folder.
      config: its configuration, None if it cannot be read.
      raw: the same as plain data, `{}` if it cannot be read.
      columns: of progress.csv, `[rows]` float64 each, NaN where a row has nothing.
      pools: its tasks by pool, `{}` if they are not stored.
      checkpoints: epochs that have one, oldest first.
      provenance: what run.json says, `{}` without one.
      missing: what is not there or cannot be read, in words.
    """

    directory: pathlib.Path
    config: Config | None = None
    raw: dict[str, Any] = dataclasses.field(default_factory=dict)
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pools: dict[str, Task] = dataclasses.field(default_factory=dict)
    checkpoints: list[int] = dataclasses.field(default_factory=list)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """What is learnt."""
        return str(self.raw.get("name") or self.directory.parent.name)

    @property
    def seed(self) -> int | None:
        """Of everything random."""
        return self.raw.get("seed")

    @property
    def label(self) -> str:
        """A short name of the run."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    @property
    def epochs(self) -> tuple[int, int | None]:
        """Epochs done and planned."""
        done = self.column("epoch")
        planned = self.raw.get("train", {}).get("num_epochs")
        return (int(done[-1]) if len(done) else 0), planned

    def column(self, name: str) -> np.ndarray:
        """Returns a column `[rows]`, of nothing where there is none."""
        return self.columns.get(name, np.full(self.num_rows, np.nan))

    @property
    def num_rows(self) -> int:
        """Rows of progress.csv."""
        return len(next(iter(self.columns.values()), ()))

    @property
    def hours(self) -> np.ndarray:
        """Time `[rows]` in phases since the start, without compilation, h."""
        spent = [x for name, x in self.columns.items() if name.startswith("seconds/")]
        if not spent:
            return np.full(self.num_rows, np.nan)
        return np.cumsum(np.nansum(spent, 0)) / 3600

    def evaluations(self, metric: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns which rows have a metric and its values there.

        Args:
          metric: a column of progress.csv; None for the one that the run is ranked by.
        """
        values = self.column(metric or ranking_metric(self.raw))
        rows = np.flatnonzero(np.isfinite(values))
        return rows, values[rows]


def read_run(directory: pathlib.Path) -> RunFiles:
    """Reads a run's folder; never fails on what it holds."""
    run = RunFiles(directory)
    _read_config(run)
    try:
        run.columns = read_columns(directory / "progress.csv")
        if not run.num_rows:
            run.missing.append("progress.csv has no rows: the run ended at once")
    except (OSError, ValueError) as error:
        run.missing.append(f"progress.csv: {_why(error)}")
    if (directory / task_pools.FILE).exists():
        try:
            run.pools = task_pools.load(directory)
        except Exception as error:  # a damaged archive raises many kinds
            run.missing.append(f"{task_pools.FILE} cannot be read: {_why(error)}")
    else:
        run.missing.append(f"{task_pools.FILE}: tasks are drawn from the seed again")
    folder = directory / "checkpoints"
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    run.checkpoints = sorted(int(name) for name in names if name.isdigit())
    if not run.checkpoints and not (directory / "weights.npz").exists():
        run.missing.append("no checkpoint: nothing of the policy can be shown")
    run.provenance = provenance(directory)
    if not run.provenance:
        run.missing.append(f"{PROVENANCE}: revision, versions and device are not known")
    done, planned = run.epochs
    if planned and done < planned:
        run.missing.append(f"ended after {done} of {planned} epochs")
    return run


def provenance(directory: pathlib.Path) -> dict[str, Any]:
    """Returns where the last start of a run came from, `{}` if it is not known."""
    starts = runtime_provenance.read(directory)
    if not starts:
        return {}
    last = starts[-1]
    names = {"host": "hostname", "device": "device_kind"}
    return last | {name: last.get(other) for name, other in names.items()}


def _read_config(run: RunFiles) -> None:
    try:
        run.raw = config_lib.read_json(run.directory / "config.json")
        run.config = config_lib.load(run.directory / "config.json")
    except ConfigError as error:
        run.missing.append(f"configuration: {error}")
    except Exception as error:  # of a preset's own classes, which may be gone
        run.missing.append(f"configuration: {_why(error)}")


def read_columns(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the columns of a CSV file of numbers; a broken last row is left out."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if None not in row.values()]
        names = list(reader.fieldnames or [])
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return str(text or type(error).__name__).lower()


def find_runs(paths: list[pathlib.Path]) -> list[RunFiles]:
    """Returns the runs in folders, themselves or anywhere below them.

    Raises:
      ConfigError: a folder holds none.
    """
    found: dict[pathlib.Path, RunFiles] = {}
    for path in paths:
        folders = [path] if _is_run(path) else _runs_below(path)
        if not folders:
            raise ConfigError(f"{path}: no run there (no config.json)")
        found |= {folder.resolve(): read_run(folder) for folder in folders}
    return list(found.values())


def _is_run(path: pathlib.Path) -> bool:
    names = ("config.json", "progress.csv", "checkpoints")
    return any((path / name).exists() for name in names)


def _runs_below(path: pathlib.Path) -> list[pathlib.Path]:
    configs = (*path.rglob("config.json"), *path.rglob("progress.csv"))
    return sorted({file.parent for file in configs})


def grouped(runs: list[RunFiles]) -> dict[str, list[RunFiles]]:
    """Returns title -> runs that differ in nothing but their seed."""
    groups: dict[str, list[RunFiles]] = {}
    for run in runs:
        same = {key: value for key, value in run.raw.items() if key not in OWN}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    titles: dict[str, list[RunFiles]] = {}
    for members in groups.values():
        title, count = members[0].name, 2
        while title in titles:
            title, count = f"{members[0].name} ({count})", count + 1
        titles[title] = sorted(members, key=lambda run: (run.seed or 0, run.label))
    return titles


OWN = ("seed", "num_seeds", "output_dir", "tensorboard", "logging")
"""Fields in which runs of one group may differ."""


def missing_seeds(runs: list[RunFiles]) -> list[str]:
    """Returns a note for each seed that a group seems to lack.

    Where more are missing than are there, seeds were not counted up: nothing is.
    """
    seeds = {run.seed for run in runs if run.seed is not None}
    if not seeds or max(seeds) - min(seeds) + 1 > 2 * len(seeds):
        return []
    return [
        f"seed {seed} is missing between {min(seeds)} and {max(seeds)}"
        for seed in range(min(seeds), max(seeds))
        if seed not in seeds
    ]


@functools.cache
def author_curves() -> dict[str, list[dict[str, Any]]]:
    """Returns preset -> the authors' logged runs of its experiment."""
    return json.loads(AUTHOR_CURVES.read_text())


def preset_of(run: RunFiles) -> str | None:
    """Returns the preset of the original's experiment that a run is of, if any.

    Robot, tasks, schedule and the episode's length must be the same; of several such
    the one with as many classes, on which windows agree in the same way.
    """
    if not run.raw:
        return None
    key, classes = _key(run.raw), _classes(run.raw)
    found = {
        name: own == classes
        for name, (other, own) in _presets().items()
        if other == key
    }
    return max(found, key=found.__getitem__, default=None)


@functools.cache
def _presets() -> dict[str, tuple[str, tuple[Any, Any]]]:
    """Returns the authors' presets: name -> its `_key` and its `_classes`."""
    found = {}
    for name in author_curves():
        module = importlib.import_module(f"cemrl_jax.configs.{name}")
        raw = json.loads(json.dumps(config_lib.to_dict(module.get_config())))
        found[name] = _key(raw), _classes(raw)
    return found


def _classes(raw: dict[str, Any]) -> tuple[Any, Any]:
    encoder = raw.get("encoder", {})
    return encoder.get("num_classes"), encoder.get("merge")


def _key(raw: dict[str, Any]) -> str:
    env = raw.get("env", {})
    parts = [
        env.get("task"),
        env.get("schedule"),
        raw.get("rollout", {}).get("num_steps"),
    ]
    robot = {"name": (env.get("robot") or {}).get("name")}
    return json.dumps([re.sub(r"\W", "", str(robot)), parts], sort_keys=True)


def compile_seconds(run: RunFiles) -> dict[str, float]:
    """Returns program -> seconds that compiling it took, `{}` if not written."""
    try:
        data = json.loads((run.directory / COMPILE_SECONDS).read_text())
        return {str(name): float(value) for name, value in data.items()}
    except (OSError, ValueError, AttributeError):
        return {}
