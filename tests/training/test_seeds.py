"""Seeds that train together: as each alone, and without one that fails."""

import contextlib
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_rows, tiny_config, use_devices

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl import phases
from cemrl_jax.analysis import database
from cemrl_jax.analysis.restore import restore
from cemrl_jax.commands import train as command
from cemrl_jax.config import ConfigError
from cemrl_jax.data import packing
from cemrl_jax.training import loop, resume
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.storage import FAILED

NUM_SEEDS = 3


def train(config, num_seeds):
    """Trains seeds 0 to N - 1 together; returns what each has logged, and folders."""
    config.num_seeds = num_seeds
    command.train(config)
    found = folders_of(config)
    return [read_rows(folder) for folder in found], found


def folders_of(config):
    """The folders of a group, by seed."""
    runs = pathlib.Path(config.output_dir, config.name)
    return sorted(runs.iterdir(), key=lambda x: int(x.name.rsplit("-", 1)[1]))


@pytest.mark.parametrize(
    "schedule", ["fused", pytest.param("alternating", marks=pytest.mark.slow)]
)
def test_each_seed_learns_what_it_would_alone_up_to_rounding(
    schedule, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 2)
    make = lambda name, seed: tiny_config(  # noqa: E731
        train__schedule=schedule,
        train__num_epochs=1,
        output_dir=str(tmp_path / name),
        seed=seed,
    )
    together, _ = train(make("together", 0), NUM_SEEDS)
    assert len(together) == NUM_SEEDS
    for seed in (0, 2):
        (alone,), _ = train(make(f"alone-{seed}", seed), 1)
        for ours, expected in zip(together[seed], alone, strict=True):
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                if value:
                    assert float(ours[name]) == pytest.approx(
                        float(value), rel=1e-4, abs=1e-5
                    ), name
    assert together[0] != together[1]


def test_the_replay_of_all_seeds_exists_once(monkeypatch, tmp_path):
    """Its lines are the only large array from the first epoch to the last."""
    use_devices(monkeypatch, 1)
    config = tiny_config(
        output_dir=str(tmp_path), train__num_epochs=60, replay__capacity=20_000
    )
    config.checkpoint.interval = config.evaluation.interval = 100
    rows = config.replay_length * config.rollout.num_envs * NUM_SEEDS
    of_other_tests = jax.live_arrays()
    known = {id(x) for x in of_other_tests}
    seen = []

    class Watched(loop.Group):
        def finish_epoch(self):
            large = [x for x in jax.live_arrays() if x.size >= 2 * rows]
            seen.append(sum(id(x) not in known for x in large))
            super().finish_epoch()

    monkeypatch.setattr(loop, "Group", Watched)
    train(config, NUM_SEEDS)
    assert set(seen) == {1}  # its lines; everything else is smaller


def failing_group(monkeypatch, directory, seed):
    """A group in which a seed fails in epoch 2 of 3; its rows and folders."""
    use_devices(monkeypatch, 1)
    make = phases.make_fused

    def failing(*args):
        fused = make(*args)

        def step(learner, worker):
            learner, worker, metrics = fused(learner, worker)
            own = worker.tasks.spec[0] == spec
            late = learner.num_updates >= 6
            value = jnp.where(own & late, jnp.nan, metrics["sac/value"])
            return learner, worker, metrics | {"sac/value": value}

        return step

    config = tiny_config(output_dir=str(directory), train__num_epochs=3)
    runs = command.new_runs(tiny_config(output_dir=str(directory), num_seeds=NUM_SEEDS))
    spec = float(np.asarray(runs[seed].pools["train"].spec)[0])
    monkeypatch.setattr(phases, "make_fused", failing)
    return train(config, NUM_SEEDS)


