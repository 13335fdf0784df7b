"""Loggers of others: Weights & Biases, MLflow. They may fail; training goes on."""

import importlib.util
import os
import pathlib
import queue
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cemrl_jax import config as config_lib
from cemrl_jax.config import Config, ConfigError

Row = dict[str, float]
PATIENCE = 30.0
"""How long the end of a run waits for what is still to be sent, s."""


class Logger(Protocol):
    """Takes the rows of a run."""

    def row(self, row: Row) -> None:
        """Takes a row of progress.csv."""
        ...

    def close(self) -> None:
        """Ends."""
        ...


class WandbLog:
    """A run of Weights & Biases, under an id that follows from the run's folder."""

    def __init__(self, config: Config, directory: pathlib.Path) -> None:
        """Starts the run, or continues it."""
        import wandb

        self._run = wandb.init(
            project=config.logging.project,
            id=identity(directory),
            name=f"{directory.parent.name}/{directory.name}",
            group=config.name,
            dir=str(directory),
            config=config_lib.to_dict(config),
            resume="allow",
        )

    def row(self, row: Row) -> None:
        """See `Logger.row`: the step is the epoch."""
        self._run.log(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        """See `Logger.close`."""
        self._run.finish()


class MlflowLog:
    """A run of MLflow, found again by a tag."""

    def __init__(self, config: Config, directory: pathlib.Path) -> None:
        """Starts the run, or continues it."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # Without a server the newest versions want to be asked for files.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (pathlib.Path(config.output_dir).absolute() / "mlruns").as_uri()
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=uri)
        project = self._client.get_experiment_by_name(config.logging.project)
        where = (
            project.experiment_id
            if project
            else self._client.create_experiment(config.logging.project)
        )
        tag = identity(directory)
        found = self._client.search_runs([where], f"tags.cemrl_run = '{tag}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        name = f"{directory.parent.name}/{directory.name}"
        tags = {"cemrl_run": tag, "mlflow.runName": name}
        self._id = self._client.create_run(where, tags=tags).info.run_id
        fields = config_lib.field_paths(config)
        params = [
            Param(path, str(config_lib.get_field(config, path))) for path in fields
        ]
        self._client.log_batch(self._id, params=params)

    def row(self, row: Row) -> None:
        """See `Logger.row`: the step is the epoch."""
        step = int(row["epoch"])
        metrics = [self._metric(name, float(x), 0, step) for name, x in row.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        """See `Logger.close`."""
        self._client.set_terminated(self._id)


class Background:
    """Runs a logger in a thread of its own: nobody waits for it, or dies of it.

    Attributes:
      problem: what went wrong first, None if nothing did.
    """

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        """Starts a thread that makes the logger and feeds it."""
        self._name, self._make = name, make
        self._rows: queue.Queue[Row | None] = queue.Queue()
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    def row(self, row: Row) -> None:
        """See `Logger.row`: returns at once."""
        self._rows.put(dict(row))

    def close(self) -> None:
        """See `Logger.close`: waits for a while, not for ever."""
        self._rows.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._say(f"did not finish within {PATIENCE:.0f} s")

    def _work(self) -> None:
        try:
            logger = self._make()
            while (row := self._rows.get()) is not None:
                logger.row(row)
            logger.close()
        except BaseException as error:  # wandb raises SystemExit where it is not set up
            self._say(f"{type(error).__name__}: {error}".split("\n")[0])

    def _say(self, problem: str) -> None:
        self.problem = self.problem or problem
        print(f"{self._name}: {problem}; the run goes on without it", file=sys.stderr)


KINDS: dict[str, tuple[str, Callable[[Config, pathlib.Path], Logger]]] = {
    "wandb": ("wandb", WandbLog),
    "mlflow": ("mlflow", MlflowLog),
}
"""Field of `config.logging` -> the package that it needs, and what it makes."""


def check(config: Config) -> list[str]:
    """Returns the names of the loggers that a configuration asks for.

    Raises:
      ConfigError: the package of one is missing.
    """
    wanted = [name for name in KINDS if getattr(config.logging, name)]
    for name in wanted:
        if importlib.util.find_spec(KINDS[name][0]) is None:
            raise ConfigError(
                f"logging.{name}=True needs a package: pip install -e '.[{name}]'"
            )
    return wanted


def make(config: Config, directory: pathlib.Path) -> Sequence[Background]:
    """Returns the loggers that a configuration asks for, each in its thread.

    Raises:
      ConfigError: the package of one is missing.
    """
    return [_background(name, config, directory) for name in check(config)]


def _background(name: str, config: Config, directory: pathlib.Path) -> Background:
    make: Any = KINDS[name][1]
    return Background(name, lambda: make(config, directory.absolute()))


def identity(directory: pathlib.Path) -> str:
    """Returns the id of a run, the same whenever it is continued."""
    text = f"{directory.parent.name}-{directory.name}"
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)[-64:]
