"""Runs as a database."""

import concurrent.futures
import csv
import json
import pathlib
import subprocess
import sys

import pytest
from helpers import ROOT, tiny_config, use_devices

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import database
from cemrl_jax.commands import runs
from cemrl_jax.config import ConfigError

FIXED = "test/fixed_deterministic_return"
CHANGING = "test/changing_deterministic_return"

WRITER = """
import pathlib, sys
from cemrl_jax.analysis.database import RunRecord
folder, number = pathlib.Path(sys.argv[1]), sys.argv[2]
record = RunRecord(folder / "x" / number, folder)
record.started({"name": "x", "seed": int(number)}, {"revision": "abc"})
for epoch in range(20):
    row = {"epoch": epoch, "env_steps": 10 * epoch, "updates": epoch}
    record.evaluated(row | {"test/fixed_deterministic_return": -float(epoch)})
record.ended()
sys.exit(record.problem)
"""


def check_that_nothing_is_lost(folder):
    store = database.Database(folder / database.FILE)
    rows = store.runs()
    assert sorted(row["seed"] for row in rows) == list(range(8))
    assert {row["status"] for row in rows} == {"done"}
    assert {row["best_return"] for row in rows} == {0.0}
    assert {row["last_return"] for row in rows} == {-19.0}
    assert all(len(store.evaluations(row["id"])) == 20 for row in rows)


def test_eight_threads_write_at_once_and_nothing_is_lost(tmp_path):
    def work(number):
        record = database.RunRecord(tmp_path / "x" / str(number), tmp_path)
        record.started({"name": "x", "seed": number}, {"revision": "abc"})
        for epoch in range(20):
            record.evaluated({"epoch": epoch, FIXED: -float(epoch)})
        record.ended()
        return record.problem

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [None] * 8
    check_that_nothing_is_lost(tmp_path)


@pytest.mark.slow
def test_eight_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)], env=path
        )
        for number in range(8)
    ]
    assert [process.wait(120) for process in processes] == [0] * 8
    check_that_nothing_is_lost(tmp_path)


def test_a_record_that_cannot_write_never_fails(tmp_path):
    (tmp_path / "file").write_text("")
    record = database.RunRecord(tmp_path / "run", tmp_path / "file" / "below")
    record.started({"name": "x"})
    record.evaluated({"epoch": 1, FIXED: 3.0})
    record.ended("failed", "why")
    assert record.problem
    broken = tmp_path / "other"
    broken.mkdir()
    (broken / database.FILE).write_text("no database, but quite long" * 100)
    record = database.RunRecord(tmp_path / "run", broken)
    record.started({"name": "x"})
    assert "not a database" in str(record.problem)


