"""Success rates of the tasks that were in force."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    random_transitions,
    read_rows,
    run_training,
    tiny_config,
    use_devices,
)

from cemrl_jax.data.rollout import Episodes
from cemrl_jax.data.success import rates, tally
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import Direction

LENGTH = 6


def episodes(base, success, goal=None):
    """Episodes `[E, L]` of these base tasks and successes; a goal stays by default."""
    base, success = np.atleast_2d(base), np.atleast_2d(success)
    shape = (len(success), LENGTH)
    data = random_transitions(0, *shape, steps=np.arange(LENGTH))
    goal = np.zeros(shape) if goal is None else np.atleast_2d(goal)
    task = data.task.replace(
        base=jnp.array(np.broadcast_to(base, shape)), spec=jnp.array(goal)
    )
    return Episodes(
        transitions=data.replace(task=task),
        broken=jnp.zeros(shape, bool),
        success=jnp.array(success, bool),
    )


def test_an_episode_succeeds_if_any_step_does():
    some, none = [0, 0, 1, 0, 0, 0], [0] * LENGTH
    counts = tally(episodes(0, [some, none]), 1)
    np.testing.assert_array_equal(counts, [[[1], [1]], [[1], [0]]])


def test_a_success_counts_for_the_task_in_force_only():
    before, after = [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]
    counts = tally(episodes([0, 0, 0, 1, 1, 1], [before, after]), 2)
    assert counts is not None
    np.testing.assert_array_equal(counts[0], [[1, 1], [1, 0]])
    np.testing.assert_array_equal(counts[1], [[1, 1], [0, 1]])


def test_another_goal_of_the_same_kind_is_another_task():
    counts = tally(episodes(0, [0, 1, 0, 0, 0, 0], [3, 3, 3, 4, 4, 4]), 1)
    np.testing.assert_array_equal(counts, [[[2], [1]]])


def test_without_success_nothing_is_counted():
    assert tally(episodes(0, [0] * LENGTH).replace(success=None), 1) is None


def test_rates_are_of_all_tasks_and_of_each_base_task():
    counts = jnp.array([[4.0, 1.0], [3.0, 1.0]])
    found = rates(counts, ("reach", "push"))
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {"success": 0.8, "success_reach": 0.75, "success_push": 1.0}
    )
    assert list(rates(counts[:, :1], ("reach",))) == ["success"]


@dataclasses.dataclass
class Racer(Point):
    """A point in a world that tells success: it has passed a place on the line."""

    goal: float = 0.2
    obs_size, is_solvable = 2, True

    def reset(self, key, task):
        return super().reset(key)

    def step(self, physics, action, task):
        return super().step(physics, action, {})

    def observe(self, physics, task):
        return super().observe(physics)

    def judge(self, before, after, action, task):
        return after.velocity * task.spec, after.x > self.goal


@pytest.fixture
def race(monkeypatch):
    use_devices(monkeypatch, 1)
    monkeypatch.setattr(Direction, "base_names", ("there", "back"), raising=False)
    config = tiny_config(env__robot=Racer(), env__task=Direction())
    config.train.num_epochs = 1
    return config


def test_a_run_tells_success_rates_of_collects_and_evaluations(race, tmp_path):
    run_training(race, tmp_path / "run")
    first, last = read_rows(tmp_path / "run")
    names = ("success", "success_there", "success_back")
    for name in names:
        assert 0 <= float(last[f"collect/{name}"]) <= 1
        assert 0 <= float(first[f"test/fixed_deterministic_{name}"]) <= 1
        assert 0 <= float(last[f"train/changing_deterministic_{name}"]) <= 1
    assert sum(float(last[f"collect/{name}"]) for name in names) > 0


def test_a_run_goes_on_where_no_episode_had_some_base_task(race, tmp_path):
    race.rollout.num_envs = race.rollout.num_initial = 1
    race.env.schedule = Stationary()
    run_training(race, tmp_path / "run")
    for row in read_rows(tmp_path / "run"):
        told = [row.get(f"collect/success_{name}") for name in ("there", "back")]
        assert sum(map(bool, told)) == 1
        assert 0 <= float(row["collect/success"]) <= 1
