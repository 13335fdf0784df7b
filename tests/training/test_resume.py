"""Going on with a run: where, with what, and what may change."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

import helpers
import jax
import numpy as np
import pytest
from helpers import (
    changed,
    preset,
    read_rows,
    run_training,
    tiny_config,
    use_devices,
)

from cemrl_jax import config as config_lib
from cemrl_jax.commands import train as command
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.runtime import parallel
from cemrl_jax.training import changes, resume, signals, storage
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.lock import Lock


class StopAfter(signals.StopRequest):
    """Asks to stop when it has been asked so often: before each phase, and each row."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def reason(self) -> int:
        self.left -= 1
        return 0 if self.left >= 0 else signals.TIME_IS_UP


def assert_equal_runs(first: Any, second: Any) -> None:
    """Same rows and same weights, bit by bit."""
    assert read_rows(first.directory) == read_rows(second.directory)
    before, after = jax.device_get((first.learner, second.learner))
    assert not [path for path, differs in changed(before, after).items() if differs]


@pytest.fixture(
    scope="module",
    params=["fused", pytest.param("alternating", marks=pytest.mark.slow)],
)
def whole(request, tmp_path_factory) -> Any:
    """A run that was never stopped, on one device."""
    config = tiny_config(
        train__schedule=request.param, rollout__num_initial=2, checkpoint__interval=2
    )
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        return run_training(config, tmp_path_factory.mktemp(request.param) / "whole")


# ---------------------------------------------------------------- where it goes on


def test_a_run_resumed_from_its_checkpoint_of_epoch_0_equals_one_never_stopped(
    whole, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    stop = StopAfter(4)  # two initial collects, the row of epoch 0, a collect
    stopped = run_training(whole.config, tmp_path / "parts", stop=stop)
    assert storage.complete(tmp_path / "parts" / "checkpoints") == [0]
    storage.shutil.rmtree(tmp_path / "parts" / "interrupted")  # as if it were killed
    assert (stopped.epoch, stopped.phase) == (0, 1)
    parts = run_training(whole.config, tmp_path / "parts", resume=True)
    assert_equal_runs(parts, whole)


@pytest.mark.parametrize("phases", range(1, 9))
def test_a_run_stopped_after_any_phase_goes_on_to_the_last_digit(
    whole, phases, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    directory = tmp_path / "parts"
    run = run_training(whole.config, directory, stop=StopAfter(phases))
    assert not run.is_finished
    again = resume.resume_run(whole.config, directory)
    assert again.position() == run.position()
    parts = run_training(whole.config, directory, resume=True)
    assert_equal_runs(parts, whole)
    assert not (directory / "interrupted").exists()


def test_a_run_that_stops_at_every_phase_goes_on_to_the_last_digit(
    whole, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    directory = tmp_path / "parts"
    run = run_training(whole.config, directory, stop=StopAfter(0))
    starts = 1
    while not run.is_finished:
        run = run_training(whole.config, directory, resume=True, stop=StopAfter(1))
        starts += 1
    assert starts > 6
    assert_equal_runs(run, whole)


@pytest.mark.parametrize("phase", ["collect", "train", "evaluate", "save"])
def test_sigterm_in_any_phase_saves_and_the_run_goes_on_to_the_last_digit(
    whole, phase, monkeypatch, tmp_path
):
    class Signalled(helpers.Progress):
        left = 2  # the second time that the phase runs

        def phase(self, name: str) -> None:
            self.left -= name in (phase, {"train": "policy"}.get(phase))
            if not self.left:
                self.left = -1
                os.kill(os.getpid(), signal.SIGTERM)
                while not stop.signal:
                    time.sleep(0.001)

    use_devices(monkeypatch, 1)
    monkeypatch.setattr(helpers, "Progress", Signalled)
    stop = signals.StopRequest()
    with signals.listening(stop, ""):
        run = run_training(whole.config, tmp_path / "parts", stop=stop)
    assert stop.signal == signal.SIGTERM
    assert not run.is_finished or phase == "save"
    monkeypatch.undo()
    use_devices(monkeypatch, 1)
    parts = run_training(whole.config, tmp_path / "parts", resume=True)
    assert_equal_runs(parts, whole)


def test_max_hours_are_a_reason_to_stop_and_exit_with_0(monkeypatch):
    stop = signals.StopRequest(max_hours=1.0)
    assert stop.reason() == 0
    stop.start -= 3601
    assert signals.name(stop.reason()) == "train.max_hours"
    assert signals.exit_code(stop.reason(), exit_zero=False) == 0


def test_a_signal_exits_with_its_number_or_as_it_was_asked_to():
    assert signals.exit_code(signal.SIGTERM, exit_zero=False) == 143
    assert signals.exit_code(signal.SIGINT, exit_zero=False) == 130
    assert signals.exit_code(signal.SIGTERM, exit_zero=True) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_a_second_signal_or_one_before_the_first_phase_exits_at_once(
    at_once, monkeypatch, capsys
):
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(signals, "_ONE_REQUEST_SECONDS", 0.0)
    stop = signals.StopRequest(at_once=at_once)
    with signals.listening(stop, "to go on: do this"):
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: stop.signal)
        assert left == ([130] if at_once else [])
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: 143 in left)
    assert "stopped at once; to go on: do this" in capsys.readouterr().out


def test_signals_within_a_second_are_one_request(monkeypatch):
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    stop = signals.StopRequest(at_once=False)
    with signals.listening(stop, ""):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: stop.signal)
            time.sleep(0.01)
    assert not left


