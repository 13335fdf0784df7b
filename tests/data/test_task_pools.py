"""The tasks of a run: drawn once, stored with it, and used from there."""

import re

import jax
import numpy as np
import pytest
from helpers import run_training, tiny_config, use_devices

from cemrl_jax.commands import evaluate
from cemrl_jax.config import ConfigError
from cemrl_jax.data import task_pools
from cemrl_jax.envs.robots import Ant, HalfCheetah
from cemrl_jax.envs.tasks import Cripple, Direction, Dynamics, PlanarAngle, Velocity
from cemrl_jax.training import resume
from cemrl_jax.training import run as run_lib


def pools_of(task, robot=None, **changes):
    config = tiny_config(env__task=task, **changes)
    if robot is not None:
        config.env.robot = robot
    return run_lib.make_pools(config)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda x: x.dtype, one) == jax.tree.map(
        lambda x: x.dtype, other
    )


@pytest.mark.parametrize(
    ("task", "robot"),
    [
        (Velocity(), None),
        (Direction(), None),
        (Dynamics(scope="part"), HalfCheetah()),
        (Cripple(), Ant()),
    ],
)
def test_stored_tasks_come_back_as_they_were(task, robot, tmp_path):
    pools = pools_of(task, robot)
    task_pools.save(pools, tmp_path)
    assert_equal(task_pools.load(tmp_path), pools)


def test_the_file_names_its_arrays_plainly(tmp_path):
    task_pools.save(pools_of(Dynamics(), HalfCheetah()), tmp_path)
    with np.load(tmp_path / "tasks.npz") as file:
        assert {"train/kind", "train/base", "train/spec"} < set(file.files)
        assert file["test/overrides/body_mass"].shape == (4, 8)


def test_pools_have_keys_of_their_own_and_extrapolation_leaves_the_range():
    pools = pools_of(Velocity(0.0, 2.0))
    assert {name: len(pool.spec) for name, pool in pools.items()} == {
        "train": 8,
        "test": 4,
        "validation": 4,
        "extrapolate": 4,
    }
    inside = [set(np.asarray(pools[x].spec)) for x in ("train", "test", "validation")]
    assert len(set.union(*inside)) == 16
    assert np.all(pools["extrapolate"].spec > 2.0)
    other = pools_of(Velocity(0.0, 2.0), seed=1)
    assert np.all(other["extrapolate"].spec != pools["extrapolate"].spec)


@pytest.mark.parametrize(
    ("task", "robot"),
    [
        (Direction(), None),
        (PlanarAngle(), None),
        (Cripple(joints=(0, 1, 2, 3, 4, 5)), HalfCheetah()),
    ],
)
def test_where_nothing_is_outside_the_range_there_is_no_extrapolation(task, robot):
    assert set(pools_of(task, robot)) == {"train", "test", "validation"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of one epoch whose stored tasks are not those that its seed draws."""
    directory = tmp_path_factory.mktemp("stored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        patch.setattr(run_lib, "make_pools", lambda config: doctored(config))
        run_training(tiny_config(train__num_epochs=1), directory)
    return directory


def doctored(config):
    pools = {
        "train": Velocity().sample(jax.random.key(7), config.env.num_train_tasks),
        "test": Velocity().sample(jax.random.key(8), config.env.num_test_tasks),
    }
    pools["validation"] = pools["train"]
    return pools | {"extrapolate": pools["test"].replace(spec=pools["test"].spec + 9)}


def test_a_resumed_run_has_the_stored_tasks(stored, monkeypatch):
    use_devices(monkeypatch, 1)
    config = tiny_config(train__num_epochs=2)
    run = resume.resume_run(config, stored)
    assert_equal(run.pools, doctored(config))
    np.testing.assert_array_equal(run.worker.tasks.spec[0], run.pools["train"].spec)


def test_evaluation_has_the_stored_tasks(stored):
    _, evaluation = evaluate.evaluate(stored, "latest", 1, 0)
    pools = doctored(tiny_config())
    del pools["validation"]  # chooses a checkpoint, which is done by now
    for pool, tasks in pools.items():
        case = f"{pool}/fixed_deterministic_return"
        starts = evaluation.transitions[case].task.spec[:, 0]
        np.testing.assert_array_equal(starts, tasks.spec[:4])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", 1, "seed=1 must stay 0"),
        ("env__num_train_tasks", 9, "env.num_train_tasks=9 must stay 8"),
        (
            "env__task",
            Velocity(0.0, 9.0),
            "env.task.low=0.0 must stay -2.0\nenv.task.high=9.0 must stay 2.0",
        ),
    ],
)
def test_a_run_cannot_be_resumed_with_other_tasks(stored, field, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resume.resume_run(tiny_config(**{field: value}), stored)


def test_a_run_from_before_tasks_were_stored_draws_them(tmp_path):
    config = tiny_config()
    pools = run_lib.stored_pools(config, tmp_path)
    assert_equal(pools, run_lib.make_pools(config))
