"""Acting: the context over an episode, and a whole path on a small system."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import normalized_by, of, run, transitions
from closeness import FORWARD, assert_close
from recordings import cases

from cemrl_jax.agents.cemrl.losses import infer_class, infer_task
from cemrl_jax.agents.cemrl.policies import ContextPolicy

every_case = pytest.mark.parametrize("case", cases("context"), ids=str)


@functools.cache
def policy(case):
    agent, learner = of(case)
    if case.meta["have_stats"] and case.meta["use_data_normalization"]:
        learner = normalized_by(case, learner)
    return ContextPolicy(agent, learner, case.meta["deterministic"])


def one(group, number):
    """Returns a recorded transition `[1]`."""
    return jax.tree.map(lambda leaf: leaf[number, None], transitions(group))


@functools.cache
def given_windows(case):
    """Returns the windows before each of the given transitions and after the last."""
    given, acting = case.at("given/"), policy(case)
    windows = [acting.start(1)]
    for number in range(len(given["actions"])):
        windows.append(acting.observe(windows[-1], one(given, number)))
    return windows


@every_case
def test_posterior_is_that_of_the_recorded_encoder_input(case):
    agent, learner = of(case)
    recorded = case["given/encoder_inputs"]
    shape = (-1, agent.window_steps, agent.num_features)
    expected = run(agent.encode, learner.world_model.params, recorded.reshape(shape))
    windows = [policy(case).infer(window) for window in given_windows(case)]
    ours = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *windows)
    for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected)):
        assert_close(leaf, other, FORWARD)


@every_case
def test_inferred_task_and_class_agree_at_every_step_of_the_episode(case):
    for number, window in enumerate(given_windows(case)):
        posterior = policy(case).infer(window)
        z, y = infer_task(posterior), infer_class(posterior)
        assert_close(z[0], case["given/z"][number], FORWARD, f"z at step {number}")
        assert y[0] == case["given/y"][number]


def step_toy(case, obs, action):
    """Returns the next observation and reward of the recorded small system."""
    toy = case.under("rollout/toy_")
    next_obs = np.tanh(obs @ toy["state_matrix"]) + action @ toy["action_matrix"]
    reward = next_obs @ toy["reward_vector"] - 0.05 * np.square(action).sum(-1)
    return next_obs, reward


def feed_noise(monkeypatch, noise):
    """Makes the policy draw recorded noise."""
    draw = lambda key, shape, dtype=None: jnp.asarray(noise).reshape(shape)  # noqa: E731
    monkeypatch.setattr(jax.random, "normal", draw)


@every_case
def test_whole_path_agrees(case, monkeypatch):
    acting, path = policy(case), case.at("rollout/")
    window, obs = acting.start(1), path["toy_initial_obs"][None]
    silent = np.zeros((len(path["actions"]) + 1, *path["actions"].shape[1:]))
    noise = path.under("").get("eps", silent)
    for number, recorded in enumerate(path["actions"]):
        z = infer_task(acting.infer(window))[0]
        assert_close(z, path["task_indicators"][number], FORWARD, "z")
        feed_noise(monkeypatch, noise[number])
        action = np.asarray(acting.act(window, jnp.asarray(obs), jax.random.key(0)))
        assert_close(action[0], recorded, FORWARD, f"action {number}")
        assert_close(obs[0], path["observations"][number], FORWARD, "obs")
        obs, reward = step_toy(case, obs, action)
        assert_close(obs[0], path["next_observations"][number], FORWARD, "next obs")
        assert_close(reward, path["rewards"][number], FORWARD, "reward")
        seen = one(path, number).replace(action=action, reward=reward, next_obs=obs)
        window = acting.observe(window, seen)
    z = infer_task(acting.infer(window))[0]
    assert_close(z, path["next_task_indicators"][-1], FORWARD, "last z")