def wait_until(holds: Any) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_run_that_has_saved_nothing_begins_again_with_its_tasks(
    whole, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    stopped = run_training(whole.config, tmp_path / "parts", stop=StopAfter(0))
    assert stopped.clock == 0
    assert storage.newest(tmp_path / "parts") is None
    parts = run_training(whole.config, tmp_path / "parts", resume=True)
    assert_equal_runs(parts, whole)


def test_resume_needs_no_cpu_backend(whole, monkeypatch):
    """As with JAX_PLATFORMS=cuda."""
    devices = jax.local_devices

    def without_cpu(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return devices(*args, backend=backend, **kwargs)

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    run = resume.resume_run(whole.config, whole.directory)
    assert run.epoch == 2


def test_a_run_that_does_not_fit_is_refused_before_its_replay_is_read(
    whole, monkeypatch
):
    """What was read already would no longer be free, and would count twice."""

    def read(*_: Any) -> None:
        raise AssertionError("the state was read before the memory was compared")

    use_devices(monkeypatch, 1)
    monkeypatch.setattr(resume.Reopened, "restore", read)
    monkeypatch.setattr(parallel, "memory_bytes", lambda: 1000)
    config = config_lib.load(whole.directory / "config.json")
    config.train.num_epochs = 3
    with pytest.raises(ConfigError, match="must be lower: each device needs"):
        command.train(config, [whole.directory])


def test_a_finished_run_is_finished_and_a_longer_one_is_not(whole):
    config = whole.config
    assert resume.is_finished(config, whole.directory)
    longer = tiny_config(train__num_epochs=3)
    assert not resume.is_finished(longer, whole.directory)


# ---------------------------------------------------------------- which run


def make_run(directory: pathlib.Path, config: Config) -> pathlib.Path:
    directory.mkdir(parents=True)
    config_lib.save(config, directory / "config.json")
    return directory


def test_latest_is_the_newest_run_of_the_name_and_the_seed(tmp_path):
    config = tiny_config(output_dir=str(tmp_path), seed=1)
    assert resume.find_run("latest", config) is None
    own = tmp_path / config.name
    make_run(own / "2026-01-01_00-00-00-1", config)
    newest = make_run(own / "2026-01-02_00-00-00-1", config)
    make_run(own / "2026-01-03_00-00-00-11", config)
    make_run(own / "2026-01-03_00-00-00-0", config)
    (own / "2026-01-04_00-00-00-1").mkdir()  # died before it was a run
    make_run(tmp_path / "other" / "2026-01-05_00-00-00-1", config)
    assert resume.find_run("latest", config) == newest


def test_latest_in_a_folder_is_its_newest_run_whatever_the_seed(tmp_path):
    make_run(tmp_path / "2026-01-01_00-00-00-0", tiny_config())
    newest = make_run(tmp_path / "2026-01-02_00-00-00-1", tiny_config(seed=1))
    assert resume.find_run(f"{tmp_path}/latest", None) == newest
    with pytest.raises(ConfigError, match="no run in"):
        resume.find_run(f"{tmp_path}/nothing/latest", None)


def test_latest_without_a_configuration_says_what_is_missing():
    with pytest.raises(ConfigError, match="needs --config, or say --resume=FOLDER/lat"):
        resume.find_run("latest", None)


# ---------------------------------------------------------------- what may change


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rollout__num_steps", 10, "rollout.num_steps=10 must stay 20"),
        ("rollout__num_envs", 8, "rollout.num_envs=8 must stay 16"),
        ("rollout__num_initial", 5, "rollout.num_initial=5 must stay 1"),
        ("encoder__latent_size", 3, "encoder.latent_size=3 must stay 1"),
        ("sac__discount", 0.5, "sac.discount=0.5 must stay 0.9"),
        ("sac__context", "blind", "sac.context=blind must stay inferred"),
        ("env__robot", HalfCheetah(), "env.robot=half_cheetah must stay point"),
    ],
)
def test_a_field_that_must_stay_is_refused_with_both_values(field, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        changes.check_resume(tiny_config(), tiny_config(**{field: value}))


def test_every_field_that_must_stay_is_named_at_once():
    given = tiny_config(rollout__num_steps=10, seed=4)
    with pytest.raises(ConfigError) as error:
        changes.check_resume(tiny_config(), given)
    assert "seed=4 must stay 0" in str(error.value)
    assert "rollout.num_steps=10 must stay 20" in str(error.value)
    assert "other values of output_dir, tensorboard" in str(error.value)


def test_fields_of_the_table_may_change():
    given = tiny_config(
        train__num_epochs=99,
        train__precision="default",
        train__max_hours=1.5,
        sac__learning_rate=1e-5,
        replay__capacity=10**6,
        evaluation__interval=7,
        checkpoint__keep=9,
        output_dir="elsewhere",
        tensorboard=True,
        logging__wandb=True,
    )
    changes.check_resume(tiny_config(), given)


def test_every_entry_of_the_tables_is_a_field_of_the_configuration():
    fields = config_lib.field_paths(Config())
    groups = {field.rpartition(".")[0] for field in fields}
    groups |= {"env.robot", "env.task"}  # may have no field
    for pattern in (*changes.MAY_CHANGE, *changes.SHAPES):
        assert pattern in fields or pattern.removesuffix(".*") in groups, pattern


def test_resume_with_another_episode_length_is_refused_and_changes_nothing(whole):
    before = sorted(path for path in whole.directory.rglob("*"))
    with pytest.raises(ConfigError, match="num_steps=10 must stay 20"):
        resume.resume_run(tiny_config(rollout__num_steps=10), whole.directory)
    assert sorted(path for path in whole.directory.rglob("*")) == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("encoder__num_classes", 4, "encoder.num_classes=4 must be 1"),
        ("encoder__width_factor", 2.0, "encoder.width_factor=2.0 must be 1.0"),
        ("elbo__prior", "learnt", "elbo.prior=learnt must be fixed"),
        ("sac__num_layers", 2, "sac.num_layers=2 must be 1"),
        ("sac__normalize_obs", True, "sac.normalize_obs=True must be False"),
        ("env__robot", HalfCheetah(), "env.robot=half_cheetah must be point"),
    ],
)
def test_init_from_names_the_fields_that_decide_the_shapes(field, value, message):
    given = tiny_config(**{field: value, "sac__discount": 0.5})
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        changes.check_weights(tiny_config(), given)
    assert "discount" not in str(error.value)