@pytest.fixture
def folder(tmp_path):
    """Two runs of two epochs, told by their files."""
    for seed, rate in ((0, 1e-3), (1, 2e-3)):
        place = tmp_path / "point-vel" / f"run-{seed}"
        place.mkdir(parents=True)
        config = tiny_config(seed=seed, sac__learning_rate=rate)
        config_lib.save(config, place / "config.json")
        rows = [f"epoch,env_steps,updates,seconds/train,{CHANGING},{FIXED}"]
        rows += [f"{n},{100 * n},{n},3600,{-10.0 * n - seed},-99" for n in range(3)]
        (place / "progress.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("last_epoch", [0, 1, 2])
def test_hours_go_on_from_the_rows_that_a_resumed_run_keeps(last_epoch, folder):
    """Also from those without an evaluation, and not from what comes again."""
    place, hour = folder / "point-vel" / "run-0", {"seconds/train": 3600.0}
    before = database.RunRecord(place, folder)
    before.started({"name": "x"})
    before.row({"epoch": 0, FIXED: -1.0} | hour)
    for epoch in (1, 2):
        before.row({"epoch": epoch} | hour)
    again = database.RunRecord(place, folder)
    again.started({"name": "x"}, None, last_epoch)
    again.row({"epoch": last_epoch + 1, FIXED: -1.0} | hour)
    assert again.problem is None
    (row,) = database.Database(folder / database.FILE).runs()
    assert row["hours"] == last_epoch + 2


def run_runs(folder, monkeypatch, *arguments):
    arguments = [*arguments, f"--output-dir={folder}"]
    monkeypatch.setattr(sys, "argv", ["runs.py", *arguments])
    runs.main()


def test_the_database_is_made_from_the_folders(folder):
    assert database.rebuild(folder) == 2
    store = database.Database(folder / database.FILE)
    first, second = store.runs()
    assert (first["id"], first["seed"]) == ("point-vel/run-0", 0)
    assert (first["status"], first["hours"]) == ("done", 3.0)
    assert (second["best_return"], second["last_return"]) == (-1.0, -21.0)
    last = store.evaluations("point-vel/run-1")[-1]
    assert last["metrics"] == {CHANGING: -21.0, FIXED: -99.0}
    store.put("point-vel/gone", name="x")
    database.rebuild(folder)
    assert len(store.runs()) == 2


def test_runs_are_found_by_any_field_of_their_configuration(folder):
    database.rebuild(folder)
    rows = database.Database(folder / database.FILE).runs()
    find = lambda *filters: [  # noqa: E731
        row["seed"] for row in database.matching(rows, list(filters))
    ]
    assert find("sac.learning_rate=0.002") == [1]
    assert find("env.task=velocity", "seed=0") == [0]
    assert find("env.task.high=2", "status=done") == [0, 1]
    with pytest.raises(ConfigError, match=r"did you mean sac.learning_rate\?"):
        find("sac.lerning_rate=1")


def test_a_comparison_shows_only_what_differs(folder, monkeypatch, capsys):
    run_runs(folder, monkeypatch, "compare", "run-0", "run-1")
    printed = capsys.readouterr().out.split("what differs")[1]
    assert "sac.learning_rate" in printed
    assert "sac.discount" not in printed
    rows = database.Database(folder / database.FILE).runs()
    found = database.differences(rows[0]["config"], rows[1]["config"])
    assert found == [("seed", 0, 1), ("sac.learning_rate", 1e-3, 2e-3)]


def test_the_best_run_of_each_experiment(folder, monkeypatch, capsys):
    run_runs(folder, monkeypatch, "best", "--env=point-vel")
    printed = capsys.readouterr().out
    assert "run-0" in printed
    assert "run-1" not in printed


def test_an_export_has_a_column_for_each_field(folder, monkeypatch, tmp_path):
    path = tmp_path / "results.csv"
    run_runs(folder, monkeypatch, "export", str(path), "--where", "seed=1")
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert row["config.sac.learning_rate"] == "0.002"
    assert row["best_return"] == "-1.0"


def test_the_authors_runs_stand_in_the_same_table(folder, monkeypatch, capsys):
    entry = {
        "run": "2020_12_11",
        "algorithm": "cemrl",
        "env": "ant-non-stationary-dir",
        "epochs": 3,
        "env_steps": [10, 20, 30],
        "seconds": [3600, 7200, 10800],
        "train_return": [1.0, 2.0, 3.0],
        "test_return": [1.5, 9.0, 5.0],
        "config": {"algo_params": {"seed": 4}},
    }
    path = pathlib.Path(folder) / "authors.json"
    path.write_text(json.dumps([entry]))
    run_runs(folder, monkeypatch, "import", str(path))
    run_runs(folder, monkeypatch, "rebuild")
    store = database.Database(folder / database.FILE)
    row = next(row for row in store.runs() if row["id"].startswith("authors/"))
    assert (row["seed"], row["hours"], row["best_return"]) == (4, 3.0, 9.0)
    assert len(store.runs()) == 3
    assert len(store.evaluations(row["id"])) == 3


def test_the_originals_own_database_is_read(folder, monkeypatch):
    entry = {
        "name": "2020_12_20_11_14_49",
        "algo": "pearl",
        "env": "cheetah-stationary-vel",
        "date": "2020_12_20",
        "param_log": {"algo_params": {"seed": 2}},
        "n_timesteps": [100.0, 200.0],
        "time": [1800.0, 3600.0],
        "trainAverageReturn": [-5.0, -4.0],
        "testAverageReturn": [-9.0, -8.0],
    }
    path = pathlib.Path(folder) / "experiment_database.json"
    changing = entry | {"name": "2020_12_21", "env": "cheetah-non-stationary-dir"}
    path.write_text(json.dumps({"7": entry, "8": changing}))
    run_runs(folder, monkeypatch, "import", str(path))
    store = database.Database(folder / database.FILE)
    turning, row = store.runs()[:2]
    assert store.evaluations(turning["id"])[0]["metrics"][CHANGING] == -9.0
    assert row["id"] == "authors/cheetah-stationary-vel/2020_12_20_11_14_49"
    assert (row["env_steps"], row["hours"], row["note"]) == (
        200,
        1.0,
        "original, pearl",
    )
    assert store.evaluations(row["id"])[0]["metrics"][FIXED] == -9.0


def test_an_unknown_run_is_refused(folder, monkeypatch):
    with pytest.raises(ConfigError, match="must name one run; it fits point-vel/run-0"):
        run_runs(folder, monkeypatch, "show", "run-")
    with pytest.raises(ConfigError, match="compare takes 2 names"):
        run_runs(folder, monkeypatch, "compare", "run-0")


def test_training_writes_the_database_by_itself(monkeypatch, tmp_path):
    from cemrl_jax.commands import train

    config = tiny_config(output_dir=str(tmp_path))
    use_devices(monkeypatch, 1)
    train.train(config)
    store = database.Database(tmp_path / database.FILE)
    rows = store.runs()
    assert [(row["seed"], row["status"], row["epoch"]) for row in rows] == [
        (0, "done", 2)
    ]
    found = store.evaluations(rows[0]["id"])
    assert [entry["epoch"] for entry in found] == [0, 1, 2]
    before = [(row["best_return"], row["hours"]) for row in rows]
    database.rebuild(tmp_path)
    after = [(row["best_return"], row["hours"]) for row in store.runs()]
    assert before == [pytest.approx(pair) for pair in after]

    def interrupt(*arguments):
        raise KeyboardInterrupt

    config.train.num_epochs += 1
    monkeypatch.setattr(train.loop, "train_together", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, [tmp_path / rows[0]["id"]])
    assert [row["status"] for row in store.runs()] == ["stopped"]
