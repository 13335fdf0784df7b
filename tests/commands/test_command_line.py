import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import (
    HAS_METAWORLD,
    PRESETS,
    ROOT,
    call_script,
    preset,
    random_transitions,
    tiny_config,
)

from cemrl_jax import config as config_lib
from cemrl_jax.commands import command_line, evaluate
from cemrl_jax.config import Config, ConfigError, EnvConfig
from cemrl_jax.envs.engines import mujoco_ffi
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Location, Stationary, Timed
from cemrl_jax.envs.tasks import Direction
from cemrl_jax.runtime import provenance

DEBUG = str(ROOT / "configs" / "debug.py")


def overridden(*arguments: str) -> Config:
    return command_line.override(preset("debug"), arguments)


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("--config.seed=3", "seed", 3),
        ("--config.sac.learning_rate=1e-4", "sac.learning_rate", 1e-4),
        ("--config.sac.discount=1", "sac.discount", 1.0),
        ("--config.encoder.kind=trajectory", "encoder.kind", "trajectory"),
        ("--config.tensorboard=false", "tensorboard", False),
        ("--config.tensorboard=true", "tensorboard", True),
        ("--noconfig.tensorboard", "tensorboard", False),
        ("--config.elbo.state_difference", "elbo.state_difference", True),
        ("--config.output_dir=/a b/c=d", "output_dir", "/a b/c=d"),
        ("--config.env.schedule.min_steps=7", "env.schedule.min_steps", 7),
        ("--config.env.task.low=-1.5", "env.task.low", -1.5),
    ],
)
def test_override_has_the_type_of_its_field(argument, path, value):
    config = overridden(argument)
    result = config_lib.get_field(config, path)
    assert result == value
    assert type(result) is type(value)


def test_override_takes_its_value_as_the_next_argument_too():
    assert overridden("--config.seed", "5").seed == 5


def test_override_changes_nothing_else():
    expected = preset("debug")
    expected.sac.batch_size = 128
    assert overridden("--config.sac.batch_size=128") == expected


def test_a_named_schedule_has_fields_of_its_own_in_any_order():
    config = overridden(
        "--config.env.schedule.spacing=4", "--config.env.schedule=location"
    )
    assert config.env.schedule == Location(spacing=4.0)


def test_robot_task_and_schedule_can_be_named():
    config = overridden(
        "--config.env.robot=point",
        "--config.env.robot.gain=0.25",
        "--config.env.task=direction",
        "--config.env.schedule=timed",
        "--config.env.schedule.min_steps=7",
    )
    assert config.env.robot == Point(gain=0.25)
    assert config.env.task == Direction()
    assert config.env.schedule == Timed(min_steps=7)


def test_tuples_can_be_overridden():
    config = overridden("--config.env.task=direction", "--config.env.task.starts=(1.,)")
    assert config.env.task == Direction(starts=(1.0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.sac.learnin_rate=1"],
            "unknown field sac.learnin_rate; did you mean sac.learning_rate?",
        ),
        (
            ["--config.batch_size=1"],
            "unknown field batch_size; did you mean sac.batch_size?",
        ),
        (
            ["--config.sac.batch_size=many"],
            "sac.batch_size='many' must be of type int",
        ),
        (
            ["--config.sac.batch_size=1.5"],
            "sac.batch_size='1.5' must be of type int",
        ),
        (["--config.sac.discount=x"], "sac.discount='x' must be of type float"),
        (["--config.tensorboard=maybe"], "tensorboard='maybe' must be of type bool"),
        (
            ["--config.env.robot=pointt"],
            "env.robot='pointt' must be one of .*; did you mean point?",
        ),
        (["--config.env.task=hurdle"], "env.task='hurdle' must be one of velocity"),
        (["--config.sac=3"], "--config.sac is a group; name one of its fields"),
        (["--seed=3"], "unknown argument --seed=3; see --help"),
        (["--configs.seed=3"], "unknown argument --configs.seed=3; see --help"),
        (["extra"], "unknown argument extra; see --help"),
        (
            ["--config.env.schedule=timed", "--config.env.schedule.spacing=1"],
            "unknown field env.schedule.spacing",
        ),
    ],
)
def test_bad_override_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        overridden(*arguments)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_from_its_file(name):
    path = ROOT / "configs" / f"{name}.py"
    assert command_line.read_config(str(path), []) == preset(name)