@pytest.mark.usefixtures("own_programs")
def test_a_seed_that_fails_is_marked_and_the_others_go_on(
    monkeypatch, tmp_path, capsys
):
    rows, folders = failing_group(monkeypatch, tmp_path, 1)
    assert [len(seed) for seed in rows] == [4, 3, 4]
    assert rows[1][-1]["sac/value"] == "nan"
    message = capsys.readouterr().err
    assert re.search(r"seed 1 stops.*epoch 2: sac/value is not finite", message)
    with contextlib.ExitStack() as stack:
        saved = [
            stack.enter_context(Checkpoints(folder / "checkpoints", read_only=True))
            for folder in folders
        ]
        assert [one.latest() for one in saved] == [3, 1, 3]
    with Checkpoints(folders[1] / FAILED, read_only=True) as failed:
        assert failed.latest() == 2
    assert restore(folders[1], FAILED).epoch == 2
    with pytest.raises(ConfigError, match="checkpoint=failed: the run has not failed"):
        restore(folders[0], FAILED)


@pytest.mark.usefixtures("own_programs")
def test_the_first_seed_fails_and_the_display_and_the_database_go_on(
    monkeypatch, tmp_path, capsys
):
    rows, folders = failing_group(monkeypatch, tmp_path, 0)
    assert [len(seed) for seed in rows] == [3, 4, 4]
    printed = capsys.readouterr().out
    assert "epoch 3/3  1,280 steps" in printed
    failure = "epoch 2: sac/value is not finite"
    assert f"results in {folders[0]} until it failed at {failure}\n" in printed
    assert f"results in {folders[1]}\n" in printed
    store = database.Database(tmp_path / database.FILE)
    status = lambda: [(x["status"], x["note"]) for x in store.runs()]  # noqa: E731
    assert status() == [("failed", failure), ("done", ""), ("done", "")]
    database.rebuild(tmp_path)
    assert status() == [("failed", failure), ("done", ""), ("done", "")]
    (tmp_path / database.FILE).unlink()
    database.rebuild(tmp_path)
    again = database.Database(tmp_path / database.FILE).runs()
    assert [row["status"] for row in again] == ["failed", "done", "done"]
    assert again[0]["note"] == "epoch 2"


# ---------------------------------------------------------------- a group goes on


def group_config(directory, **changes):
    return tiny_config(
        output_dir=str(directory),
        train__num_epochs=3,
        replay__capacity=640,
        num_seeds=NUM_SEEDS,
        **changes,
    )


def stopped_group(monkeypatch, directory):
    """A group that stops after two of three epochs; returns its folders."""
    config = group_config(directory)
    config.train.num_epochs = 2
    train(config, NUM_SEEDS)
    return folders_of(config)


