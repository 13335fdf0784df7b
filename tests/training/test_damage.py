"""Damaged or full disks: a clear error, and older checkpoints still restore."""

import pathlib
import pickle
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from helpers import run_training, tiny_config, use_devices

from cemrl_jax.config import ConfigError
from cemrl_jax.data import task_pools
from cemrl_jax.runtime import files
from cemrl_jax.training import resume, storage
from cemrl_jax.training.checkpoint import CheckpointError
from cemrl_jax.training.journal import Journal

CONFIG = tiny_config(checkpoint__keep=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A run of three checkpoints on one device."""
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        directory = tmp_path_factory.mktemp("damage") / "run"
        run_training(CONFIG, directory)
        return directory


@pytest.fixture
def run(finished, tmp_path) -> pathlib.Path:
    """A copy that may be damaged."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def restored(run: pathlib.Path) -> list[np.ndarray]:
    state = resume.resume_run(CONFIG, run)
    worker = state.worker.replace(key=jax.random.key_data(state.worker.key))
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.learner, worker))]


def assert_older_restores(run: pathlib.Path) -> None:
    """The checkpoint before the newest, as the message says how."""
    shutil.rmtree(run / "checkpoints" / "2")
    assert resume.resume_run(CONFIG, run).epoch == 1


def newest_files(run: pathlib.Path) -> list[pathlib.Path]:
    """Files of the newest checkpoint that hold what a run goes on with."""
    folder = run / "checkpoints" / "2"
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.stat().st_size)