def test_init_from_takes_weights_for_another_task_and_another_discount():
    given = tiny_config(sac__discount=0.5, seed=3, rollout__num_steps=10)
    given.env.task.high = 9.0  # pyright: ignore[reportAttributeAccessIssue]
    changes.check_weights(tiny_config(), given)


# ---------------------------------------------------------------- one process at a time


IN_USE = r"is in use by process \d+ on"


def test_a_run_that_is_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with Lock(tmp_path), pytest.raises(ConfigError, match=IN_USE):
        Lock(tmp_path).__enter__()
    with Lock(tmp_path):
        pass


def test_a_process_that_was_killed_holds_no_lock(tmp_path):
    script = "import pathlib, sys\nfrom cemrl_jax.training.lock import Lock\n"
    script += "with Lock(pathlib.Path(sys.argv[1])):\n    print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(helpers.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(ConfigError, match=f"is in use by process {process.pid} on"):
            Lock(tmp_path).__enter__()
        process.kill()
    with Lock(tmp_path):
        pass


def test_training_refuses_a_run_that_another_process_writes(whole):
    config = config_lib.load(whole.directory / "config.json")
    config.train.num_epochs = 3
    with Lock(whole.directory), pytest.raises(ConfigError, match=IN_USE):
        command.train(config, [whole.directory])


