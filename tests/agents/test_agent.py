"""Probes in the spirit of rejax: problems whose solution is a known number."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    changed,
    on_one_device,
    random_batch,
    random_transitions,
    tiny_agent,
    with_noise,
)

from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.agents.cemrl.policies import ContextPolicy
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data import normalizer
from cemrl_jax.data.types import Transition

SIZE, DISCOUNT = 64, 0.9
PROBE = {
    "sac__hidden_size": 32,
    "sac__num_layers": 2,
    "sac__learning_rate": 5e-3,
    "sac__target_rate": 0.1,
    "sac__discount": DISCOUNT,
    "sac__temperature": "fixed",
    "sac__initial_temperature": 1e-3,
}


@functools.cache
def trainer() -> Any:
    """Agent, fresh learner, and 600 policy steps on `[64]` transitions, compiled."""
    agent, learner = tiny_agent(**PROBE)

    def train(learner: LearnerState, now: Transition, z: Any) -> LearnerState:
        def step(learner: LearnerState, key: Any) -> Any:
            noise = agent.policy_noise(key, SIZE)
            return agent.policy_step(learner, now, z, noise)[0], None

        keys = jax.random.split(jax.random.key(1), 600)
        return jax.lax.scan(step, learner, keys)[0]

    return agent, learner, on_one_device(train)


def probe(seed: int = 0) -> Transition:
    """Transitions that end at once, with reward 0 and any action."""
    rows = random_transitions(seed, SIZE)
    action: Any = np.random.default_rng(seed).uniform(-1, 1, (SIZE, 1))
    ones: Any = np.ones(SIZE, np.float32)
    return rows.replace(
        terminated=ones, reward=0 * ones, action=action.astype(np.float32)
    )


def values(learner: LearnerState, now: Transition, z: Any) -> np.ndarray:
    """Q `[2, B]`."""
    agent = trainer()[0]
    return np.asarray(agent.critic.apply(learner.critic.params, now.obs, z, now.action))


def actions(learner: LearnerState, obs: Any, z: Any) -> np.ndarray:
    """The policy's action without noise `[B]`."""
    agent = trainer()[0]
    mean, _ = agent.actor.apply(learner.actor.params, obs, z)
    return np.tanh(mean)[:, 0]


NO_TASK = np.zeros((SIZE, 1), np.float32)


# ---------------------------------------------------------------- probes


def test_a_constant_reward_is_the_value():
    _, learner, train = trainer()
    now = probe().replace(reward=np.full(SIZE, 0.7, np.float32))
    result = values(train(learner, now, NO_TASK), now, NO_TASK)
    np.testing.assert_allclose(result, 0.7, atol=0.07)


def test_a_reward_that_depends_on_the_observation_is_the_value():
    _, learner, train = trainer()
    now = probe()
    sign = np.sign(now.obs[:, 0])
    now = now.replace(obs=np.stack([sign, 0 * sign], -1), reward=sign)
    result = values(train(learner, now, NO_TASK), now, NO_TASK)
    np.testing.assert_allclose(result, [sign, sign], atol=0.1)


def test_a_reward_after_two_steps_is_discounted():
    """First observation 0, then 1 and a reward of 1: values 0.9 and 1."""
    _, learner, train = trainer()
    second = np.arange(SIZE) % 2 == 1
    place = second.astype(np.float32)
    now = probe().replace(
        obs=np.stack([place, 0 * place], -1),
        next_obs=np.stack([0 * place + 1, 0 * place], -1),
        terminated=place,
        reward=place,
    )
    result = values(train(learner, now, NO_TASK), now, NO_TASK)
    np.testing.assert_allclose(result[:, second], 1, atol=0.07)
    np.testing.assert_allclose(result[:, ~second], DISCOUNT, atol=0.1)


def test_a_reward_that_depends_on_the_action_moves_the_policy_to_the_best_one():
    _, learner, train = trainer()
    now = probe()
    reward = -np.square(now.action[:, 0] - 0.5)
    trained = train(learner, now.replace(reward=reward), NO_TASK)
    chosen = actions(trained, now.obs, NO_TASK)
    assert chosen.mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(chosen - 0.5).max() < 0.3


