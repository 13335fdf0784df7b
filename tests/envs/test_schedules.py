"""Schedules: when events come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs import SCHEDULES, NonStationaryEnv
from cemrl_jax.envs.base import BACKWARD, ELAPSED, FORWARD, NO_EVENT, SELECT
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Location, Sequence, Timed
from cemrl_jax.envs.tasks import Direction, Velocity


def timeline(schedule, positions, seed=0):
    def step(carry, x):
        state, key = carry
        key, key_update = jax.random.split(key)
        event, state = schedule.update(key_update, state, x)
        return (state, key), event

    key_init, key = jax.random.split(jax.random.key(seed))
    start = (schedule.init(key_init), key)
    return np.asarray(jax.lax.scan(step, start, jnp.asarray(positions, jnp.float32))[1])


def test_stationary_never_reports_an_event():
    assert (timeline(SCHEDULES["stationary"](), np.arange(50.0)) == NO_EVENT).all()


def test_location_reports_each_point_once_and_in_its_direction():
    there = np.arange(0, 35.0, 0.1)
    events = timeline(Location(10.0, 0.0), np.concatenate([there, there[::-1], -there]))
    np.testing.assert_array_equal(np.flatnonzero(events == FORWARD), [101, 201, 301])
    backward = np.flatnonzero(events == BACKWARD) - 2 * len(there)
    np.testing.assert_array_equal(backward, [101, 201, 301])


def test_location_jitter_widens_the_gaps_by_at_most_its_size():
    x = np.arange(0, 300, 0.05)
    points = x[np.flatnonzero(timeline(Location(10.0, 2.0), x) == FORWARD)]
    gaps = np.diff(points)
    assert gaps.min() >= 10 - 0.06
    assert gaps.max() <= 12 + 0.06
    assert gaps.std() > 0.2


def test_timed_waits_its_minimum_and_then_changes_with_its_probability():
    events = timeline(Timed(min_steps=20, probability=0.25), np.zeros(20_000))
    assert set(events) == {NO_EVENT, ELAPSED}
    gaps = np.diff(np.flatnonzero(events))
    assert gaps.min() == 21
    assert gaps.mean() == pytest.approx(20 + 1 / 0.25, rel=0.02)


def test_certain_timed_changes_are_regular():
    events = timeline(Timed(min_steps=9, probability=1.0), np.zeros(50))
    np.testing.assert_array_equal(np.flatnonzero(events), [10, 20, 30, 40])


def test_probabilistic_changes_at_any_step():
    events = timeline(SCHEDULES["probabilistic"](), np.zeros(20_000))
    gaps = np.diff(np.flatnonzero(events))
    assert gaps.min() == 1
    assert gaps.mean() == pytest.approx(20, rel=0.1)


def test_sequence_selects_its_tasks_at_its_steps():
    events = timeline(Sequence((0, 3, 7), (2, 0, 5)), np.zeros(10))
    expected = np.full(10, NO_EVENT)
    expected[[0, 3, 7]] = SELECT + np.array([2, 0, 5])
    np.testing.assert_array_equal(events, expected)


@pytest.mark.parametrize("distribution", [Velocity(), Direction()])
def test_sequence_brings_the_tasks_of_the_pool_whatever_the_distribution(distribution):
    env = NonStationaryEnv(Point(), distribution, Sequence((2, 4, 6), (1, 1, 6)))
    pool = distribution.sample(jax.random.key(0), 4)
    state = env.reset(jax.random.key(1), jax.tree.map(lambda leaf: leaf[0], pool))
    specs = []
    for _ in range(8):
        state = env.step(state, jnp.zeros(1), pool)
        specs.append(float(state.task.spec))
    expected = np.asarray(pool.spec)[[0, 0, 1, 1, 1, 1, 2, 2]]
    np.testing.assert_array_equal(specs, expected)


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        (Sequence((1, 1), (0, 0)), "steps"),
        (Sequence((1,), (0, 0)), "tasks"),
        (Sequence((1,), (-1,)), "tasks"),
        (Timed(min_steps=-1), "min_steps"),
        (Timed(probability=1.5), "probability"),
        (Location(spacing=0.0), "spacing"),
    ],
)
def test_bad_settings_are_named(schedule, field):
    assert any(problem.startswith(field) for problem in schedule.validate())
