import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    changed,
    connected,
    held,
    random_transitions,
    read_rows,
    run_training,
    tiny_agent,
    tiny_config,
    use_devices,
    with_noise,
)

from cemrl_jax.config import ConfigError
from cemrl_jax.data import replay
from cemrl_jax.reporting.progress import Progress
from cemrl_jax.runtime import parallel
from cemrl_jax.training import resume
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.checkpoint import CheckpointError, Checkpoints
from cemrl_jax.training.signals import TIME_IS_UP, StopRequest
from cemrl_jax.training.storage import Ring, Storage

NUM_ENVS = 16


def assert_equal(first: Any, second: Any) -> None:
    different = [path for path, differs in changed(first, second).items() if differs]
    assert not different


@functools.cache
def noisy_learner() -> Any:
    return with_noise(tiny_agent()[1])


def filled_run(num_devices: int, directory: pathlib.Path) -> run_lib.Run:
    """A run whose replay is full of noise and whose learner is not a fresh one."""
    run = run_lib.start_run(tiny_config(), directory)
    old = jax.device_get(run.worker.replay)
    length = run.config.replay_length
    num_steps = run.config.rollout.num_steps
    shape = (num_devices, NUM_ENVS // num_devices, length // num_steps, num_steps)
    noise = random_transitions(7, NUM_ENVS, length, steps=np.arange(length) % num_steps)
    noise = jax.tree.map(lambda x: np.reshape(x, shape + x.shape[2:]), noise)
    fill = jax.vmap(functools.partial(replay.full, can_fall=False))  # a point
    memory = old.replace(
        data=jax.device_get(fill(connected(noise)).data),
        cursor=np.full(num_devices, 20, np.int32),
        size=np.full(num_devices, length, np.int32),
    )
    run.worker = run.worker.replace(replay=parallel.place(memory))
    run.learner = noisy_learner().replace(num_updates=jnp.int32(77))
    run.epoch, run.env_steps, run.begun, run.clock = 1, 640, True, 4
    return run


def save(run: run_lib.Run, num_devices: int, with_replay: bool = True) -> None:
    memory, experience = run.worker.replay, held(run.worker.replay)
    length, num_steps = run.config.replay_length, run.config.rollout.num_steps
    ring = Ring(
        collects=7,
        held=int(memory.size[0]) // num_steps,
        num_steps=num_steps,
        cursor=int(memory.cursor[0]),
        length=length,
    )

    def rows(start: int) -> Any:
        return jax.tree.map(
            lambda leaf: np.concatenate(leaf)[:, start : start + num_steps], experience
        )

    keys = jax.random.key_data(run.worker.key)
    assert keys.shape[0] == num_devices
    state = run.position() | {"keys": keys.tolist()}
    kept = ring if with_replay else None
    with Storage(run.directory) as saved:
        saved.save(run.epoch, run.learner, state, kept, rows, 0.0)
        saved.wait()
    run_lib.store_run(run)


# ---------------------------------------------------------------- stop and resume


class StoppedAtEpoch2(Progress):
    """Somebody presses Ctrl-C when the second epoch is done but not yet saved."""

    def row(self, row: Any, *args: Any) -> None:
        super().row(row, *args)
        if row["epoch"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "schedule", ["fused", pytest.param("alternating", marks=pytest.mark.slow)]
)
def test_stop_and_resume_gives_the_same_rows_to_the_last_digit(
    schedule, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    config = tiny_config(train__schedule=schedule, train__num_epochs=4)
    whole = run_training(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("helpers.Progress", StoppedAtEpoch2)
        with pytest.raises(KeyboardInterrupt):
            run_training(config, tmp_path / "parts")
    assert [row["epoch"] for row in read_rows(tmp_path / "parts")] == ["0", "1", "2"]
    parts = run_training(config, tmp_path / "parts", resume=True)
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "whole")
    assert len(read_rows(tmp_path / "whole")) == 5
    assert_equal(jax.device_get(parts.learner), jax.device_get(whole.learner))


def test_resuming_brings_back_everything(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    again = resume.resume_run(run.config, run.directory)
    assert (again.epoch, again.env_steps) == (1, 640)
    assert_equal(again.learner, run.learner)
    assert_equal(jax.device_get(again.worker.replay), jax.device_get(run.worker.replay))
    key, expected = (jax.random.key_data(x.worker.key) for x in (again, run))
    np.testing.assert_array_equal(key, expected)
    assert len({shard.device for shard in again.worker.key.addressable_shards}) == 8


def test_a_run_of_8_devices_goes_on_with_1_and_back_with_8(monkeypatch, tmp_path):
    run = filled_run(8, tmp_path / "eight")
    save(run, 8)
    experience = held(run.worker.replay)
    flat = lambda leaf: leaf.reshape(1, NUM_ENVS, *leaf.shape[2:])  # noqa: E731
    with monkeypatch.context() as patch:
        use_devices(patch, 1)
        alone = resume.resume_run(run.config, run.directory)
        assert_equal(alone.learner, run.learner)
        memory = alone.worker.replay
        assert_equal(held(memory), jax.tree.map(flat, experience))
        np.testing.assert_array_equal(memory.cursor, [20])
        alone.directory = tmp_path / "one"
        save(alone, 1)
    back = resume.resume_run(run.config, tmp_path / "one")
    assert_equal(back.learner, run.learner)
    assert_equal(jax.device_get(back.worker.replay), jax.device_get(run.worker.replay))
    assert len(np.unique(jax.random.key_data(back.worker.key), axis=0)) == 8


def test_a_longer_run_gets_a_longer_replay_with_the_same_experience(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    config = tiny_config(train__num_epochs=9, replay__capacity=1600)
    assert (run.config.replay_length, config.replay_length) == (60, 100)
    longer = resume.resume_run(config, run.directory).worker.replay
    np.testing.assert_array_equal(longer.size, [60] * 8)
    old = held(run.worker.replay).reward
    new = held(longer).reward[:, :, :60]
    np.testing.assert_array_equal(new, np.roll(old, -20, axis=2))


def rings_of(collects: int, length: int = 40) -> Ring:
    """A ring of chunks of 10 after so many collects."""
    made = collects * 10
    return Ring(
        collects=collects,
        held=min(made, length) // 10,
        num_steps=10,
        cursor=made % length,
        length=length,
    )


@pytest.mark.parametrize("collects", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("length", [10, 20, 40, 60])
def test_a_ring_of_another_length_holds_the_newest_collects_in_order(collects, length):
    new = resume.layout([rings_of(collects)], length)
    held = min(collects, 4, length // 10)
    assert sorted(new.starts) == list(range(collects - held, collects))
    assert new.size == held * 10
    for age, collect in enumerate(sorted(new.starts, reverse=True), 1):
        assert new.starts[collect] == (new.cursor - age * 10) % length


def test_seeds_with_rings_of_other_lengths_go_on_with_what_all_hold():
    new = resume.layout([rings_of(7), rings_of(7, length=20)], 40)
    assert new == resume.Layout({5: 0, 6: 10}, cursor=20, size=20)


def test_a_run_that_has_collected_nothing_yet_goes_on(monkeypatch, tmp_path):
    """Killed after its checkpoint of epoch 0, which no collect comes before."""
    use_devices(monkeypatch, 1)
    config = tiny_config(rollout__num_initial=0)
    whole = run_training(config, tmp_path / "whole")
    stop = StopRequest(max_hours=1e-9)
    run_training(config, tmp_path / "parts", stop=stop)
    stopped = resume.resume_run(config, tmp_path / "parts")
    assert (stopped.begun, stopped.epoch, stopped.env_steps) == (False, 0, 0)
    parts = run_training(config, tmp_path / "parts", resume=True, stop=StopAtFirst())
    assert (parts.begun, parts.epoch, parts.env_steps) == (True, 0, 0)
    parts = run_training(config, tmp_path / "parts", resume=True)
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "whole")
    assert_equal(jax.device_get(parts.learner), jax.device_get(whole.learner))


class StopAtFirst(StopRequest):
    """Asks to stop before the first phase after the row of epoch 0."""

    left = 1

    def reason(self) -> int:
        self.left -= 1
        return 0 if self.left >= 0 else TIME_IS_UP


# ---------------------------------------------------------------- weights only


def test_init_from_takes_weights_and_statistics_and_nothing_else(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    fresh = run_lib.start_run(tiny_config(seed=3), tmp_path / "new").learner
    learner = resume.with_weights(run.config, fresh, run.directory)
    for name in ("world_model", "actor", "critic", "temperature"):
        new = getattr(learner, name)
        assert_equal(new.params, getattr(run.learner, name).params)
        assert_equal(new.opt_state, getattr(fresh, name).opt_state)
    assert_equal(learner.target_critic, run.learner.target_critic)
    assert_equal(learner.normalizer, run.learner.normalizer)
    assert int(learner.num_updates) == 0


def test_init_from_networks_of_other_sizes_is_refused(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    other = run_lib.start_run(tiny_config(sac__hidden_size=9), tmp_path / "new")
    with pytest.raises(ConfigError, match=r"sac\.hidden_size=9 must be 8, as in"):
        resume.with_weights(other.config, other.learner, run.directory)


def test_a_checkpoint_without_replay_can_be_evaluated_but_not_resumed(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8, with_replay=False)
    with pytest.raises(CheckpointError, match=r"checkpoint\.replay=False.*--init-from"):
        resume.resume_run(run.config, run.directory)
    with Checkpoints(run.directory / "checkpoints", read_only=True) as saved:
        like = jax.eval_shape(lambda: run.learner)
        assert_equal(saved.learner(saved.best(), like), run.learner)


# ---------------------------------------------------------------- keeping


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> pathlib.Path:
    """A folder to which five checkpoints went, with room for the last two."""
    folder = tmp_path_factory.mktemp("kept") / "checkpoints"
    with Checkpoints(folder, keep=2) as saved:
        for epoch, test_return in enumerate([-5.0, 9.0, 1.0, 2.0, 3.0]):
            learner = noisy_learner().replace(num_updates=jnp.int32(epoch))
            saved.save(epoch, learner, {"env_steps": epoch}, test_return)
        saved.wait()
    return folder


def test_the_last_checkpoints_and_the_best_are_kept(kept):
    with Checkpoints(kept, read_only=True) as saved:
        assert saved.epochs() == [1, 3, 4]
        assert (saved.best(), saved.latest()) == (1, 4)
        assert saved.state(3)["env_steps"] == 3


def test_checkpoints_are_found_by_name(kept):
    with Checkpoints(kept, read_only=True) as saved:
        assert [saved.find(name) for name in ("best", "latest", "3")] == [1, 4, 3]
        for unknown in ("2", "-1", "first"):
            with pytest.raises(ConfigError, match="best, latest or one of 1, 3, 4"):
                saved.find(unknown)


def test_each_checkpoint_holds_its_own_learner(kept):
    like = jax.eval_shape(noisy_learner)
    with Checkpoints(kept, read_only=True) as saved:
        updates = [int(saved.learner(e, like).num_updates) for e in saved.epochs()]
    assert updates == [1, 3, 4]


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_checkpoint_that_is_not_newer_is_refused_and_not_silently(epoch, kept):
    with (
        Checkpoints(kept) as saved,
        pytest.raises(CheckpointError, match="holds epoch 4, and what is saved mu"),
    ):
        saved.save(epoch, noisy_learner(), {}, 0.0)


def test_a_missing_folder_is_named(tmp_path):
    folder = tmp_path / "nothing"
    with pytest.raises(CheckpointError, match=f"no checkpoints in {folder}"):
        Checkpoints(folder, read_only=True)
    assert not folder.exists()


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"no complete checkpoint in {tmp_path}"):
        Checkpoints(tmp_path, read_only=True)


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    folder = run.directory / "checkpoints"
    (folder / "2.orbax-checkpoint-tmp-17").mkdir()
    with Checkpoints(folder, read_only=True) as saved:
        assert (saved.epochs(), saved.latest()) == ([1], 1)
    assert resume.resume_run(run.config, run.directory).epoch == 1


def test_only_a_half_written_checkpoint_is_none(tmp_path):
    (tmp_path / "2.orbax-checkpoint-tmp-17").mkdir()
    with pytest.raises(CheckpointError, match=f"no complete checkpoint in {tmp_path}"):
        Checkpoints(tmp_path, read_only=True)


@pytest.mark.parametrize("damage", ["garbled", "deleted"])
def test_a_corrupt_checkpoint_is_named_with_its_epoch_and_folder(damage, tmp_path):
    run = filled_run(8, tmp_path / "run")
    save(run, 8)
    folder = run.directory / "checkpoints"
    files = [file for file in (folder / "1" / "learner").rglob("*") if file.is_file()]
    for file in files:
        if damage == "garbled":
            file.write_bytes(b"\x00garbage")
        else:
            file.unlink()
    with pytest.raises(CheckpointError) as error:
        resume.resume_run(run.config, run.directory)
    assert f"epoch 1 in {folder}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "checkpoints"
    with pytest.raises(CheckpointError, match=f"cannot open {folder}"):
        Checkpoints(folder)
