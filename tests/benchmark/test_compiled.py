"""Programs compiled for devices that are not here."""

import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

import pytest
from helpers import ROOT, tiny_config

from cemrl_jax.benchmark import compiled, counts, devices, hlo, predictions, report
from cemrl_jax.benchmark.compiled import Steps
from cemrl_jax.benchmark.counts import Counts
from cemrl_jax.config import ConfigError
from cemrl_jax.training import state
from cemrl_jax.training.run import make_pools

COMMITTED = ROOT / "benchmarks" / "results" / "compiled.jsonl"
RATCHET = (
    *("kernels_per_step", "dynamic_loops", "host_reads", "collectives"),
    *("replay_copies", "callbacks", "host_transfers"),
)
"""What must not go up."""
COMPILERS = {"h100": "jax_plugins", "tpu-v5e:2x2": "libtpu"}
PROGRAM = pathlib.Path(__file__).with_name("program.hlo")


def target(name: str = "h100", num_chips: int = 1, **shape) -> devices.Target:
    return devices.Target(name, devices.DEVICES[name], (None,) * num_chips, **shape)


def compiled_row(**changes) -> report.Row:
    """The row of the program of ten steps, as if it were a preset's update."""
    block = counts.Counter(hlo.parse(PROGRAM.read_text()), frozenset({4000})).count()
    row = {
        **{"measure": "compiled", "target": "h100", "phase": "train"},
        **{"preset": "point-vel", "engine": "mjx", "platform": "cuda"},
        **{"device_kind": "NVIDIA H100 80GB HBM3", "revision": "abc"},
        **{"date": "2026-11-26", "num_devices": 1, "num_envs": 16, "batch_size": 16},
        "versions": {"jax": "0.11.2", "mujoco-mjx": "3.17.0", "python": "3.12"},
        **{"temporary_bytes": 3_000_000, "phase_compile_seconds": 2.0},
    }
    steps = Steps("update", 10, "updates_per_second")
    return row | compiled.summary(block, steps, target()) | changes


# ---------------------------------------------------------------- prediction


def test_a_step_takes_as_long_as_what_it_needs_most_of():
    device = devices.DEVICES["h100"]
    assert device.launch_seconds is not None
    done = Counts({"kernels/copy": 100, "bytes": 3_350_000, "flops/product": 4947})
    times = compiled.predict(done, target())
    assert times["launches"] == pytest.approx(100 * device.launch_seconds)
    assert times["bytes"] == pytest.approx(1e-6)
    assert times["flops"] == pytest.approx(1e-11)
    assert times["seconds"] == times["launches"]
    done["flops/precise"] = int(device.precise_flops)
    assert compiled.predict(done, target())["seconds"] == pytest.approx(1, rel=1e-3)


def test_a_step_that_waits_for_launches_has_room_for_more():
    few = Counts({"kernels/copy": 10, "bytes": 3_350_000})
    assert compiled.room(compiled.predict(few, target())) == pytest.approx(30)
    much = Counts({"kernels/copy": 10, "bytes": 3_350_000_000})
    assert compiled.room(compiled.predict(much, target())) is None


def test_collectives_cost_nothing_alone_and_more_the_more_devices_there_are():
    done = Counts({"collectives": 3, "collective_bytes": 1_000_000})
    of_tpus = [
        compiled.predict(done, target("tpu-v5e", number, sides=sides))["collectives"]
        for number, sides in ((1, (1,)), (4, (2, 2)), (64, (8, 8)), (256, (16, 16)))
    ]
    of_gpus = [
        compiled.predict(done, target("h100", number, num_hosts=hosts))["collectives"]
        for number, hosts in ((1, 1), (8, 1), (16, 2), (64, 8))
    ]
    for times in (of_tpus, of_gpus):
        assert times[0] == 0
        assert times == sorted(set(times))
    # 1.5 MB each way over 200 GB/s, and three times there and back over two hops
    assert of_tpus[1] == pytest.approx(1.5e6 / 200e9 + 3 * 4 * 1e-6)


def test_what_is_around_the_steps_is_told_from_the_steps():
    row = compiled_row()
    assert (row["kernels_per_step"], row["kernels_around"]) == (14, 1)
    assert row["predicted_updates_per_second"] == pytest.approx(
        10 / row["predicted_phase_seconds"]
    )
    assert [line.strip().split(":")[0] for line in row["loops"]] == [
        "10 x 6",
        "4 x at most 2",
    ]


def test_validations_count_once_in_an_interval():
    module = hlo.parse(PROGRAM.read_text())
    outer = counts.Counter(module).count()
    steps = Steps("model step", 100, "model_steps_per_second", depth=2, interval=4)
    per_step, around = compiled.split(outer, steps)
    assert counts.num_kernels(per_step) == 2  # the solver's loop within the ten
    # the copy at the end, and 25 times the rest of the outer loop's body
    assert counts.num_kernels(around) == 1 + 25 * 6


def test_model_steps_that_nothing_validates_are_one_loop():
    config = tiny_config(train__schedule="alternating")
    steps = compiled.steps_of(config)["world_model"]
    assert (steps.depth, steps.interval) == (2, config.train.validation_interval)
    config.train.early_stopping_steps = 0
    alone = compiled.steps_of(config)["world_model"]
    assert (alone.depth, alone.interval, alone.count) == (1, 1, steps.count)


