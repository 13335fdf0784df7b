"""Recording episodes with beliefs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_agent, tiny_config, with_noise

from cemrl_jax.data.rollout import rollout
from cemrl_jax.envs.base import SELECT
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.evaluation.record import Plan, make_record
from cemrl_jax.training.run import make_pools


@pytest.fixture(scope="module")
def played():
    """Configuration, pool, and a recording of four tasks with a planned change."""
    config = tiny_config(encoder__num_classes=2, encoder__latent_size=2)
    env, pool = config.env.make(), make_pools(config)["test"]
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = with_noise(agent.init(jax.random.key(0)))
    events = jnp.zeros((4, 20), jnp.int32).at[:, 12].set(SELECT + jnp.arange(4) % 2)
    plan = Plan(events=events, follow=jnp.zeros(4, bool))
    record = jax.jit(make_record(env, agent, 20))
    recording = record(learner, pool, pool, plan, jax.random.key(1))
    return config, agent, learner, pool, jax.device_get(recording)


def test_planned_changes_happen_and_only_those(played):
    *_, recording = played
    numbers = np.arange(4)[:, None].repeat(20, 1)
    numbers[:, 12:] = [[0], [1], [0], [1]]
    np.testing.assert_array_equal(recording.number, numbers)
    changed = np.zeros((4, 20), bool)
    changed[2:, 12] = True  # tasks 0 and 1 change to themselves
    np.testing.assert_array_equal(recording.changed, changed)


def test_a_recording_is_the_rollout_of_the_same_policy(played):
    config, agent, learner, pool, _ = played
    env = config.env.make()
    env = type(env)(env.robot, env.distribution, Stationary())
    policy = agent.policy(learner, deterministic=True)
    key = jax.random.key(3)
    expected = jax.jit(lambda: rollout(env, policy, pool, pool, key, 8))().transitions
    nothing = Plan(events=jnp.zeros((4, 8), jnp.int32), follow=jnp.zeros(4, bool))
    recording = jax.jit(make_record(env, agent, 8))(learner, pool, pool, nothing, key)
    first = recording.transitions.obs[:, 0]
    np.testing.assert_allclose(first[:, 0], expected.obs[:, 0, 0])
    same = agent.policy(learner, True)
    z = recording.belief.z
    mean, _ = agent.actor.apply(learner.actor.params, recording.transitions.obs, z)
    np.testing.assert_allclose(recording.transitions.action, jnp.tanh(mean), atol=1e-5)
    start = same.infer(same.start(4))
    np.testing.assert_allclose(recording.belief.probs[:, 0], start.probs[:, 0])


def test_belief_has_a_probability_for_each_class_and_a_scale(played):
    *_, recording = played
    assert recording.belief.z.shape == recording.belief.z_std.shape == (4, 20, 2)
    np.testing.assert_allclose(recording.belief.probs.sum(-1), 1, rtol=1e-5)
    assert (recording.belief.z_std > 0).all()
    np.testing.assert_array_equal(
        recording.belief.inferred, recording.belief.probs.argmax(-1)
    )