def flip(path: pathlib.Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize(
    "place",
    [0.5, *(pytest.param(place, marks=pytest.mark.slow) for place in (0.1, 0.9))],
)
def test_a_changed_byte_in_a_checkpoint_changes_nothing_or_is_found(
    place, run, monkeypatch
):
    """In any file of it; formats leave some bytes without a meaning."""
    use_devices(monkeypatch, 1)
    expected, messages = restored(run), []
    for path in newest_files(run):
        good = path.read_bytes()
        flip(path, place)
        try:
            for old, new in zip(expected, restored(run), strict=True):
                np.testing.assert_array_equal(old, new, err_msg=str(path))
        except CheckpointError as error:
            messages.append(str(error))
        path.write_bytes(good)
    assert len(messages) >= 2
    assert all(str(run / "checkpoints") in message for message in messages)
    assert not any("\n" in message for message in messages)
    assert_older_restores(run)


@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_checkpoint_with_a_short_or_missing_file_is_named(how, run, monkeypatch):
    use_devices(monkeypatch, 1)
    expected, messages = restored(run), []
    for path in newest_files(run):
        good = path.read_bytes()
        if how == "cut":
            path.write_bytes(good[: len(good) // 2])
        else:
            path.unlink()
        try:
            for old, new in zip(expected, restored(run), strict=True):
                np.testing.assert_array_equal(old, new, err_msg=str(path))
        except CheckpointError as error:
            messages.append(str(error))
        path.write_bytes(good)
    assert len(messages) >= 2
    assert all(str(run / "checkpoints") in message for message in messages)
    assert not any("\n" in message for message in messages)
    assert_older_restores(run)


def test_the_message_about_a_damaged_checkpoint_says_how_to_go_on(run, monkeypatch):
    use_devices(monkeypatch, 1)
    (state,) = (run / "checkpoints" / "2" / "state").glob("metadata*")
    state.write_text(state.read_text().replace('"env_steps"', '"env_stops"'))
    with pytest.raises(CheckpointError) as error:
        restored(run)
    way_out = f"remove {run / 'checkpoints' / '2'} to go on from 1"
    assert "state is damaged, its checksum does not match" in str(error.value)
    assert way_out in str(error.value)


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_damaged_experience_is_named_and_older_checkpoints_restore(
    how, run, monkeypatch
):
    use_devices(monkeypatch, 1)
    newest = sorted((run / "replay").iterdir())[-1]
    if how == "changed":
        flip(newest, 0.5)
    elif how == "cut":
        newest.write_bytes(newest.read_bytes()[:-1])
    else:
        newest.unlink()
    with pytest.raises(CheckpointError) as error:
        restored(run)
    name = newest.name if how != "missing" else "00000002.*.npz: 0 of 1 files"
    assert str(run / "replay" / name) in str(error.value)
    assert_older_restores(run)


@pytest.mark.parametrize("lost", ["state", "_CHECKPOINT_METADATA", "metrics"])
def test_half_of_an_old_stop_does_not_hide_a_newer_checkpoint(lost, run):
    """As an earlier version left it that was killed in deleting it."""
    stop = run / "interrupted" / "3"  # before epoch 2 was over
    shutil.copytree(run / "checkpoints" / "1", stop)
    part = stop / lost
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    newest = storage.newest(run)
    assert newest is not None
    assert newest.folder.name == "checkpoints"
    assert newest.number == 2
    assert storage.saved(run)[-1] == newest
    with storage.Storage(run, 3, newest.state["ring"]["collects"]) as saved:
        saved.wait()
    assert not stop.parent.exists()


def test_a_damaged_stop_that_is_the_newest_is_named(run):
    stop = run / "interrupted" / "999"
    shutil.copytree(run / "checkpoints" / "1", stop)
    shutil.rmtree(stop / "state")
    with pytest.raises(CheckpointError, match=r"epoch 999 in .*interrupted"):
        storage.newest(run)


def test_half_of_an_old_checkpoint_does_not_hide_newer_ones_of_a_group(run):
    shutil.rmtree(run / "checkpoints" / "0" / "state")
    assert [point.number for point in storage.saved(run)] == [1, 2]


@pytest.mark.parametrize("names", [("interrupted",), ("checkpoints", "2")])
def test_a_kill_while_something_is_deleted_leaves_nothing_that_counts(
    names, run, monkeypatch
):
    shutil.copytree(run / "checkpoints" / "1", run / "interrupted" / "999")

    def killed(path: pathlib.Path, **_: Any) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            storage.discard(run, *names)
    assert not run.joinpath(*names).exists()
    aside = list(run.glob("*.discarded"))
    assert [path.name for path in aside] == [".".join((*names, "discarded"))]
    with storage.Storage(run, 3, 10**6):
        assert not aside[0].exists()


def test_a_pickle_is_never_loaded(run, monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    loaded = tmp_path / "loaded"

    class Trap:
        def __reduce__(self) -> Any:
            return pathlib.Path.touch, (loaded,)

    assert pickle.loads(pickle.dumps(Trap())) is None
    loaded.unlink()  # it would work
    trap = np.array([Trap()], object)
    oldest = sorted((run / "replay").iterdir())[0]
    arrays: Any = {".obs": trap}
    np.savez(tmp_path / "trap.npz", **arrays)
    content = (tmp_path / "trap.npz").read_bytes()
    monkeypatch.setattr("cemrl_jax.training.journal._digest", lambda _: "0" * 16)
    oldest.unlink()
    (run / "replay" / f"00000000.0of1.{'0' * 16}.npz").write_bytes(content)
    for path in sorted((run / "replay").iterdir())[1:]:
        path.rename(path.with_name(f"{path.name[:13]}.{'0' * 16}.npz"))
    with pytest.raises(CheckpointError, match="Object arrays cannot be loaded"):
        restored(run)
    (run / task_pools.FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="Object arrays cannot be loaded"):
        task_pools.load(run)
    assert not loaded.exists()


def test_no_code_allows_pickles():
    root = pathlib.Path(__file__).parent.parent.parent / "cemrl_jax"
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert "allow_pickle=True" not in text, path
        assert "import pickle" not in text, path


def test_a_full_disk_is_named_and_nothing_half_written_stays(monkeypatch, tmp_path):
    """The disk is said to be full; a real one is in tests/reliability."""

    class Full:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    use_devices(monkeypatch, 1)
    with pytest.raises(
        CheckpointError, match=r"cannot save collect 0 to .*/replay: it"
    ):
        run_training(CONFIG, tmp_path / "run")
    assert list((tmp_path / "run" / "replay").iterdir()) == []
    assert storage.complete(tmp_path / "run" / "checkpoints") == []


def test_an_error_while_writing_leaves_the_old_file(monkeypatch, tmp_path):
    path = tmp_path / "file"
    files.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_experience_that_no_checkpoint_needs_is_deleted(monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    config = tiny_config(train__num_epochs=5, replay__capacity=640, checkpoint__keep=1)
    run_training(config, tmp_path / "run")
    kept = {chunk.collect for chunk in Journal(tmp_path / "run" / "replay").chunks()}
    saved = storage.complete(tmp_path / "run" / "checkpoints")
    assert saved[-1] == 5
    needed = {number for epoch in saved for number in (epoch - 1, epoch)}
    assert kept == {number for number in needed if number >= 0}
