"""What a run is said to need, against what a process with it takes at most."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from helpers import random_transitions, tiny_agent, tiny_config

from cemrl_jax import config as config_lib
from cemrl_jax.data import replay
from cemrl_jax.training import resume, storage
from cemrl_jax.training import run as run_lib

ROOT = pathlib.Path(__file__).parent.parent.parent
MEASURE = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import jax
import jax.numpy as jnp
from helpers import tiny_config
from cemrl_jax.runtime import parallel
from cemrl_jax.training import run as run_lib, state
from cemrl_jax.training.programs import compile_programs

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))

config = tiny_config(train__schedule=sys.argv[2], train__num_epochs=100_000)
config.num_seeds = int(sys.argv[3])
config.replay.capacity = 8_000_000 // config.num_seeds
numbers = list(range(config.num_seeds))
pools = [run_lib.make_pools(config) for _ in numbers]
programs = compile_programs(config, numbers, pools)
start = state.initial(tiny_config(num_seeds=config.num_seeds), numbers,
                      [x["train"] for x in pools])  # what jax itself takes
jax.block_until_ready(start)
del start
before = peak()
start = state.initial(config, numbers, [x["train"] for x in pools])
learner, worker = parallel.join(start.learner, start.worker)
del start
for program in programs.phases.values():
    (learner, worker, metrics), _ = program(learner, worker)
programs.evaluate(parallel.on_own_devices(learner), True)
print(json.dumps({"measured": peak() - before, "said": programs.peak_bytes}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "num_seeds"), [("fused", 1), ("alternating", 1), ("fused", 2)]
)
def test_the_memory_of_a_run_is_known_within_a_fifth(schedule, num_seeds):
    result = subprocess.run(
        [
            *(sys.executable, "-c", MEASURE),
            *(str(ROOT / "tests"), schedule, str(num_seeds)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},  # one device
    )
    assert result.returncode == 0, result.stderr
    numbers = json.loads(result.stdout.splitlines()[-1])
    assert numbers["said"] > 300 * 2**20
    assert numbers["said"] == pytest.approx(numbers["measured"], rel=0.2)


RESUME = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import jax
from helpers import tiny_config
from cemrl_jax import config as config_lib
from cemrl_jax.training import resume, state

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))

small = resume.resume_run(tiny_config(), pathlib.Path(sys.argv[2]))
before = peak()  # with what orbax and jax themselves take
run = pathlib.Path(sys.argv[3])
start = resume.reopen(config_lib.load(run / "config.json"), [run]).restore()
jax.block_until_ready(start.worker.replay)
print(json.dumps({"measured": peak() - before, "said": state.num_bytes(start)}))
"""


def saved_run(directory, num_envs, num_steps, collects):
    """A run that stands before its first epoch, with so much experience."""
    config = tiny_config(
        rollout__num_envs=num_envs,
        rollout__num_steps=num_steps,
        replay__capacity=num_envs * num_steps * collects,
        train__num_epochs=collects,
    )
    run = run_lib.Run(config, directory, None, None, run_lib.make_pools(config))
    run.env_steps, run.begun, run.clock = num_envs * num_steps * collects, True, 1
    ring = storage.Ring(collects, collects, num_steps, 0, num_steps * collects)
    rows = random_transitions(0, num_envs, num_steps)
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 1)).tolist()
    with storage.Storage(directory) as saved:
        position = run.position() | {"keys": keys}
        saved.save(0, tiny_agent()[1], position, ring, lambda start: rows, 0.0)
    run_lib.store_run(run)
    return directory


@pytest.mark.slow
def test_a_resumed_run_takes_no_more_memory_than_its_state(tmp_path):
    """Its replay of 540 MB is never in memory twice, only a collect is."""
    small = saved_run(tmp_path / "small", 16, 20, 2)
    large = saved_run(tmp_path / "large", 100, 1000, 192)
    result = subprocess.run(
        [*(sys.executable, "-c", RESUME), *map(str, (ROOT / "tests", small, large))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},  # one device
    )
    assert result.returncode == 0, result.stderr
    numbers = json.loads(result.stdout.splitlines()[-1])
    assert numbers["said"] > 500 * 2**20
    assert numbers["measured"] < 1.15 * numbers["said"]


def test_a_collect_is_read_when_the_one_before_has_its_place(tmp_path, monkeypatch):
    """Else those that wait for theirs are in memory beside the replay."""
    directory = saved_run(tmp_path, 16, 20, 6)
    paste, read, pasted = replay.paste, storage.read_collect, []

    @jax.jit
    def paste_late(data, chunk, start):
        turn = lambda _, x: jnp.sin(x @ x)  # noqa: E731
        late = jax.lax.fori_loop(0, 3000, turn, jnp.ones((100, 100)))
        return paste(data, chunk, start + jnp.isnan(late[0, 0]))

    def note(*arguments):
        pasted.append(paste_late(*arguments))
        return pasted[-1]

    def read_and_look(*arguments):
        if pasted:
            assert all(leaf.is_ready() for leaf in jax.tree.leaves(pasted[-1]))
        return read(*arguments)

    monkeypatch.setattr(replay, "paste", note)
    monkeypatch.setattr(storage, "read_collect", read_and_look)
    resume.resume_run(config_lib.load(directory / "config.json"), directory)
    assert len(pasted) == 6
