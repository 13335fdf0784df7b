"""What a run is said to need, against what a process with it takes at most."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

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
