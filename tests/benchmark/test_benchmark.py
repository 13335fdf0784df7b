import importlib
import itertools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest
from helpers import PRESETS, ROOT, call_script, preset, tiny_config, use_devices

from cemrl_jax.agents.cemrl.phases import Sampling
from cemrl_jax.benchmark import report as benchmark_report
from cemrl_jax.benchmark import startup
from cemrl_jax.benchmark import sweep as sweep_lib
from cemrl_jax.benchmark.rollouts import measure_rollout
from cemrl_jax.benchmark.settings import BenchmarkConfig
from cemrl_jax.benchmark.subject import Subject
from cemrl_jax.benchmark.sweep import sweep
from cemrl_jax.benchmark.timing import Row, count_kernels
from cemrl_jax.benchmark.updates import work
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError
from cemrl_jax.envs.robots import HalfCheetah

BENCHMARKS = sorted(path.stem for path in (ROOT / "configs").glob("benchmark_*.py"))


def tiny_benchmark(**changes) -> BenchmarkConfig:
    settings = {
        "base": tiny_config(),
        "num_envs": (16,),
        "batch_sizes": (16,),
        "num_devices": (2,),
        "num_steps": 3,
        "num_updates": 2,
        "replay_points": 640,
        "num_repeats": 2,
        "matmul_size": 32,
        "copy_mebibytes": 1,
    }
    return BenchmarkConfig(**(settings | changes))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    config = tiny_benchmark()
    config.validate(jax.local_device_count())
    return list(sweep(config, lambda text: None))


def numbers(tree) -> list[float]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, int | float)]


def write_rows(path: pathlib.Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_preset_is_valid_and_loads_from_its_file(name):
    config = importlib.import_module(f"cemrl_jax.configs.{name}").get_config()
    config.validate(1)
    path = str(ROOT / "configs" / f"{name}.py")
    assert command_line.read_config(path, [], BenchmarkConfig) == config


def test_overrides_reach_the_lists_and_the_training_preset():
    config = command_line.override(
        tiny_benchmark(),
        [
            "--config.num_envs=8,64",
            "--config.batch_sizes=32",
            "--config.base.sac.learning_rate=1e-4",
            "--config.base.env.robot=half_cheetah",
        ],
    )
    assert (config.num_envs, config.batch_sizes) == ((8, 64), (32,))
    assert config.base.sac.learning_rate == 1e-4
    assert isinstance(config.base.env.robot, HalfCheetah)


def test_every_broken_rule_of_a_benchmark_is_named():
    config = tiny_benchmark(num_envs=(3,), num_repeats=0, max_minutes=0.0)
    with pytest.raises(ConfigError) as error:
        config.validate(8)
    for rule in ("num_envs=(3,) must be", "num_repeats=0 must", "max_minutes=0.0 must"):
        assert rule in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_envs": ()},
        {"batch_sizes": (16, "x")},
        {"num_envs": 16},
        {"num_devices": (16,)},
        {"replay_points": 10},
    ],
)
def test_a_benchmark_that_cannot_run_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        tiny_benchmark(**changes).validate(8)


def test_training_refuses_a_benchmark_preset_and_does_not_list_it():
    path = str(ROOT / "configs" / "benchmark_cpu.py")
    with pytest.raises(ConfigError, match="must return a Config, and this is"):
        command_line.read_config(path, [])
    with pytest.raises(ConfigError, match="is missing") as error:
        command_line.read_config(None, [])
    assert "benchmark" not in str(error.value)
    with pytest.raises(ConfigError, match=r"benchmark_cpu\.py") as error:
        command_line.read_config(None, [], BenchmarkConfig)
    assert "debug" not in str(error.value)


def kernels(num_products: int) -> int:
    """Counts the kernels of a loop with so many products in a row."""
    matrix = jnp.eye(64)

    def step(x, _):
        for _ in range(num_products):
            x = jnp.sin(x @ matrix)
        return x, None

    loop = jax.jit(lambda x: jax.lax.scan(step, x, length=5)[0])
    return count_kernels(loop.lower(matrix).compile().as_text() or "")


def test_kernels_of_a_loop_are_counted():
    assert 0 < kernels(1) < kernels(4) <= 4 * kernels(1)
    program = jax.jit(jnp.sin).lower(jnp.ones(3)).compile()
    assert count_kernels(program.as_text() or "") == 0


# ---------------------------------------------------------------- rows


