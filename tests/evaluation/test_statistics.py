"""Statistics with known numbers."""

from typing import Any

import numpy as np
import pytest

from cemrl_jax.evaluation import statistics


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    assert statistics.iqm(np.array([1000.0, 1, 2, 3, 4, 5, 6, -1000])) == 3.5


def test_the_interquartile_mean_of_three_is_their_mean():
    np.testing.assert_allclose(
        statistics.iqm(np.array([[0, 3], [1, 3], [5, 6]])), [2, 4]
    )


def test_equal_runs_have_an_interval_of_no_width():
    low, high = statistics.bootstrap_interval(
        np.full((4, 2), 7.0), np.random.default_rng(0)
    )
    np.testing.assert_array_equal([low, high], np.full((2, 2), 7.0))


@pytest.mark.parametrize("num_runs", range(2, statistics.FEW + 2))
def test_the_interval_of_few_runs_is_their_range(num_runs):
    scores = np.square(np.arange(num_runs))
    ends = statistics.bootstrap_interval(scores, np.random.default_rng(0))
    is_range = np.allclose(ends, [scores.min(), scores.max()])
    assert is_range == (num_runs <= statistics.FEW)


def test_the_bootstrap_interval_of_a_mean_is_that_of_the_normal_law():
    scores = np.random.default_rng(1).normal(size=400)
    low, high = statistics.bootstrap_interval(
        scores, np.random.default_rng(0), lambda values: values.mean(0)
    )
    expected = scores.mean() + np.array([-1.96, 1.96]) * scores.std() / 20
    np.testing.assert_allclose([low, high], expected, atol=0.012)


def changed_at(*steps, length):
    return np.isin(np.arange(length), steps)[None]


def recovery(z, reward, changes, alive: Any = True):
    return statistics.recovery(z, reward, changes, np.broadcast_to(alive, reward.shape))


def test_z_that_follows_after_seven_steps_has_recovered_in_seven():
    z = np.where(np.arange(80) < 47, 0.0, 2.0)[None, :, None]
    changes = changed_at(40, length=80)
    assert recovery(z, np.zeros((1, 80)), changes).z_steps.tolist() == [7]


def test_z_that_comes_and_goes_has_not_recovered_until_it_stays():
    z = np.where(np.arange(80) < 50, 0.0, 1.0)
    z[43] = 1.0
    result = recovery(z[None, :, None], np.zeros((1, 80)), changed_at(40, length=80))
    assert result.z_steps.tolist() == [10]


def test_return_lost_to_a_change_is_the_area_below_the_level():
    reward = np.full(80, -0.5)
    reward[40:52] -= 3.0
    z = np.zeros((1, 80, 1))
    result = recovery(z, reward[None], changed_at(40, length=80))
    assert result.lost_return.tolist() == pytest.approx([36.0])
    assert result.reward_steps.tolist() == [12]


def test_tasks_too_short_to_settle_do_not_count():
    z, reward = np.zeros((2, 60, 1)), np.zeros((2, 60))
    changes = np.concatenate([changed_at(20, 24, length=60), changed_at(length=60)])
    result = recovery(z, reward, changes)
    assert len(result.z_steps) == 1  # from 24 on
    assert recovery(z[1:], reward[1:], changes[1:]).metrics() == {}


def test_a_task_in_which_the_robot_falls_does_not_count():
    z, reward = np.zeros((1, 80, 1)), np.zeros((1, 80))
    changes = changed_at(20, 50, length=80)
    assert len(recovery(z, reward, changes).z_steps) == 2
    fallen = recovery(z, reward, changes, np.arange(80) < 60)
    assert len(fallen.z_steps) == 1


def test_a_window_is_full_of_one_task_some_steps_after_a_change_and_until_a_fall():
    changes = changed_at(6, length=12)
    settled = statistics.settled(changes, np.arange(12)[None] < 11, window=3)
    assert np.flatnonzero(settled).tolist() == [3, 4, 5, 9, 10]


def test_a_line_is_explained_and_noise_is_not():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 2))
    line = 3 * z[:, 0] - z[:, 1] + 2
    targets = np.stack([line, rng.normal(size=500), np.ones(500)], -1)
    explained, noise, constant = statistics.r_squared(z, targets)
    assert explained == pytest.approx(1)
    assert abs(noise) < 0.02
    assert np.isnan(constant)


def steps_of(tasks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Forty steps `[M * 40, X]` of each task `[M, X]`, with a little noise."""
    steps = np.repeat(tasks, 40, 0)
    return steps + 0.01 * rng.normal(size=steps.shape)


@pytest.mark.parametrize("size", range(1, 9))
def test_z_that_says_nothing_of_thirty_tasks_explains_nothing_however_large(size):
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        targets = np.repeat(rng.uniform(0, 3, (30, 1)), 40, 0)
        z = steps_of(rng.normal(size=(30, size)), rng)
        shares.append(statistics.r_squared(z, targets)[0])
    assert np.mean(shares) < 0  # 0.03 to 0.28 where the fit is judged on its own tasks


@pytest.mark.parametrize("size", [1, 4, 8])
def test_z_that_is_a_linear_image_of_thirty_tasks_explains_them(size):
    rng = np.random.default_rng(size)
    tasks = rng.normal(size=(30, size))
    z = steps_of(tasks @ rng.normal(size=(size, size)) - 5, rng)
    assert statistics.r_squared(z, np.repeat(tasks, 40, 0)).min() > 0.95


def test_tasks_must_be_more_than_a_map_of_z_has_numbers():
    def shares(num_tasks: int, size: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        tasks = rng.normal(size=(num_tasks, size))
        return statistics.r_squared(steps_of(tasks, rng), np.repeat(tasks, 40, 0))

    assert shares(5, 2).min() > 0.99  # four are left for three numbers
    assert np.isnan(shares(4, 2)).all()
    assert np.isnan(shares(2, 1)).all()
    assert np.isnan(statistics.r_squared(np.zeros((0, 1)), np.zeros((0, 3)))).all()


def test_z_that_never_varies_explains_nothing_and_one_that_is_lost_is_not_judged():
    targets = np.repeat(np.linspace(0, 3, 30), 40)[:, None]
    assert -0.1 < statistics.r_squared(np.full((1200, 2), 7.0), targets)[0] <= 0
    assert np.isnan(statistics.r_squared(np.full((1200, 2), np.inf), targets)).all()


def test_classes_count_by_the_base_task_they_stand_for():
    base = np.array([0, 0, 0, 1, 1, 1])
    inferred = np.array([2, 2, 0, 0, 0, 0])
    counts = statistics.confusion(inferred, base, 3, 2)
    np.testing.assert_array_equal(counts, [[1, 3], [0, 0], [2, 0]])
    assert statistics.class_accuracy(counts) == pytest.approx(5 / 6)
