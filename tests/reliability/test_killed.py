"""Runs that are killed or stopped at any moment equal those that never were."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from helpers import ROOT, read_rows, tiny_config

from cemrl_jax import config as config_lib
from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.training import storage

NUM_KILLED = int(os.environ.get("CEMRL_KILLED_RUNS", "2"))


class Server:
    """Starts training processes, see `runs.py`; one at a time."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._log = folder / "log"
        self._cache = folder / "cache"
        server = pathlib.Path(__file__).parent / "runs.py"
        self._server = subprocess.Popen(
            [sys.executable, str(server)],
            env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str) -> None:
        self._log.unlink(missing_ok=True)
        cache = f"--compile-cache={self._cache}"
        self._process = self._ask([str(self._log), cache, *arguments])

    def signal(self, number: int) -> None:
        os.kill(self._process, number)

    def wait(self) -> int:
        return self._ask("wait")

    def printed(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        stdin: Any = self._server.stdin
        stdin.close()
        self._server.wait()
        self._server.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]

    def _ask(self, request: Any) -> int:
        stdin: Any = self._server.stdin
        stdout: Any = self._server.stdout
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return int(stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> str:
    """The debug preset, smaller still, that saves often."""
    config = tiny_config(
        train__num_epochs=6, rollout__num_initial=2, train__num_updates=20
    )
    path = tmp_path_factory.mktemp("preset") / "tiny.json"
    config_lib.save(config, path)
    return str(path)


@pytest.fixture(scope="module")
def whole(server, preset, tmp_path_factory) -> tuple[pathlib.Path, float]:
    """A run that was never stopped, and the seconds that it takes."""
    seconds = 0.0
    for _ in range(2):  # the first one fills the compile cache
        folder = tmp_path_factory.mktemp("whole")
        start = time.monotonic()
        server.start(f"--config={preset}", f"--config.output_dir={folder}")
        assert server.wait() == 0, server.printed()
        seconds = time.monotonic() - start
    return only_run(folder), seconds


def only_run(folder: pathlib.Path) -> pathlib.Path:
    (run,) = (folder / "point-vel").iterdir()
    return run


def weights(run: pathlib.Path) -> list[np.ndarray]:
    config = config_lib.load(run / "config.json")
    algorithm = make_algorithm(config, config.env.make())
    like = jax.eval_shape(algorithm.init, jax.random.key(0))
    saved = storage.newest(run)
    assert saved is not None
    assert saved.state["epoch"] == config.train.num_epochs
    return jax.tree.leaves(jax.device_get(saved.learner(like)))


def assert_equal_runs(first: pathlib.Path, second: pathlib.Path) -> None:
    assert read_rows(first) == read_rows(second)
    for old, new in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(old, new)


def go_on(server: Server, preset: str, folder: pathlib.Path) -> None:
    """Starts what a scheduler starts again and again."""
    server.start(
        f"--config={preset}", f"--config.output_dir={folder}", "--resume=latest"
    )


def finish(server: Server, preset: str, folder: pathlib.Path) -> pathlib.Path:
    """Lets the newest run end; returns it."""
    go_on(server, preset, folder)
    code = server.wait()
    if code == 2 and "wait a second" in server.printed():
        time.sleep(1)
        go_on(server, preset, folder)
        code = server.wait()
    assert code == 0, server.printed()
    return max(path.parent for path in folder.glob("*/*/config.json"))


@pytest.mark.slow
def test_runs_killed_at_random_moments_equal_one_never_stopped(
    server, preset, whole, tmp_path
):
    """Each is killed twice on the way, in whatever it is doing then."""
    expected, seconds = whole
    rng = random.Random(0)
    for number in range(NUM_KILLED):
        folder = tmp_path / str(number)
        for _ in range(2):
            go_on(server, preset, folder)
            time.sleep(rng.uniform(0.2, 1) * seconds)
            server.signal(signal.SIGKILL)
            server.wait()
        assert_equal_runs(finish(server, preset, folder), expected)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_stopped_by_a_signal_equal_one_never_stopped(
    number, server, preset, whole, tmp_path
):
    """Signals while it starts may also end it at once; one in the loop must not."""
    expected, _ = whole
    for moment in ("starting", "0.1 s later", "training"):
        folder = tmp_path / moment
        go_on(server, preset, folder)
        if moment == "training":
            wait_for(lambda: "epoch 1/" in server.printed())
        else:
            wait_for(lambda at=folder: list(at.glob("*/*/run.json")))
            time.sleep(0.1 * (moment == "0.1 s later"))
        server.signal(number)
        code = server.wait()
        assert code in (0, -number, 128 + number), server.printed()
        if moment == "training":
            assert code == 128 + number, server.printed()
            assert f"--resume={folder}/point-vel/" in server.printed()
        assert_equal_runs(finish(server, preset, folder), expected)


def wait_for(happened: Callable[[], Any]) -> None:
    limit = time.monotonic() + 120
    while not happened() and time.monotonic() < limit:
        time.sleep(0.005)