def test_a_row_says_what_was_measured(rows):
    (row,) = rows
    assert (row["num_envs"], row["batch_size"], row["num_devices"]) == (16, 16, 2)
    assert row["preset"] == "point-vel"
    assert set(row["seconds"]) == {
        *("rollout", "physics", "fused", "model", "policy", "embed"),
        *("fused_segments", "fused_segments_model_only", "model_segments"),
    }
    assert set(row["seconds"]) == set(row["compile_seconds"]) == set(row["kernels"])
    assert row["kernels"]["fused"] > row["kernels"]["policy"]


def test_every_number_of_a_row_is_finite_and_positive(rows):
    for row in rows:
        assert len(numbers(row)) > 50
        assert all(math.isfinite(value) and value > 0 for value in numbers(row))


def test_a_rollout_on_real_physics_is_measured_though_it_keeps_what_would_break():
    config = tiny_config(env=preset("quickstart").env)
    subject = Subject.of(config)
    row = measure_rollout(subject, num_devices=1, num_repeats=1)
    assert row["env_steps_per_second"] > 0
    assert row["physics_steps_per_second"] == 5 * row["env_steps_per_second"]


def test_rates_and_shares_follow_from_the_seconds(rows):
    for row in rows:
        seconds, steps = row["seconds"], row["num_envs"] * row["num_steps"]
        assert row["env_steps_per_second"] == pytest.approx(steps / seconds["rollout"])
        assert row["rollout_share_of_physics"] == pytest.approx(
            row["env_steps_per_second"] / row["limit_env_steps_per_second"]
        )
        assert row["samples_per_second"] == pytest.approx(
            row["batch_size"] * row["updates_per_second"]
        )


def test_a_sweep_has_a_row_for_each_combination_and_measures_nothing_twice(
    rows, monkeypatch
):
    measured = []
    sizes = ("num_envs", "batch_size", "num_devices")
    part = {name: value for name, value in rows[0].items() if name not in sizes}

    def measure_rollout(subject, num_devices, num_repeats):
        measured.append(("rollout", subject.config.rollout.num_envs))
        return part

    def measure_updates(subject, *args):
        measured.append(("updates", subject.config.sac.batch_size))
        return part

    monkeypatch.setattr(sweep_lib, "measure_rollout", measure_rollout)
    monkeypatch.setattr(sweep_lib, "measure_updates", measure_updates)
    monkeypatch.setattr(sweep_lib, "prepare_replay", lambda *args: (part, None))
    config = tiny_benchmark(num_envs=(16, 32), batch_sizes=(16, 64))
    done = list(sweep(config, lambda text: None))
    assert {(row["num_envs"], row["batch_size"]) for row in done} == {
        *((16, 16), (32, 16), (16, 64), (32, 64))
    }
    assert sorted(measured) == [
        *(("rollout", 16), ("rollout", 32), ("updates", 16), ("updates", 64))
    ]


def test_no_measurement_begins_after_the_time_is_over(rows, monkeypatch):
    said = []
    monkeypatch.setattr(sweep_lib, "prepare_replay", lambda *args: (rows[0], None))
    assert not list(sweep(tiny_benchmark(max_minutes=1e-6), said.append))
    assert "are over" in said[-1]


def test_flops_of_a_policy_step_are_those_of_its_matrix_products():
    config = tiny_config(sac__hidden_size=200, sac__num_layers=2)
    subject = Subject.of(config)
    worker = jax.eval_shape(lambda: subject.workers(2, 20, 20, 1))
    flops = work(subject, worker, Sampling(64))
    obs_size, z_size, action_size = 2, 1, 1
    actor = _products(obs_size + z_size, 200, 200, 2 * action_size)
    critic = 2 * _products(obs_size + z_size + action_size, 200, 200, 1)
    # actor: twice for values, then forward and backward. Critic: target, its own
    # forward and backward, and the actor's, which does not want its weights'.
    expected = 64 * ((2 + 3) * actor + (1 + 3 + 2) * critic)
    assert flops["policy_flops"] == pytest.approx(expected, rel=0.1)
    assert flops["update_flops"] == pytest.approx(
        flops["model_flops"] + flops["policy_flops"], rel=0.02
    )


