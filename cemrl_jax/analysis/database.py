"""Runs as a database: SQLite beside the folders, which stay the truth.

Many processes may write at once: WAL, a busy timeout, and one statement a change.
"""

import contextlib
import csv
import datetime
import json
import pathlib
import re
import socket
import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np

from cemrl_jax.analysis.load import RunFiles, _is_run, read_columns, read_run
from cemrl_jax.config import ConfigError, nearest
from cemrl_jax.evaluation.cases import Case, ranking_metric
from cemrl_jax.training import storage

FILE = "runs.sqlite"
"""In the folder of all runs, `output_dir`."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY,      -- folder, relative to the database's
  name TEXT, seed INTEGER, status TEXT, started TEXT, ended TEXT,
  host TEXT, device TEXT, engine TEXT, revision TEXT, versions TEXT, config TEXT,
  epoch INTEGER, env_steps INTEGER, updates INTEGER, hours REAL,
  last_return REAL, best_return REAL, note TEXT);
CREATE TABLE IF NOT EXISTS evaluations (
  run TEXT, epoch INTEGER, env_steps INTEGER, updates INTEGER, hours REAL,
  metrics TEXT, PRIMARY KEY (run, epoch));
"""
RUNNING, DONE, FAILED = "running", "done", "failed"
STOPPED, UNKNOWN = "stopped", "unknown"
PATIENCE = 30.0
"""How long a writer waits for the others, s."""


class Database:
    """The runs below a folder."""

    def __init__(self, path: pathlib.Path) -> None:
        """Opens the database at a path; makes it if it is not there."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.executescript(SCHEMA)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout={int(1000 * PATIENCE)}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            yield connection
        finally:
            connection.close()

    def put(self, run: str, **values: Any) -> None:
        """Writes fields of a run, which is added if it is new."""
        names = list(values)
        columns = ", ".join(["id", *names])
        marks = ", ".join("?" * (len(names) + 1))
        updates = ", ".join(f"{name}=excluded.{name}" for name in names)
        conflict = f"DO UPDATE SET {updates}" if names else "DO NOTHING"
        with self._open() as connection:
            connection.execute(
                f"INSERT INTO runs ({columns}) VALUES ({marks})"
                f" ON CONFLICT (id) {conflict}",
                [run, *values.values()],
            )

    def put_evaluation(
        self,
        run: str,
        epoch: int,
        env_steps: float | None,
        updates: float | None,
        hours: float | None,
        metrics: dict[str, float],
    ) -> None:
        """Writes what an evaluation of a run has found."""
        with self._open() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?)",
                [run, epoch, env_steps, updates, hours, json.dumps(metrics)],
            )

    def runs(self) -> list[dict[str, Any]]:
        """Returns all runs, oldest first; `config` and `versions` as objects."""
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM runs ORDER BY started, id")
            found = [dict(row) for row in rows]
        for row in found:
            row["config"] = json.loads(row["config"] or "{}")
            row["versions"] = json.loads(row["versions"] or "{}")
        return found

    def evaluations(self, run: str) -> list[dict[str, Any]]:
        """Returns the evaluations of a run in order."""
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(
                "SELECT * FROM evaluations WHERE run=? ORDER BY epoch", [run]
            )
            found = [dict(row) for row in rows]
        for row in found:
            row["metrics"] = json.loads(row["metrics"])
        return found

    def forget(self, keep: set[str]) -> None:
        """Removes all runs but these and imported ones."""
        with self._open() as connection:
            for (run,) in connection.execute("SELECT id FROM runs").fetchall():
                if run not in keep and not run.startswith(IMPORTED):
                    connection.execute("DELETE FROM runs WHERE id=?", [run])
                    connection.execute("DELETE FROM evaluations WHERE run=?", [run])


IMPORTED = "authors/"
"""How the names of imported runs begin; no folder of ours stands behind them."""


class RunRecord:
    """Writes one run into the database, and never fails: training must go on.

    Use: `started` when the folder is there, `evaluated` with each row of an evaluation,
    `ended` with how it ended.

    Attributes:
      problem: what went wrong first, None if nothing did.
    """

    def __init__(self, directory: pathlib.Path, output_dir: pathlib.Path) -> None:
        """Of the run in a folder, for the database in the folder of all runs."""
        self.problem: str | None = None
        self._database: Database | None = None
        self._run = _identity(directory, output_dir)
        self._rows = directory / "progress.csv"
        self._best, self._hours = float("-inf"), 0.0
        self._metric = ranking_metric({})
        with self._safely():
            self._database = Database(output_dir / FILE)

    def started(
        self,
        config: dict[str, Any],
        provenance: dict[str, Any] | None = None,
        logged_epoch: int = -1,
    ) -> None:
        """Notes the start, or the continuation, of a run.

        Args:
          config: as `config.to_dict` gives it.
          provenance: what run.json holds, as far as it is known.
          logged_epoch: the last one whose row of progress.csv stays, -1 for none.
        """
        about = provenance or {}
        self._metric = ranking_metric(config)
        with self._safely():
            assert self._database is not None
            known = {row["id"]: row for row in self._database.runs()}.get(self._run, {})
            self._hours = _hours(self._rows, logged_epoch)
            if known.get("best_return") is not None:
                self._best = known["best_return"]
            self._database.put(
                self._run,
                name=config.get("name"),
                seed=config.get("seed"),
                status=RUNNING,
                started=known.get("started") or _now(),
                ended=None,
                config=json.dumps(config),
                host=about.get("host") or socket.gethostname(),
                **_provenance(about),
            )

    def evaluated(self, row: dict[str, float], hours: float | None = None) -> None:
        """Notes a row of progress.csv that holds an evaluation; others are passed."""
        value = row.get(self._metric)
        if value is None:
            return
        self._best = max(self._best, float(value))
        with self._safely():
            assert self._database is not None
            steps, updates = row.get("env_steps"), row.get("updates")
            self._database.put_evaluation(
                self._run, int(row["epoch"]), steps, updates, hours, _metrics(row)
            )
            self._database.put(
                self._run,
                epoch=int(row["epoch"]),
                env_steps=steps,
                updates=updates,
                hours=hours,
                last_return=float(value),
                best_return=self._best,
            )

    def row(self, row: dict[str, float]) -> None:
        """See `reporting.loggers.Logger.row`: a row of progress.csv has its seconds."""
        seconds = sum(x for name, x in row.items() if name.startswith("seconds/"))
        self._hours += seconds / 3600
        self.evaluated(row, self._hours)

    def close(self) -> None:
        """See `reporting.loggers.Logger.close`: `ended` says how the run ended."""

    def ended(self, status: str = DONE, note: str = "") -> None:
        """Notes the end: "done", or "failed" or "stopped" with the reason."""
        with self._safely():
            assert self._database is not None
            self._database.put(self._run, status=status, ended=_now(), note=note)

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk, a lock, a folder that is gone
            self.problem = self.problem or f"{type(error).__name__}: {error}"


def _hours(path: pathlib.Path, last_epoch: int) -> float:
    """Returns the time in the phases of a progress.csv up to an epoch, h."""
    if last_epoch < 0 or not path.exists():
        return 0.0
    run = RunFiles(path.parent, columns=read_columns(path))
    kept = run.hours[run.column("epoch") <= last_epoch]
    return float(np.nan_to_num(kept[-1])) if len(kept) else 0.0


def _identity(directory: pathlib.Path, output_dir: pathlib.Path) -> str:
    """Returns the name of a run: its folder below the database's, else the path."""
    path, base = directory.resolve(), output_dir.resolve()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _now() -> str:
    return datetime.datetime.now().isoformat(timespec="seconds")


