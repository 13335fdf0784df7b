"""Start-up: how long a person waits for the first epoch of a training run."""

import copy
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from cemrl_jax import config as config_lib
from cemrl_jax.benchmark.settings import BenchmarkConfig, environment
from cemrl_jax.benchmark.timing import Row
from cemrl_jax.config import Config
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.groups import Groups
from cemrl_jax.runtime import parallel, provenance

FIRST_EPOCH = "epoch 1/1"


def measure_startup(config: BenchmarkConfig, say: Callable[[str], None]) -> Row:
    """Times two starts of training: with an empty compile cache and with a full one.

    Each is a process of `scripts/train.py` that ends with its first epoch. It has one
    update and the evaluation one task, so that compiling and starting is what counts.

    Raises:
      RuntimeError: training failed.
    """
    row = environment("startup", config) | {
        "robot": type(config.base.env.robot).__name__,
        "num_envs": config.base.rollout.num_envs,
        "batch_size": config.base.sac.batch_size,
        "schedule": config.base.train.schedule,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        config_lib.save(short_run(config.base, path), path / "config.json")
        for kind in ("cold", "warm"):
            say(f"{kind} start of training")
            row[f"startup_{kind}_seconds"] = time_to_first_epoch(path)
    return row


def short_run(base: Config, folder: pathlib.Path) -> Config:
    """Returns a run of the same programs with little to do."""
    config = copy.deepcopy(base)
    config.output_dir = str(folder / "output")
    config.tensorboard = False
    config.env.num_test_tasks = _fewest_test_tasks(config.env.make())
    config.rollout.num_initial = 0
    config.train.num_epochs = 1
    config.train.num_updates = 1
    config.train.num_world_model_steps = 1
    config.checkpoint.replay = False
    return config


def _fewest_test_tasks(env: NonStationaryEnv) -> int:
    """Returns how many tasks an evaluation needs at least."""
    if not isinstance(env, Groups):
        return 1
    others = env.elsewhere.num_bases if env.elsewhere else 1
    return math.lcm(env.num_bases * parallel.num_devices(), others)


def time_to_first_epoch(folder: pathlib.Path) -> float:
    """Returns the seconds from the start of training to the end of its first epoch.

    Args:
      folder: holds the `config.json`; keeps the compile cache.

    Raises:
      RuntimeError: training failed.
    """
    command = [
        *(sys.executable, str(provenance.ROOT / "scripts" / "train.py")),
        *(f"--config={folder / 'config.json'}", f"--compile-cache={folder / 'cache'}"),
    ]
    start, seconds, lines = time.perf_counter(), None, []
    with subprocess.Popen(
        command,
        cwd=provenance.ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if seconds is None and line.startswith(FIRST_EPOCH):
                seconds = time.perf_counter() - start
    if process.returncode or seconds is None:
        raise RuntimeError(f"training failed:\n{''.join(lines[-20:])}")
    return seconds
