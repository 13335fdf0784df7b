"""Weights & Biases and MLflow, without a network; and loggers that fail."""

import time

import pytest
from helpers import tiny_config

from cemrl_jax.commands import train
from cemrl_jax.config import ConfigError
from cemrl_jax.reporting import loggers
from cemrl_jax.reporting.progress import COMPILE_SECONDS, Progress

ROWS = [{"epoch": 1, "env_steps": 10, "test/x": -2.0}, {"epoch": 2, "test/x": -1.0}]


class Failing:
    """Takes one row, then fails."""

    def row(self, row):
        if row["epoch"] == 2:
            raise RuntimeError("the server is gone")

    def close(self):
        raise AssertionError("never reached")


def test_a_logger_that_fails_does_not_stop_training(tmp_path, capfd):
    failing = loggers.Background("wandb", Failing)
    never = loggers.Background("mlflow", lambda: [][0])
    with Progress(tmp_path, 3, tensorboard=False, loggers=[failing, never]) as progress:
        progress.compiled({"train": 1.5})
        for epoch in (1, 2, 3):
            progress.row({"epoch": epoch, "env_steps": 10})
    assert (failing.problem, never.problem) == (
        "RuntimeError: the server is gone",
        "IndexError: list index out of range",
    )
    assert "the run goes on without it" in capfd.readouterr().err
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 4
    assert '"train": 1.5' in (tmp_path / COMPILE_SECONDS).read_text()


class Slow(Failing):
    """Hangs."""

    def row(self, row):
        time.sleep(60)


def test_training_does_not_wait_for_a_logger(monkeypatch):
    monkeypatch.setattr(loggers, "PATIENCE", 0.2)
    slow = loggers.Background("wandb", Slow)
    start = time.perf_counter()
    slow.row(ROWS[0])
    assert time.perf_counter() - start < 0.1
    slow.close()
    assert time.perf_counter() - start < 5
    assert "did not finish" in str(slow.problem)


def test_a_missing_package_is_named_before_training(monkeypatch, tmp_path):
    config = tiny_config(logging__wandb=True)
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[wandb\]'"):
        loggers.make(config, tmp_path)


@pytest.mark.parametrize("check", [["--check"], []])
def test_a_missing_package_is_named_before_anything_is_written(
    check, monkeypatch, tmp_path
):
    """Nor anything compiled; `--check` finds it as well."""
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    fields = ["--config.logging.mlflow=True", f"--config.output_dir={tmp_path}"]
    arguments = ["train.py", "--config=configs/debug.py", *check, *fields]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it began"))
    with pytest.raises(ConfigError, match=r"pip install -e '.\[mlflow\]'"):
        train.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_the_rows_and_continues_the_same_run(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = tiny_config(logging__mlflow=True, output_dir=str(tmp_path))
    for row in ROWS:  # each in a process of its own, as it were
        (log,) = loggers.make(config, tmp_path / "point-vel" / "run")
        log.row(row)
        log.close()
        assert log.problem is None
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    project = client.get_experiment_by_name("cemrl")
    assert project is not None
    (run,) = client.search_runs([project.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["sac.batch_size"] == "16"
    history = client.get_metric_history(run.info.run_id, "test/x")
    assert [(entry.step, entry.value) for entry in history] == [(1, -2.0), (2, -1.0)]


@pytest.mark.filterwarnings("ignore")
def test_wandb_gets_the_rows_offline_under_an_id_of_its_own(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_config(logging__wandb=True, output_dir=str(tmp_path))
    directory = tmp_path / "point-vel" / "run:1"
    directory.mkdir(parents=True)
    (log,) = loggers.make(config, directory)
    for row in ROWS:
        log.row(row)
    log.close()
    assert log.problem is None
    (file,) = directory.glob("wandb/offline-run-*/run-point-vel-run-1.wandb")
    wanted = (b"test/x", b"env_steps", b"batch_size")
    for _ in range(200):  # wandb's own process writes when it comes to it
        if all(name in file.read_bytes() for name in wanted):
            return
        time.sleep(0.1)
    raise AssertionError(f"{wanted} are not all in {file}")