def _metrics(row: dict[str, float]) -> dict[str, float]:
    names = ("test/", "train/", "extrapolate/", "recovery/", "inference/")
    return {name: float(x) for name, x in row.items() if name.startswith(names)}


def _provenance(about: dict[str, Any]) -> dict[str, Any]:
    revision = about.get("revision") or about.get("git_revision")
    return {
        "device": _text(about.get("device")),
        "engine": _text(about.get("engine")),
        "revision": _text(revision),
        "versions": json.dumps(about.get("versions") or {}),
    }


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def rebuild(folder: pathlib.Path) -> int:
    """Makes the database of a folder from the runs below it; returns how many."""
    database = Database(folder / FILE)
    places = {path.parent for path in folder.rglob("config.json")}
    runs = [read_run(path) for path in sorted(places) if _is_run(path)]
    known = {row["id"]: row for row in database.runs()}
    for run in runs:
        identity = _identity(run.directory, folder)
        database.put(identity, **_fields(run, known.get(identity, {})))
        rows, _ = run.evaluations()
        for row in rows:
            metrics = {
                name: float(column[row])
                for name, column in run.columns.items()
                if np.isfinite(column[row])
            }
            steps, updates = (
                _finite(run.column(name)[row]) for name in ("env_steps", "updates")
            )
            hours = _finite(run.hours[row])
            epoch = int(run.column("epoch")[row])
            database.put_evaluation(
                identity, epoch, steps, updates, hours, _metrics(metrics)
            )
    database.forget({_identity(run.directory, folder) for run in runs})
    return len(runs)