def test_a_reward_that_depends_on_the_task_makes_the_policy_listen_to_z():
    _, learner, train = trainer()
    now = probe()
    z = np.where(np.arange(SIZE) % 2, 1, -1)[:, None].astype(np.float32)
    trained = train(learner, now.replace(reward=z[:, 0] * now.action[:, 0]), z)
    chosen = actions(trained, now.obs, z)
    assert np.all(chosen * z[:, 0] > 0.7)


# ---------------------------------------------------------------- the world model


@pytest.mark.parametrize(("entry", "seen"), [(0, True), (1, False)])
def test_the_world_model_sees_the_leading_entries_of_an_observation(entry, seen):
    agent, learner = tiny_agent(encoder__obs_size=1, elbo__state_size=1)
    learner = with_noise(learner)
    rows = random_transitions(0, 8, agent.window_steps + 1, steps=agent.window_steps)
    noise = agent.world_model_noise(jax.random.key(0), 8)

    def moved(obs: Any) -> Any:
        return obs + np.eye(2, dtype=np.float32)[entry]

    def believe(rows: Transition) -> Any:
        batch = agent.make_batch(learner, rows)
        loss, (_, z) = losses.elbo_loss(
            learner.world_model.params,
            agent,
            batch,
            noise,
            learner.loss_weights,
            agent.elbo,
        )
        policy = ContextPolicy(agent, learner, deterministic=True)
        newest = jax.tree.map(lambda leaf: leaf[:, -1], rows)
        window = policy.observe(policy.start(8), newest)
        return loss, z, policy.believe(window).z

    changed_rows = rows.replace(obs=moved(rows.obs), next_obs=moved(rows.next_obs))
    before, after = (jax.jit(believe)(x) for x in (rows, changed_rows))
    for one, other in zip(before, after, strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4) != seen


# ---------------------------------------------------------------- one policy step


@functools.cache
def policy_step(temperature: str) -> Any:
    """Learner before and after a step, and its metrics."""
    agent, learner = tiny_agent(
        sac__temperature=temperature, sac__initial_temperature=0.2
    )

    def step(learner: LearnerState, now: Transition, z: Any, key: Any) -> Any:
        return agent.policy_step(learner, now, z, agent.policy_noise(key, SIZE))

    z = np.random.default_rng(1).normal(size=(SIZE, 1)).astype(np.float32)
    now = random_transitions(0, SIZE)
    after, metrics = on_one_device(step)(learner, now, z, jax.random.key(0))
    return agent, learner, after, metrics


@pytest.mark.parametrize("temperature", ["learnt", "conditioned", "fixed"])
def test_a_policy_step_leaves_the_model_alone_and_changes_actor_and_critic(temperature):
    _, before, after, metrics = policy_step(temperature)
    assert not any(changed(before.world_model, after.world_model).values())
    assert all(changed(before.actor.params, after.actor.params).values())
    assert all(changed(before.critic.params, after.critic.params).values())
    assert int(after.num_updates) == 1
    assert all(np.isfinite(value) for value in metrics.values())


def test_the_target_network_moves_by_the_target_rate():
    agent, before, after, _ = policy_step("learnt")
    jax.tree.map(
        lambda old, new, target: np.testing.assert_allclose(
            target, old + agent.target_rate * (np.asarray(new) - old), atol=1e-6
        ),
        before.target_critic,
        after.critic.params,
        after.target_critic,
    )


def test_the_target_network_starts_as_the_critic():
    _, before, _, _ = policy_step("learnt")
    assert not any(changed(before.critic.params, before.target_critic).values())


def test_a_fixed_temperature_stays():
    _, before, after, metrics = policy_step("fixed")
    assert not any(
        changed(before.temperature.params, after.temperature.params).values()
    )
    assert float(metrics["sac/temperature"]) == pytest.approx(0.2)


@pytest.mark.parametrize("temperature", ["learnt", "conditioned"])
def test_a_learnt_temperature_moves(temperature):
    _, before, after, _ = policy_step(temperature)
    assert all(changed(before.temperature.params, after.temperature.params).values())