def test_every_device_says_where_its_figures_come_from():
    for device in devices.DEVICES.values():
        named = {name for names in device.sources for name in names.split(", ")}
        assert {"bandwidth", "memory", "link", "product_flops"} <= named
        assert device.precise_flops <= device.product_flops


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["a100", "h100x0", "tpu-v5e:4", "tpu-v9:2x2", ""])
def test_unknown_devices_are_refused_with_the_known_ones(name):
    with pytest.raises(ConfigError, match="it takes h100, h100x4, tpu-v5e"):
        devices.find_target(name)


@pytest.mark.parametrize("name", COMPILERS)
def test_a_compiler_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[(cuda13|tpu)\]'"):
        devices.find_target(name)


def test_shapes_for_described_devices_split_environments_and_replay():
    config = tiny_config()
    tasks = make_pools(config)["train"]
    one, four = (state.shapes(config, 1, tasks, number) for number in (1, 4))
    assert four.worker.key.shape == (4,)
    of_one, of_four = (x.worker.replay.data.lines.shape for x in (one, four))
    assert of_four == (4, of_one[1] // 4, of_one[2])


def test_compiled_phases_have_the_physics_of_accelerators():
    config = tiny_config()
    assert compiled.on_accelerator(config).env.engine == "mjx"


# ---------------------------------------------------------------- reports


def test_measured_rates_are_written_beside_the_predicted_ones(tmp_path):
    row = compiled_row()
    measured = {
        **{"measure": "sweep", "preset": "point-vel", "num_devices": 1},
        **{"batch_size": 16, "num_envs": 99, "updates_per_second": 500.0},
        **{"platform": "cuda", "device_kind": "NVIDIA H200", "revision": "def"},
    }
    (joined,) = predictions.with_measured([row], [measured])
    assert joined["measured_updates_per_second"] == 500
    ratio = joined["measured_over_predicted_updates_per_second"]
    assert ratio == pytest.approx(500 / row["predicted_updates_per_second"])
    assert "H200" in joined["measured_on"]
    assert f"| {ratio:.2f} |" in report.table([joined])
    with pytest.raises(ConfigError, match="no row of the second file"):
        predictions.with_measured([row], [measured | {"batch_size": 32}])
    with pytest.raises(ConfigError, match="rows of --compile-for alone"):
        predictions.with_measured([measured], [measured])


def test_the_table_says_that_nothing_was_run():
    table = report.table([compiled_row()])
    assert "prediction from data sheets, not a measurement" in table
    assert "| h100 | train | update | 14 |" in table
    assert "measured / predicted" not in table


def test_more_devices_become_a_table_with_a_line_for_each_target():
    sizes = {"peak_memory_bytes": 5e6, "fitting_transitions": 7}
    rows = [
        compiled_row(**sizes),
        compiled_row(phase="collect", fitting_envs=9, **sizes),
        compiled_row(target="h100x2", num_devices=2, **sizes),
    ]
    one, two = predictions.scale(rows).splitlines()[-2:]
    assert one.startswith("| point-vel | h100 | 1 | 16 | 16 | 5 | 1 | 0 | 0 % |")
    assert one.endswith("| 9 | 7 |")
    assert two.startswith("| point-vel | h100x2 | 2 | 8 | 8 | 5 |")
    with pytest.raises(ConfigError, match="rows of --compile-for alone"):
        predictions.only_compiled([{"measure": "sweep"}])


def test_compare_shows_what_became_of_the_kernels():
    new = compiled_row(kernels_per_step=7)
    lines = report.compare([compiled_row()], [new]).splitlines()
    (kernels,) = [line for line in lines if line.startswith("kernels  ")]
    assert kernels.split()[-3:] == ["14.0", "7.00", "0.50"]
    with pytest.raises(ConfigError, match="no row of the first file"):
        report.compare([compiled_row()], [compiled_row(phase="collect")])


# ---------------------------------------------------------------- ratchet


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILERS)
def test_compiled_programs_do_not_get_worse(name, tmp_path):
    if importlib.util.find_spec(COMPILERS[name]) is None:
        pytest.skip(f"compiles for {name} only where its extra is installed")
    committed = {
        row["phase"]: row
        for row in report.read_rows(COMMITTED)
        if (row["preset"], row["target"]) == ("quickstart", name)
    }
    assert committed
    versions = {row["versions"]["jax"] for row in committed.values()}
    if versions != {importlib.metadata.version("jax")}:
        pytest.skip(f"the committed programs are of jax {versions}")
    output = tmp_path / "rows.jsonl"
    script = ROOT / "scripts" / "benchmark.py"
    preset = ROOT / "configs" / "quickstart.py"
    command = [sys.executable, str(script), f"--config={preset}"]
    command += [f"--compile-for={name}", f"--output={output}"]
    subprocess.run(command, cwd=ROOT, check=True)
    rows = {row["phase"]: row for row in report.read_rows(output)}
    assert set(rows) == set(committed)
    for phase, row in rows.items():
        for field in RATCHET:
            assert row[field] <= committed[phase][field], (phase, field)