def _fields(run: RunFiles, known: dict[str, Any]) -> dict[str, Any]:
    """Returns what the folder of a run says; times that only the database has stay."""
    done, planned = run.epochs
    finished = planned is not None and done >= planned
    _, values = run.evaluations()
    status = DONE if finished else known.get("status") or UNKNOWN
    failure = {}
    if run.num_rows and storage.failed(run.directory) == done:
        status, failure = FAILED, {"note": known.get("note") or f"epoch {done}"}
    config = run.directory / "config.json"
    changed = datetime.datetime.fromtimestamp(config.stat().st_mtime)
    last = {
        name: _finite(run.column(name)[-1]) if run.num_rows else None
        for name in ("env_steps", "updates")
    }
    return {
        "name": run.name,
        "seed": run.seed,
        "status": status,
        **failure,
        "started": known.get("started")
        or run.provenance.get("started")
        or changed.isoformat(timespec="seconds"),
        "host": known.get("host") or run.provenance.get("host"),
        "config": json.dumps(run.raw),
        "epoch": done,
        **last,
        "hours": _finite(run.hours[-1]) if run.num_rows else None,
        "last_return": float(values[-1]) if len(values) else None,
        "best_return": float(values.max()) if len(values) else None,
        **_provenance(run.provenance),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def import_authors(database: Database, path: pathlib.Path) -> int:
    """Adds runs of the original from a JSON file; returns how many.

    Either the original's `experiment_database.json` (number -> its log, with `name`,
    `env`, `n_timesteps`, `time`, `testAverageReturn`) or a list of its
    logged runs. A run that is there already is written anew.

    Raises:
      ConfigError: it is neither.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if isinstance(data, dict):
        data = data.get("runs") or [
            {"run": name, **entry}
            for name, entry in data.items()
            if isinstance(entry, dict)
        ]
    if not isinstance(data, list) or not data:
        raise ConfigError(f"{path} holds no runs of the original")
    for entry in data:
        _import_run(database, entry, path)
    return len(data)


def _import_run(database: Database, entry: dict[str, Any], path: pathlib.Path) -> None:
    config = entry.get("config") or entry.get("param_log") or {}
    run = entry.get("name") or entry.get("run")
    algorithm = entry.get("algorithm") or entry.get("algo") or "cemrl"
    name = entry.get("env") or config.get("env_name") or "unknown"
    steps = _series(entry, "env_steps", "n_timesteps")
    seconds = _series(entry, "seconds", "time")
    test = _series(entry, "test_return", "testAverageReturn")
    train = _series(entry, "train_return", "trainAverageReturn")
    if not test:
        raise ConfigError(f"{path}: run {run} has no test returns")
    identity = f"{IMPORTED}{name}/{run}"
    hours = [value / 3600 for value in seconds]
    seed = (config.get("algo_params") or {}).get("seed")
    database.put(
        identity,
        name=name,
        seed=seed,
        status=DONE,
        started=entry.get("date") or run,
        config=json.dumps(config),
        epoch=int(entry.get("epochs") or len(test)),
        env_steps=steps[-1] if steps else None,
        hours=hours[-1] if hours else None,
        last_return=test[-1],
        best_return=max(test),
        note=f"original, {algorithm}",
    )
    # The authors let tasks change in evaluation in their direction experiments only.
    protocol = "changing" if "dir" in re.split("[-_]", name) else "fixed"
    metric_of = lambda pool: Case(pool, protocol, "deterministic").metric  # noqa: E731
    for number, value in enumerate(test):
        metrics = {metric_of("test"): value}
        if number < len(train):
            metrics[metric_of("train")] = train[number]
        at = [x[number] if number < len(x) else None for x in (steps, hours)]
        database.put_evaluation(identity, number, at[0], None, at[1], metrics)


def _series(entry: dict[str, Any], *names: str) -> list[float]:
    """Returns the numbers under the first of the names that is there."""
    for name in names:
        values = entry.get(name)
        if isinstance(values, list) and values:
            return [float(value) for value in values]
        if isinstance(values, int | float):
            return [float(values)]
    return []


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns dotted path -> value of a configuration."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def matching(rows: list[dict[str, Any]], filters: list[str]) -> list[dict[str, Any]]:
    """Returns the runs whose fields have given values.

    Args:
      rows: of `Database.runs`.
      filters: `field=value`, a column or a path in the configuration; `env.task` and
        the like compare with the name.

    Raises:
      ConfigError: no run has such a field.
    """
    for text in filters:
        field, separator, wanted = text.partition("=")
        known = {name for row in rows for name in _all_fields(row)}
        if not separator or (rows and field not in known):
            hint = nearest(field, known)
            raise ConfigError(f"filter {text} must be FIELD=VALUE of a run{hint}")
        rows = [row for row in rows if _same(_all_fields(row).get(field), wanted)]
    return rows


def _all_fields(row: dict[str, Any]) -> dict[str, Any]:
    config = flat(row["config"])
    names = {
        path.removesuffix(".name"): config[path]
        for path in config
        if path.endswith(".name")
    }
    own = {name: value for name, value in row.items() if name not in ("config",)}
    return config | names | own


def _same(value: Any, wanted: str) -> bool:
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return str(value) == wanted


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns the paths at which two configurations differ, with both values."""
    first, second = flat(a), flat(b)
    paths = dict.fromkeys([*first, *second])
    return [
        (path, first.get(path), second.get(path))
        for path in paths
        if first.get(path) != second.get(path)
    ]


def records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns runs with one column per field of the configuration, for pandas."""
    return [
        {name: value for name, value in row.items() if name != "config"}
        | {f"config.{path}": value for path, value in flat(row["config"]).items()}
        for row in rows
    ]


def export(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes runs as a CSV file with a column for each field."""
    lines = records(rows)
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)