def test_a_saved_json_gives_an_equal_configuration_and_can_be_overridden(tmp_path):
    path = tmp_path / "config.json"
    config = tiny_config(env__schedule=Timed(min_steps=7), seed=9)
    config_lib.save(config, path)
    assert command_line.read_config(str(path), []) == config
    config.env.schedule = Timed(min_steps=3)
    assert (
        command_line.read_config(str(path), ["--config.env.schedule.min_steps=3"])
        == config
    )


def test_missing_config_argument_lists_the_presets():
    with pytest.raises(ConfigError, match="--config=FILE is missing") as error:
        command_line.read_config(None, [])
    assert all(f"configs/{name}.py" in str(error.value) for name in PRESETS)
    assert "configs/base.py" not in str(error.value)


def test_missing_file_names_the_nearest_preset():
    with pytest.raises(ConfigError, match=r"did you mean configs/debug\.py\?"):
        command_line.read_config("configs/debgu.py", [])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "def get_config():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("a.py", "import nothing_like_this\n", "ModuleNotFoundError"),
        ("a.py", "def get_config(:\n", "SyntaxError"),
        ("a.py", "x = 1\n", "AttributeError"),
        ("a.py", "def get_config():\n    return {}\n", "must return a Config"),
        ("a.json", "{,}", "not valid JSON"),
        ("a.yaml", "seed: 1", r"must be a \.py or a \.json file"),
    ],
)
def test_file_without_a_configuration_is_named(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        command_line.load_file(path)
    assert str(path) in str(error.value)


def test_a_preset_is_imported_by_name_unless_that_is_taken(monkeypatch, tmp_path):
    before = set(sys.modules)
    text = "from cemrl_jax.configs.debug import get_config\nTEXT = {!r}\n"
    for name in ("mine", "json", "this", "with.dots"):
        path = tmp_path / f"{name}.py"
        path.write_text(text.format(name))
        for _ in range(2):
            assert command_line.load_file(path).name == "point-vel"
    new = {name: sys.modules.pop(name) for name in set(sys.modules) - before}
    found = {
        module.TEXT: name for name, module in new.items() if "TEXT" in vars(module)
    }
    assert found["mine"] == "mine"
    assert found["with.dots"] == "with.dots"
    for name in ("json", "this"):  # loaded, and to be found, in the standard library
        assert found[name] == str(tmp_path / f"{name}.py")
    assert json.loads("1") == 1


# ---------------------------------------------------------------- scripts


def called(
    name: str, arguments: list[str], monkeypatch, capsys
) -> tuple[int, str, str]:
    """Returns a script's exit code and what it printed."""
    code, printed = call_script(name, arguments, monkeypatch), capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def test_help_mentions_every_field(monkeypatch, capsys):
    code, out, _ = called("train", ["--help"], monkeypatch, capsys)
    assert code == 0
    for path in config_lib.field_paths(Config()):
        assert f"--config.{path}=" in out
    for option in ("--config", "--resume", "--init-from", "--check", "examples"):
        assert option in out
    for table in config_lib.TABLES.values():
        for name in table:
            assert re.search(rf"\b{name}\b", out)


def test_help_of_a_preset_has_its_own_fields_and_values(monkeypatch, capsys):
    path = str(ROOT / "configs" / "cheetah_non_stationary_vel.py")
    code, out, _ = called("train", [f"--config={path}", "--help"], monkeypatch, capsys)
    assert code == 0
    assert "--config.env.schedule.spacing=10.0" in out
    assert "--config.name=cheetah-non-stationary-vel" in out


def test_check_accepts_a_valid_configuration_and_writes_nothing(
    monkeypatch, capsys, tmp_path
):
    arguments = [f"--config={DEBUG}", "--check", f"--config.output_dir={tmp_path}/out"]
    code, out, _ = called("train", arguments, monkeypatch, capsys)
    assert (code, out) == (0, "the configuration is valid\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config=FILE is missing"),
        (["--config=nothing.py"], "no such file"),
        ([f"--config={DEBUG}", "--config.sac.batch_sice=3"], "did you mean"),
        ([f"--config={DEBUG}", "--config.rollout.num_steps=-1"], "must be at least 1"),
        ([f"--config={DEBUG}", "--config.sac.batch_size=9"], "multiple of the 8"),
        ([f"--config={DEBUG}", "--frobnicate"], "unknown argument"),
        ([f"--config={DEBUG}", "--resume=x"], "--resume takes its configuration"),
        (["--resume=missing-run"], "--resume=missing-run: no run there"),
    ],
)
def test_bad_input_exits_2_with_a_message_and_writes_nothing(
    arguments, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code, out, err = called("train", arguments, monkeypatch, capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run=missing-run"], "cannot read missing-run/config.json"),
        (["--run=x", "--episodes=0"], "--episodes=0 must be at least 1"),
    ],
)
def test_bad_input_to_evaluate_exits_2_and_writes_nothing(
    arguments, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code, _, err = called("evaluate", arguments, monkeypatch, capsys)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def saved_config(folder: pathlib.Path, output_dir: str) -> str:
    path = folder / "tiny.json"
    config_lib.save(tiny_config(output_dir=output_dir), path)
    return str(path)


def test_an_output_folder_below_a_file_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    path = saved_config(tmp_path, str(tmp_path / "file" / "below"))
    code, _, err = called("train", [f"--config={path}"], monkeypatch, capsys)
    assert code in (1, 2)
    assert str(tmp_path / "file") in err


def test_a_run_folder_that_exists_is_refused_and_left_alone(
    monkeypatch, capsys, tmp_path
):
    class Noon:
        @staticmethod
        def now() -> "Noon":
            return Noon()

        @staticmethod
        def strftime(form: str) -> str:
            del form
            return "noon"

    monkeypatch.setattr("datetime.datetime", Noon)
    folder = tmp_path / "point-vel" / "noon-0"
    folder.mkdir(parents=True)
    path = saved_config(tmp_path, str(tmp_path))
    code, _, err = called("train", [f"--config={path}"], monkeypatch, capsys)
    assert code == 2
    assert f"{folder} exists already" in err
    assert list(folder.iterdir()) == []


def in_a_process(script: str, *arguments: str) -> str:
    """Runs a script as a user does, on one device; returns what it printed."""
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_crash_of_native_code_says_where_it_was_called():
    program = """
import faulthandler
from cemrl_jax.commands import command_line
def steps_the_physics():
    faulthandler._sigsegv()
command_line.run(steps_the_physics)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr
    assert "in steps_the_physics" in done.stderr


def test_training_in_a_process_of_its_own_writes_a_run_that_evaluate_reads(tmp_path):
    path = saved_config(tmp_path, str(tmp_path / "out"))
    printed = in_a_process(
        "train",
        f"--config={path}",
        "--config.train.num_epochs=1",
        "--config.encoder.num_classes=2",
        "--profile",
    )
    (run,) = (tmp_path / "out" / "point-vel").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-0", run.name)
    assert {"config.json", "tasks.npz", "progress.csv", "checkpoints"} <= {
        file.name for file in run.iterdir()
    }
    assert list(run.glob("profile/**/*.xplane.pb"))
    assert f"results in {run}" in printed
    data = json.loads((run / "config.json").read_text())
    assert data["encoder"]["num_classes"] == 2
    (start,) = provenance.read(run)
    assert "scripts/train.py --config=" in start["command"]
    assert start["versions"]["jax"] == jax.__version__
    assert start["revision"] == provenance.revision()
    assert (start["platform"], start["engine"], start["epoch"]) == ("cpu", None, 0)
    in_a_process("evaluate", f"--run={run}", "--episodes=1")
    lines = (run / "evaluation.csv").read_text().splitlines()
    assert lines[0] == ",".join(evaluate.COLUMNS)
    assert len(lines) == 1 + 8 * 4  # two protocols, four cases each, four tasks
    assert sum(line.startswith("extrapolate/") for line in lines) == 2 * 4


@pytest.mark.slow
@pytest.mark.skipif(not HAS_METAWORLD, reason="needs the metaworld package")
def test_a_run_is_evaluated_and_shown_on_tasks_with_other_models(tmp_path):
    config = tiny_config(output_dir=str(tmp_path / "out"), name="two")
    names, others = ("reach", "drawer-close"), ("sweep-into", "door-close")
    config.env = EnvConfig(
        Sawyer(), Manipulation(names, others), Stationary(), "auto", 4, 4
    )
    config.train.num_epochs = 1
    config_lib.save(config, tmp_path / "two.json")
    in_a_process("train", f"--config={tmp_path / 'two.json'}")
    (run,) = (tmp_path / "out" / "two").iterdir()
    printed = in_a_process("evaluate", f"--run={run}", "--episodes=2")
    rates = r"extrapolate tasks solved: sweep-into \d+%, door-close \d+%\n"
    assert re.search(rates, printed)
    assert re.search(r"test tasks solved: reach \d+%, drawer-close \d+%\n", printed)
    with (run / "evaluation.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"].startswith("extra")]
    assert len(rows) == 2 * 4 * 2
    assert {row["first_number"] for row in rows} == {"0", "1", "2", "3"}
    assert all(row["tasks"] == "1" for row in rows)
    in_a_process("analyse", str(run), "--tasks=4", f"--output={tmp_path / 'report'}")
    assert "could not be made" not in (tmp_path / "report/report.html").read_text()
    with (tmp_path / "report/encodings.csv").open() as file:
        shown = {(row["pool"], row["base"]) for row in csv.DictReader(file)}
    assert {("extrapolate", "2"), ("extrapolate", "3"), ("test", "1")} < shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (command_line.CheckpointError("broken"), 1),
        (FloatingPointError("nan"), 1),
        (OSError(28, "No space left on device", "/disk/x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_become_one_line_and_an_exit_code(error, code, capsys):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        command_line.run(main)
    assert end.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_disk_is_named_with_the_file(capsys):
    def main() -> None:
        raise OSError(28, "No space left on device", "/disk/x")

    with pytest.raises(SystemExit):
        command_line.run(main)
    message = "error: /disk/x: No space left on device\n"
    assert capsys.readouterr().err == message


def test_changes_count_up_to_the_fall_whatever_part_of_the_task_changes():
    """A pool of dynamics tasks differs in its overrides alone: their numbers tell."""
    steps = random_transitions(0, 8, steps=np.arange(8))
    number = np.array([2, 2, 5, 5, 5, 2, 3, 3], np.int32)
    task = steps.task.replace(spec=np.ones(8, np.float32), number=number)
    whole = evaluate.summary(steps.replace(task=task))
    assert whole == [8, 2, 3, "1", "1", 3]
    fallen = (np.arange(8) == 4).astype(np.float32)
    short = evaluate.summary(steps.replace(task=task, terminated=fallen))
    assert short == [5, 2, 5, "1", "1", 1]


def test_build_engine_says_where_the_engine_is_or_what_is_missing(
    monkeypatch, capsys, tmp_path
):
    path = tmp_path / "engine.so"
    monkeypatch.setattr(mujoco_ffi, "library_path", lambda: path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    code, out, err = called("build_engine", [], monkeypatch, capsys)
    assert (code, out) == (1, "")
    assert err.startswith("error: the engine mujoco_ffi is built on Linux by a C++")
    path.touch()
    code, out, _ = called("build_engine", [], monkeypatch, capsys)
    assert (code, out) == (0, f"the engine mujoco_ffi was built before: {path}\n")