def test_a_policy_step_on_a_broken_batch_changes_nothing_but_its_counts():
    """Neither networks nor target, optimisers or temperature; the next step works."""
    agent, learner = tiny_agent()

    def step(learner: LearnerState, now: Transition, z: Any, key: Any) -> Any:
        return agent.policy_step(learner, now, z, agent.policy_noise(key, SIZE))[0]

    compiled = on_one_device(step)
    now, z = random_transitions(0, SIZE), np.zeros((SIZE, 1), np.float32)
    before = compiled(learner, now, z, jax.random.key(0))
    now.obs[3, 0] = np.nan
    broken = compiled(before, now, z, jax.random.key(1))
    for name in ("actor", "critic", "temperature"):
        old, new = getattr(before, name), getattr(broken, name)
        assert not any(changed(old.params, new.params).values())
        assert not any(changed(old.opt_state, new.opt_state).values())
        np.testing.assert_array_equal(new.skipped, [1, 1])
    assert not any(changed(before.target_critic, broken.target_critic).values())
    now.obs[3, 0] = 0
    after = compiled(broken, now, z, jax.random.key(2))
    assert all(changed(broken.critic.params, after.critic.params).values())
    assert all(changed(broken.target_critic, after.target_critic).values())
    np.testing.assert_array_equal(after.critic.skipped, [1, 0])


@pytest.mark.parametrize("field", ["reward", "next_obs"])
def test_an_update_on_a_broken_batch_keeps_the_loss_weights_and_the_world_model(field):
    agent, learner = tiny_agent()
    update = on_one_device(lambda *args: agent.update(*args)[0])
    batch = random_batch(agent, learner, 0, SIZE)
    spoilt = batch.scaled.replace(
        **{field: getattr(batch.scaled, field).at[0].set(jnp.nan)}
    )
    after = update(learner, batch.replace(scaled=spoilt), jax.random.key(0))
    assert not any(
        changed(learner.world_model.params, after.world_model.params).values()
    )
    assert not any(changed(learner.loss_weights, after.loss_weights).values())
    np.testing.assert_array_equal(after.world_model.skipped, [1, 1])
    # SAC's own numbers, z among them, were finite.
    np.testing.assert_array_equal(after.critic.skipped, [0, 0])


# ---------------------------------------------------------------- the model


@functools.cache
def world_model_step() -> Any:
    agent, learner = tiny_agent(encoder__num_classes=2, elbo__prior="learnt")

    def step(learner: LearnerState, rows: Transition, key: Any) -> Any:
        batch = agent.make_batch(learner, rows)
        return agent.world_model_step(
            learner, batch, agent.world_model_noise(key, SIZE)
        )

    rows = random_transitions(0, SIZE, agent.window_steps + 1, steps=50)
    after, metrics, z = on_one_device(step)(learner, rows, jax.random.key(0))
    return learner, after, metrics, z


def test_a_model_step_trains_encoder_decoder_and_prior_and_nothing_else():
    before, after, _, _ = world_model_step()
    assert all(changed(before.world_model.params, after.world_model.params).values())
    for name in ("actor", "critic", "temperature", "target_critic", "normalizer"):
        assert not any(changed(getattr(before, name), getattr(after, name)).values())


def test_a_model_step_returns_the_tasks_inferred_before_the_step():
    before, _, _, z = world_model_step()
    agent, _ = tiny_agent(encoder__num_classes=2, elbo__prior="learnt")
    batch = random_batch(agent, before, 0, SIZE)
    posterior = agent.encode(before.world_model.params, batch.window)
    best = posterior.probs[:, 0].argmax(-1)
    expected = np.take_along_axis(
        np.asarray(posterior.mean[:, 0]), np.asarray(best)[:, None, None], 1
    )[:, 0]
    np.testing.assert_allclose(z, expected, atol=1e-5)


def test_loss_weights_start_by_the_number_of_predictions():
    """The original's start: state_size / (1 + state_size) is the reward's weight."""
    _, learner = tiny_agent(elbo__state_size=2)
    np.testing.assert_allclose(learner.loss_weights, [1 / 3, 2 / 3], rtol=1e-6)


def test_balanced_weights_count_the_reward_once_for_each_entry_of_the_state():
    agent, _ = tiny_agent(elbo__state_size=2)
    weights = agent.balanced_weights(jnp.array([3.0, 0.5]))
    np.testing.assert_allclose(weights, [3 / 4, 1 / 4], rtol=1e-6)


