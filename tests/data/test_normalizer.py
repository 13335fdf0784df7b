from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ACTION_SIZE, OBS_SIZE, on_devices, random_transitions

from cemrl_jax.data import normalizer
from cemrl_jax.runtime.parallel import DEVICES

PARTS = ("obs", "action", "reward", "next_obs")


def updated(*seeds: int) -> Any:
    state = normalizer.init(OBS_SIZE, ACTION_SIZE)
    update = jax.jit(lambda state, data: normalizer.update(state, data, None))
    for seed in seeds:
        state = update(state, random_transitions(seed, 4, 50))
    return state


def test_without_data_normalising_changes_nothing():
    transitions = random_transitions(0, 5)
    state = normalizer.init(OBS_SIZE, ACTION_SIZE)
    scaled = jax.jit(normalizer.normalize)(state, transitions)
    jax.tree.map(np.testing.assert_array_equal, scaled, transitions)


def test_statistics_are_those_of_all_data_seen():
    state = updated(0, 1, 2)
    data = [random_transitions(seed, 4, 50) for seed in (0, 1, 2)]
    for name in PARTS:
        values = np.concatenate([getattr(part, name) for part in data])
        np.testing.assert_allclose(state.mean[name], values.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(state.std[name], values.std((0, 1)), rtol=1e-4)


def test_normalised_data_have_mean_0_and_standard_deviation_1():
    state = updated(0)
    scaled = jax.jit(normalizer.normalize)(state, random_transitions(0, 4, 50))
    for name in PARTS:
        values = np.asarray(getattr(scaled, name))
        np.testing.assert_allclose(values.mean((0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(values.std((0, 1)), 1, rtol=1e-4)


def test_normalised_observations_of_a_policy_have_a_limit():
    state = updated(0)
    obs = random_transitions(0, 4, 50).obs
    scaled = jax.jit(normalizer.normalize_obs)(state, obs)
    mean, std = obs.mean((0, 1)), obs.std((0, 1))
    np.testing.assert_allclose(scaled, (obs - mean) / std, rtol=1e-3, atol=1e-4)
    far = normalizer.normalize_obs(state, mean + np.float32(99) * std)
    np.testing.assert_array_equal(far, np.full(OBS_SIZE, normalizer.FARTHEST))


def test_normalising_leaves_step_task_and_termination_alone():
    transitions = random_transitions(1, 4, 50, steps=7)
    scaled = jax.jit(normalizer.normalize)(updated(0), transitions)
    for name in ("step", "terminated", "task"):
        jax.tree.map(
            np.testing.assert_array_equal,
            getattr(scaled, name),
            getattr(transitions, name),
        )


@pytest.mark.parametrize("num_devices", [2, 8])
def test_statistics_count_the_data_of_all_devices(num_devices):
    data = random_transitions(3, 8, 20)
    shards = jax.tree.map(
        lambda leaf: leaf.reshape(num_devices, -1, *leaf.shape[1:]), data
    )
    mapped = on_devices(
        num_devices, lambda state, part: (normalizer.update(state, part, DEVICES), part)
    )
    state, _ = mapped(normalizer.init(OBS_SIZE, ACTION_SIZE), shards)
    for name in PARTS:
        values = getattr(data, name)
        np.testing.assert_allclose(state.mean[name], values.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(state.std[name], values.std((0, 1)), rtol=1e-4)


def test_features_are_obs_action_reward_next_obs():
    transitions = random_transitions(0).replace(
        obs=jnp.array([1.0, 2.0]),
        action=jnp.array([3.0]),
        reward=jnp.array(4.0),
        next_obs=jnp.array([5.0, 6.0]),
    )
    np.testing.assert_array_equal(normalizer.features(transitions), [1, 2, 3, 4, 5, 6])