# ---------------------------------------------------------------- words


def test_a_finished_run_says_so_and_compiles_nothing(whole, monkeypatch, capsys):
    def compile_it(*_: Any) -> None:
        raise AssertionError("a finished run was compiled")

    monkeypatch.setattr("cemrl_jax.runtime.programs.Program.__init__", compile_it)
    assert command.train(whole.config, [whole.directory]) == 0
    printed = capsys.readouterr().out
    assert "is finished: all 2 epochs are done; a larger" in printed


def test_the_way_on_is_shown_only_where_there_is_one(whole, tmp_path):
    run = storage.dataclasses.replace(whole, directory=tmp_path)
    assert command.way_on([run]) == ""
    assert f"--resume={whole.directory}" in command.way_on([whole])
    config = tiny_config(checkpoint__replay=False)
    weights = storage.dataclasses.replace(whole, config=config)
    assert f"--init-from={whole.directory}" in command.way_on([weights])


def test_the_runs_of_a_preset_have_a_folder_of_their_own():
    names = [preset(name).name for name in ("quickstart", "cheetah_stationary_vel")]
    assert len(set(names)) == 2


def test_scripts_that_messages_name_exist():
    root = pathlib.Path(__file__).parent.parent.parent
    for path in (root / "cemrl_jax").rglob("*.py"):
        for script in re.findall(r"scripts/\w+\.py", path.read_text()):
            assert (root / script).is_file(), f"{path}: {script}"


def test_checkpoints_of_an_earlier_version_are_named_as_such(whole, tmp_path):
    folder = tmp_path / "checkpoints"
    storage.shutil.copytree(whole.directory / "checkpoints", folder)
    (folder / "2" / "state").rename(folder / "2" / "counters")
    with Checkpoints(folder, read_only=True) as saved:
        message = "was saved by an earlier version: the run cannot go on, but --init"
        with pytest.raises(storage.CheckpointError, match=message):
            saved.state(2)


def test_the_replay_is_written_once_and_holds_what_the_device_held(whole, monkeypatch):
    use_devices(monkeypatch, 1)
    chunks = list((whole.directory / "replay").iterdir())
    assert len(chunks) == 4  # two initial collects, two epochs
    again = resume.resume_run(whole.config, whole.directory)
    held, restored = whole.worker.replay, again.worker.replay
    for old, new in zip(jax.tree.leaves(held), jax.tree.leaves(restored)):
        np.testing.assert_array_equal(old, new)