def test_windows_of_a_segment_count_their_shared_embeddings_once():
    config = tiny_config(encoder__window_steps=6, encoder__width_factor=40.0)
    worker = jax.eval_shape(lambda: Subject.of(config).workers(2, 20, 20, 1))
    runs = Sampling(64, windows_per_segment=8)

    def count(sampling, independent):
        config.sac.independent_transitions = independent
        return work(Subject.of(config), worker, sampling)

    single, shared, both = (
        count(Sampling(64), False),
        count(runs, False),
        count(runs, True),
    )
    # nearly all work is embedding: 64 * 6 transitions, or 8 * (6 + 8 - 1)
    assert 8 * 13 / (64 * 6) < shared["model_flops"] / single["model_flops"] < 0.5
    assert shared["update_bytes"] < single["update_bytes"] < both["update_bytes"]
    # SAC's own windows have a forward pass, a third of the work of one with gradients
    alone = both["update_flops"] - shared["update_flops"]
    assert 0.25 * single["model_flops"] < alone < 0.4 * single["model_flops"]


def _products(*widths: int) -> int:
    return sum(2 * a * b for a, b in itertools.pairwise(widths))


# ---------------------------------------------------------------- script, reports


def test_the_script_writes_rows_tables_and_plots(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_lib, "sweep", lambda config, say: iter(rows))
    arguments = [
        "--config=" + str(ROOT / "configs" / "benchmark_cpu.py"),
        f"--config.output_dir={tmp_path / 'new'}",
    ]
    assert call_script("benchmark", arguments, monkeypatch) == 0
    (file,) = (tmp_path / "new").glob("benchmark_cpu_cpu_*.jsonl")
    assert benchmark_report.read_rows(file) == json.loads(json.dumps(rows))
    assert "| devices | envs | env steps/s |" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert len(list((tmp_path / "new").glob("*.png"))) == 2


def test_compare_prints_the_ratio_of_two_files(rows, tmp_path, monkeypatch, capsys):
    faster = [
        row | {"updates_per_second": 3 * row["updates_per_second"]} for row in rows
    ]
    files = [
        write_rows(tmp_path / f"{name}.jsonl", part)
        for name, part in (("a", rows), ("b", faster))
    ]
    assert call_script("benchmark", ["--compare", *files], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    (updates,) = [line for line in lines if line.startswith("fused updates/s")]
    assert updates.endswith("3.00")
    (steps,) = [line for line in lines if line.startswith("env steps/s")]
    assert steps.endswith("1.00")


def test_compare_refuses_files_without_equal_sizes(rows):
    others = [row | {"num_envs": 17} for row in rows]
    with pytest.raises(ConfigError, match="no row of the first file"):
        benchmark_report.compare(rows, others)


def test_the_table_compares_with_the_original_at_its_sizes_only(rows):
    assert "original" not in benchmark_report.table(rows)
    same = [row | benchmark_report.ORIGINAL_SIZES for row in rows]
    assert "| a policy step | 26.960 |" in benchmark_report.table(same)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config=configs/benchmark_missing.py"],
        ["--config=configs/debug.py"],
        ["--config=configs/benchmark_cpu.py", "--config.num_env=3"],
        ["--config=configs/benchmark_cpu.py", "--config.num_envs=many"],
        ["--config=configs/benchmark_cpu.py", "--base=configs/benchmark_cpu.py"],
        ["--compare", "missing.jsonl", "missing.jsonl"],
        ["--table", "pyproject.toml"],
        ["--check-predictions", "missing.jsonl", "missing.jsonl"],
        ["--config=configs/quickstart.py", "--compile-for=a100"],
        ["--config=configs/benchmark_cpu.py", "--phases=train"],
        ["--table", "a", "--config=configs/benchmark_cpu.py"],
    ],
)
def test_bad_input_exits_with_two_and_a_message(arguments, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert call_script("benchmark", arguments, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "name", sorted({"cheetah_stationary_vel", "ml10"} & {*PRESETS})
)
def test_startup_measures_the_presets_own_programs(tmp_path, monkeypatch, name):
    use_devices(monkeypatch, 1)
    base = preset(name)
    short = startup.short_run(base, tmp_path)
    short.validate(1)
    assert short.env.num_test_tasks == (10 if name == "ml10" else 1)
    assert (short.rollout.num_envs, short.sac) == (base.rollout.num_envs, base.sac)
    assert short.train.num_epochs == short.train.num_updates == 1
    assert base.train.num_epochs > 1


@pytest.mark.slow
def test_a_warm_start_is_faster_than_a_cold_one():
    row = startup.measure_startup(tiny_benchmark(), lambda text: None)
    assert 0 < row["startup_warm_seconds"] < row["startup_cold_seconds"]