def go_on(monkeypatch, *args):
    """Resumes as the command line does."""
    more = ["--config.train.num_epochs=3"]
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, args), *more])
    assert command.main() == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What each seed of an uninterrupted group has logged."""
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)
        return train(group_config(tmp_path_factory.mktemp("whole")), NUM_SEEDS)[0]


def test_a_group_goes_on_as_a_group_to_the_last_digit(whole, monkeypatch, tmp_path):
    use_devices(monkeypatch, 2)
    folders = stopped_group(monkeypatch, tmp_path)
    go_on(monkeypatch, "--resume", *folders)
    assert [read_rows(folder) for folder in folders] == whole


def test_a_group_goes_on_where_all_seeds_were_saved(whole, monkeypatch, tmp_path):
    """One was killed before its last save: the others go back to the one before."""
    use_devices(monkeypatch, 2)
    folders = stopped_group(monkeypatch, tmp_path)
    shutil.rmtree(folders[1] / "checkpoints" / "2")
    go_on(monkeypatch, "--resume", *folders)
    assert [read_rows(folder) for folder in folders] == whole


def test_the_latest_group_is_found_by_its_number_of_seeds(monkeypatch, tmp_path):
    config = group_config(tmp_path)
    for started in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        for seed in range(NUM_SEEDS):
            folder = tmp_path / config.name / f"{started}-{seed}"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
    found = resume.find_group(config)
    assert [folder.name for folder in found] == [
        f"2026-01-02_00-00-00-{seed}" for seed in range(NUM_SEEDS)
    ]
    (found[1] / "config.json").unlink()
    (found[0] / "checkpoints" / "0").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"has no .*00-00-00-1; name the folders"):
        resume.find_group(config)


def test_a_start_killed_while_it_made_its_folders_is_passed_over(tmp_path, capsys):
    """Nothing of it was saved; a scheduler must not fail on it for ever."""
    config = group_config(tmp_path)

    def begin(started, seeds):
        for seed in seeds:
            folder = tmp_path / config.name / f"{started}-{seed}"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")

    begin("2026-01-02_00-00-00", [0])
    (tmp_path / config.name / "2026-01-02_00-00-00-1").mkdir()  # no config.json yet
    assert resume.find_group(config) == []
    assert "00-00-00-0 is passed over: it saved nothing" in capsys.readouterr().out
    begin("2026-01-01_00-00-00", range(NUM_SEEDS))
    assert [folder.name for folder in resume.find_group(config)] == [
        f"2026-01-01_00-00-00-{seed}" for seed in range(NUM_SEEDS)
    ]


def test_seeds_without_a_common_checkpoint_are_refused(monkeypatch, tmp_path):
    use_devices(monkeypatch, 2)
    folders = stopped_group(monkeypatch, tmp_path)
    shutil.rmtree(folders[1] / "checkpoints")
    with pytest.raises(ConfigError, match="resume them one by one") as error:
        go_on(monkeypatch, "--resume", *folders)
    assert f"{folders[1]}: nothing" in str(error.value)
    assert re.search(rf"{folders[0]}: .*epoch 1, epoch 2", str(error.value))
    assert (folders[0] / "checkpoints" / "2").is_dir()


def test_a_seed_that_failed_stays_out_of_the_group(monkeypatch, tmp_path, capsys):
    use_devices(monkeypatch, 2)
    folders = stopped_group(monkeypatch, tmp_path)
    (folders[1] / FAILED / "3").mkdir(parents=True)
    assert command.sound(folders) == [folders[0], folders[2]]
    assert f"{folders[1]} failed at epoch 3" in capsys.readouterr().err


def failed_group(directory, seeds):
    """Folders of a group in which these seeds failed before anything was saved."""
    config = group_config(directory)
    for run in command.new_runs(config):
        run.directory.mkdir(parents=True)
        run_lib.store_run(run)
        if run.config.seed in seeds:
            (run.directory / FAILED / "3").mkdir(parents=True)
    folders = folders_of(config)
    return config_lib.load(folders[0] / "config.json"), folders


def test_one_seed_that_is_left_goes_on_alone_whichever_it_is(tmp_path):
    config, folders = failed_group(tmp_path, (0, 2))
    config.train.num_epochs = 7
    config, left = command.of_sound(config, folders)
    assert left == [folders[1]]
    (run,) = resume.reopen(config, left).runs
    assert (run.config.seed, run.config.train.num_epochs) == (1, 7)


def test_a_group_of_failed_seeds_is_refused_and_nothing_begins(tmp_path):
    config, folders = failed_group(tmp_path, range(NUM_SEEDS))
    way_out = f"all of these seeds failed.* --resume={folders[0]} --config.sac.learn"
    with pytest.raises(ConfigError, match=way_out):
        command.train(config, folders)
    assert folders_of(group_config(tmp_path)) == folders


def test_tasks_that_a_replay_has_no_bits_for_are_refused(monkeypatch, tmp_path):
    """Before anything is written."""
    monkeypatch.setitem(packing.LARGEST, "number", 6)
    config = tiny_config(output_dir=str(tmp_path))  # eight tasks
    with pytest.raises(ConfigError, match="number 7, which must be at most 6"):
        train(config, 1)
    assert not list(tmp_path.iterdir())