def test_make_batch_blanks_what_is_before_the_episode():
    agent, learner = tiny_agent()
    step: Any = np.array([0, 1, 9], np.int32)[:, None]
    rows = random_transitions(0, 3, agent.window_steps + 1, steps=step)
    batch = agent.make_batch(learner, rows)
    empty = np.all(np.asarray(batch.window) == 0, -1)
    np.testing.assert_array_equal(
        empty, [[True, True, True], [True, True, False], [False, False, False]]
    )
    np.testing.assert_array_equal(batch.current.obs, rows.obs[:, -1])


def test_the_policy_without_noise_is_the_mean_of_the_policy_with_noise_at_zero():
    agent, learner = tiny_agent()
    obs = random_transitions(0, 4).obs
    key = jax.random.key(0)
    modes = jnp.array([True, False, True, False])
    act = lambda mode: np.asarray(  # noqa: E731
        (policy := ContextPolicy(agent, learner, mode)).act(policy.start(4), obs, key)
    )
    quiet, loud, mixed = act(True), act(False), act(modes)
    assert np.all(quiet != loud)
    np.testing.assert_allclose(mixed, np.where(modes[:, None], quiet, loud), rtol=1e-6)


def test_actor_and_critic_see_observations_normalised():
    """As an agent that sees them raw where they are normalised already."""
    raw, learner = tiny_agent()
    agent, _ = tiny_agent(sac__normalize_obs=True)
    now, z = random_transitions(0, SIZE), jnp.zeros((SIZE, 1))
    now = now.replace(obs=100 + 7 * now.obs, next_obs=100 + 7 * now.next_obs)
    statistics = normalizer.update(learner.normalizer, now, None)
    learner = learner.replace(normalizer=statistics)
    scaled = now.replace(
        obs=normalizer.normalize_obs(statistics, now.obs),
        next_obs=normalizer.normalize_obs(statistics, now.next_obs),
    )
    key = jax.random.key(0)
    results = [
        (
            on_one_device(one.policy_step)(
                learner, seen, z, one.policy_noise(key, SIZE)
            ),
            one.act(learner, seen.obs, z, key, False),
        )
        for one, seen in ((agent, now), (raw, scaled))
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results
    )


@pytest.mark.parametrize(("kind", "parts"), [("shared_y", 1), ("individual_y", 3)])
def test_make_agent_builds_the_encoder_that_is_named(kind, parts):
    from helpers import tiny_config

    agent = make_agent(tiny_config(encoder__kind=kind), 2, 1)
    learner = jax.eval_shape(agent.init, jax.random.key(0))
    window = jnp.zeros((2, 3, agent.num_features))
    posterior = jax.eval_shape(agent.encode, learner.world_model.params, window)
    assert posterior.probs.shape == (2, parts, 1)


@pytest.mark.parametrize("schedule", ["fused", "alternating"])
def test_learning_rates_fall_to_their_share_at_the_end_of_the_run(schedule):
    """Adam's first step is as long as its learning rate, whatever the gradient."""
    changes: dict[str, Any] = {
        "train__schedule": schedule,
        "train__num_epochs": 5,
        "train__num_updates": 4,
        "train__num_world_model_steps": 8,
        "train__final_learning_rate": 0.1,
        "sac__learning_rate": 1e-2,
        "elbo__learning_rate": 2e-2,
    }
    agent, _ = tiny_agent(**changes)
    model_steps = 20 if schedule == "fused" else 40
    for optimizer, rate, steps in (
        (agent.policy_optimizer, 1e-2, 20),
        (agent.temperature_optimizer, 1e-2, 20),
        (agent.world_model_optimizer, 2e-2, model_steps),
    ):
        params = jnp.float32(0)
        state = optimizer.init(params)
        lengths = []
        for _ in range(steps + 5):
            update: Any
            update, state = optimizer.update(jnp.float32(1), state, params)
            lengths.append(-float(update))
        assert lengths[0] == pytest.approx(rate, rel=1e-4)
        assert lengths[steps // 2] == pytest.approx(0.55 * rate, rel=1e-3)
        assert lengths[steps:] == pytest.approx([0.1 * rate] * 5, rel=1e-3)
