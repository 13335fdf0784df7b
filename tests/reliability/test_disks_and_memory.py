"""Real full and read-only disks; random configurations; memory over many epochs."""

import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, run_training, tiny_config, use_devices

from cemrl_jax.reporting.progress import Progress
from cemrl_jax.training import resume, storage
from cemrl_jax.training.checkpoint import CheckpointError

HERE = pathlib.Path(__file__).parent
NUM_CONFIGS = os.environ.get("CEMRL_RANDOM_CONFIGS", "8")


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MiB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_on_a_full_disk_the_run_ends_with_an_error_and_older_checkpoints_restore(
    disk, monkeypatch
):
    use_devices(monkeypatch, 1)
    config = tiny_config(train__num_epochs=40, checkpoint__keep=40)
    config.replay.capacity = 20_000
    with pytest.raises((CheckpointError, OSError), match=r"space|disk has|cannot"):
        run_training(config, disk / "run")
    saved = storage.complete(disk / "run" / "checkpoints")
    assert len(saved) > 2
    run = resume.resume_run(config, disk / "run")
    assert run.epoch == saved[-1]


@pytest.mark.slow
def test_a_read_only_folder_is_named(disk):
    config = tiny_config(output_dir=str(disk / "out"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    command = [sys.executable, "-c", PROGRAM, str(disk / "out")]
    done = subprocess.run(
        command,
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stderr
    assert config.output_dir in done.stderr


PROGRAM = f"""
import sys
sys.argv = ["train.py", "--config={ROOT}/configs/debug.py",
            "--config.output_dir=" + sys.argv[1]]
from cemrl_jax.commands import train
train.console()
"""


@pytest.mark.slow
def test_random_configurations_run_or_are_refused_by_name():
    paths = [str(path) for path in (ROOT, ROOT / "tests", HERE)]
    done = subprocess.run(
        [sys.executable, str(HERE / "random_configs.py"), NUM_CONFIGS, "7"],
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{NUM_CONFIGS} tried" in done.stdout, done.stderr
    assert done.stdout.endswith(", 0 faults\n"), done.stdout


@pytest.mark.slow
def test_memory_stays_flat_over_500_epochs(monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    pages: list[int] = []

    class Weighing(Progress):
        def row(self, *args: object) -> None:
            super().row(*args)  # pyright: ignore[reportArgumentType]
            text = pathlib.Path("/proc/self/statm").read_text()
            pages.append(int(text.split()[1]))

    monkeypatch.setattr("helpers.Progress", Weighing)
    config = tiny_config(
        train__num_epochs=500, checkpoint__interval=10, evaluation__interval=5
    )
    run_training(config, tmp_path / "run")
    size = resource.getpagesize() / 2**20
    first, last = (np.mean(part) * size for part in (pages[1:101], pages[-100:]))
    print(f"first hundred {first:.1f} MiB, last {last:.1f} MiB")
    assert last < 1.02 * first
