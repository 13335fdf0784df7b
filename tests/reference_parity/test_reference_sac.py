"""SAC: policy, temperature, critic, actor and targets, step by step.

The recorded actor steps follow torch 1.4, which mixes weights from before and after the
critic's step. Ours uses the critic after its step throughout: the recorded `newq`
reading, which exists for first steps. So each step starts from recorded weights, with
our optimiser's state. Later steps of networks whose weights are recorded in part only
cannot be started.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from agents import (
    blank_learner,
    exported,
    last_gradients,
    make,
    of,
    on_one_device,
    run,
    with_weights,
)
from closeness import (
    FORWARD,
    SAC,
    assert_close,
    assert_gradients_close,
    assert_steps_close,
    log_prob_rounding,
)
from recordings import Group, cases, description

from cemrl_jax.agents.cemrl.agent import PolicyNoise
from cemrl_jax.agents.distributions import tanh_normal
from cemrl_jax.agents.sac import actor_loss, critic_target
from cemrl_jax.data.types import Transition
from cemrl_jax.envs.base import Task

NETWORKS = ("actor", "critic", "temperature", "target_critic")


def can_start(case, number):
    """Whether the weights that a step starts with are recorded in full."""
    if not number:
        return True
    recorded = case.steps[number - 1].under("params_after/")
    return not any(name.endswith("/val") for name in recorded)


every_step = pytest.mark.parametrize(
    ("case", "number"),
    [
        (case, number)
        for case in cases("sac")
        for number in range(len(case.steps))
        if can_start(case, number)
    ],
    ids=str,
)


@functools.cache
def before(case, number):
    """Returns the learner that enters a step: our optimisers, recorded weights."""
    agent, learner = of(case)
    if not number:
        return learner
    step = case.steps[number - 1]
    recorded = step.under("params_after/")
    if not agent.temperature.conditioned:
        recorded["log_alpha"] = step["log_alpha_after"]
    return with_weights(agent, outcome(case, number - 1)[0], recorded)


@functools.cache
def outcome(case, number):
    """Returns the learner that leaves a step, and what the step computed."""
    agent, step = of(case)[0], case.steps[number]

    def compute(learner, now, z, noise):
        return forward(agent, learner, now, z, noise), on_one_device(
            agent.policy_step, learner, now, z, noise
        )

    noise = PolicyNoise(action=step["eps_obs"], next_action=step["eps_next_obs"])
    z = step["batch_task_indicators"]
    values, (learner, metrics) = run(
        compute, before(case, number), batch(step), z, noise
    )
    return learner, values | metrics


def batch(step):
    column = lambda name: jnp.asarray(step[f"batch_{name}"][:, 0], jnp.float32)  # noqa: E731
    zeros = jnp.zeros(column("rewards").shape, jnp.int32)
    return Transition(
        obs=step["batch_observations"],
        action=step["batch_actions"],
        reward=column("rewards"),
        next_obs=step["batch_next_observations"],
        terminated=column("terminals"),
        step=zeros,
        task=Task(kind=zeros, base=zeros, spec=zeros, number=zeros, overrides={}),
    )


def forward(agent, learner, now, z, noise):
    """Returns, by recorded name, what the networks say before the step."""
    policy = functools.partial(agent.sample_action, learner.actor.params)
    critic, target = learner.critic.params, learner.target_critic
    action, log_pi = policy(now.obs, z, noise.action)
    next_action, next_log_pi = policy(now.next_obs, z, noise.next_action)
    mean, log_std = agent.actor.apply(learner.actor.params, now.obs, z)
    q = agent.critic.apply(critic, now.obs, z, now.action)
    log_alpha = agent.temperature.apply(learner.temperature.params, z)
    next_q = agent.critic.apply(target, now.next_obs, z, next_action)
    return {
        "new_obs_actions": action,
        "policy_mean": mean,
        "policy_log_std": log_std,
        "log_pi": log_pi,
        "new_next_actions": next_action,
        "new_log_pi": next_log_pi,
        "q1_pred": q[0],
        "q2_pred": q[1],
        "q_new_actions": agent.critic.apply(critic, now.obs, z, action).min(0),
        "next_q": next_q,
        "log_alpha_used_in_loss": log_alpha,
    }


def assert_columns_close(step, values, tolerances):
    for name, tolerance in tolerances.items():
        ours = np.asarray(values[name]).reshape(step[name].shape)
        assert_close(ours, step[name], tolerance, name)


@every_step
def test_policy_agrees(case, number):
    names = ("new_obs_actions", "policy_mean", "policy_log_std", "new_next_actions")
    tolerances = dict.fromkeys(names, FORWARD)
    assert_columns_close(case.steps[number], outcome(case, number)[1], tolerances)


@every_step
@pytest.mark.parametrize(
    ("name", "action"),
    [("log_pi", "new_obs_actions"), ("new_log_pi", "new_next_actions")],
)
def test_log_probability_agrees(case, number, name, action):
    step, (_, values) = case.steps[number], outcome(case, number)
    rounding = log_prob_rounding(step[action])
    assert_close(values[name], step[name][:, 0], SAC, rounding=rounding)


@every_step
def test_values_of_both_q_functions_agree(case, number):
    names = ("q1_pred", "q2_pred", "q_new_actions")
    tolerances = dict.fromkeys(names, SAC)
    assert_columns_close(case.steps[number], outcome(case, number)[1], tolerances)


@every_step
def test_temperature_agrees(case, number):
    agent, step = of(case)[0], case.steps[number]
    learner, values = outcome(case, number)
    loss, rounding = values["sac/temperature_loss"], mean_rounding(step)
    scale = np.abs(step["log_alpha_used_in_loss"]).max()
    assert_close(loss, step["alpha_loss"], SAC, "loss", scale * rounding)
    assert_columns_close(step, values, {"log_alpha_used_in_loss": FORWARD})
    if agent.temperature.conditioned:
        return  # its network is compared with all others
    after = exported(agent, {"temperature": learner.temperature.params})["log_alpha"]
    assert_close(after, step["log_alpha_after"][0], FORWARD, "after the step")
    old, new = before(case, number).temperature, learner.temperature
    gradient = last_gradients(old, new)["params"]["log_alpha"]
    assert_close(gradient, step["alpha_grad"][0], SAC, "gradient", rounding)


def mean_rounding(step):
    """Returns what the mean log-probability of a batch may be off."""
    return log_prob_rounding(step["new_obs_actions"]).mean()


@every_step
def test_temperature_in_force_agrees(case, number):
    """One number acts at once, a network of z from the next step on."""
    agent, step = of(case)[0], case.steps[number]
    learner, values = outcome(case, number)
    log_alpha = values["log_alpha_used_in_loss"]
    if not agent.temperature.conditioned:
        log_alpha = learner.temperature.params["params"]["log_alpha"]
    alpha = np.exp(np.asarray(log_alpha)).reshape(step["alpha"].shape)
    assert_close(alpha, step["alpha"], FORWARD)
    # What the step itself used shows in its target.
    target = step["q_target"].mean(dtype=np.float64)
    assert_close(values["sac/target"], target, SAC, "mean target")


@every_step
def test_targets_of_the_critic_agree(case, number):
    agent, step = of(case)[0], case.steps[number]
    values, alpha = outcome(case, number)[1], step["alpha"].reshape(-1)
    soft = functools.partial(
        critic_target, values["next_q"], values["new_log_pi"], alpha
    )
    now = batch(step)
    value = soft(reward=jnp.zeros(now.reward.shape), mask=jnp.ones(now.reward.shape))
    rounding = (alpha * log_prob_rounding(step["new_next_actions"]))[:, None]
    assert_close(value[:, None], step["target_q_values"], SAC, "soft value", rounding)
    mask = agent.discount * (1 - now.terminated)
    target = soft(reward=agent.reward_scale * now.reward, mask=mask)
    rounding = agent.discount * rounding
    assert_close(target[:, None], step["q_target"], SAC, "target", rounding)


@every_step
def test_losses_of_the_critic_agree(case, number):
    step, (_, values) = case.steps[number], outcome(case, number)
    losses = {
        name: np.square(np.asarray(values[f"{name}_pred"]) - step["q_target"][:, 0])
        for name in ("q1", "q2")
    }
    assert_close(losses["q1"].mean(), step["qf1_loss"], SAC, "first")
    assert_close(losses["q2"].mean(), step["qf2_loss"], SAC, "second")
    mean = (step["qf1_loss"] + step["qf2_loss"]) / 2
    assert_close(values["sac/critic_loss"], mean, SAC, "mean of both")


@every_step
def test_loss_of_the_actor_agrees_before_and_after_the_step_of_the_critic(case, number):
    agent, step = of(case)[0], case.steps[number]
    old, (new, values) = before(case, number), outcome(case, number)
    now, z = batch(step), step["batch_task_indicators"]

    def loss(critic):
        apply: Any = functools.partial(agent.critic.apply, critic.params)
        alpha = step["alpha"].reshape(-1)
        arguments = (apply, now.obs, z, step["eps_obs"], alpha)
        return actor_loss(old.actor.params, agent.sample_action, *arguments)[0]

    assert_close(run(loss, old.critic), step["policy_loss"], SAC, "before")
    if "newq_policy_loss" in step:
        expected = step["newq_policy_loss"]
        assert_close(run(loss, new.critic), expected, SAC, "after")
        assert_close(values["sac/actor_loss"], expected, SAC, "in the step")


def of_networks(recorded, start):
    return {k: v for k, v in recorded.items() if k.startswith(start)}


def trained(agent):
    """Names of networks that every recorded reading trains alike."""
    return ("qf1/", "qf2/") + ("alpha_net/",) * agent.temperature.conditioned


@every_step
def test_gradients_of_temperature_and_critic_agree(case, number):
    agent, step = of(case)[0], case.steps[number]
    old, (new, _) = before(case, number), outcome(case, number)
    gradients = {
        network: last_gradients(getattr(old, network), getattr(new, network))
        for network in ("critic", "temperature")
    }
    for network in trained(agent):
        recorded = of_networks(step.under("grads/"), network)
        assert_gradients_close(exported(agent, gradients), recorded)


@every_step
def test_gradients_of_the_actor_go_through_the_updated_critic(case, number):
    agent, step = of(case)[0], case.steps[number]
    recorded = step.under("newq_grads/")
    if not recorded:
        pytest.skip("recorded for first steps")
    gradients = last_gradients(
        before(case, number).actor, outcome(case, number)[0].actor
    )
    assert_gradients_close(exported(agent, {"actor": gradients}), recorded)


def parameters(case, number):
    agent, learner = of(case)[0], outcome(case, number)[0]
    trees = {name: getattr(learner, name) for name in NETWORKS}
    return exported(
        agent, {name: getattr(tree, "params", tree) for name, tree in trees.items()}
    )


@every_step
def test_parameters_after_the_step_agree(case, number):
    agent, step = of(case)[0], case.steps[number]
    ours, recorded = parameters(case, number), step.under("params_after/")
    gradients = step.under("grads/")
    for network in trained(agent):
        assert_steps_close(ours, of_networks(recorded, network), gradients)
    if "newq_policy_loss" in step:
        actor = step.under("newq_params_after/")
        assert_steps_close(ours, actor, step.under("newq_grads/"))


@every_step
def test_target_critic_after_the_step_agrees(case, number):
    recorded = of_networks(case.steps[number].under("params_after/"), "target_")
    assert_steps_close(parameters(case, number), recorded, {})


@functools.cache
def policy_unit():
    unit = Group("sac", "policy_unit/")
    arrays = unit.under("params/")
    agent = make(description("sac")["policy_unit"], arrays)
    learner = with_weights(agent, blank_learner(agent), arrays)
    obs, z = np.split(unit["obs_z"], [agent.obs_size], -1)
    mean, log_std = run(agent.actor.apply, learner.actor.params, obs, z)
    action, log_prob = tanh_normal(mean, log_std, jnp.asarray(unit["eps"]))
    return unit, {
        "mean": mean,
        "log_std": log_std,
        "std": jnp.exp(log_std),
        "pre_tanh": mean + jnp.exp(log_std) * unit["eps"],
        "action": action,
        "deterministic_action": jnp.tanh(mean),
        "log_prob": log_prob[:, None],
    }


@pytest.mark.parametrize(
    "name", ["mean", "log_std", "std", "pre_tanh", "action", "deterministic_action"]
)
def test_policy_agrees_far_from_ordinary_inputs(name):
    unit, ours = policy_unit()
    assert_close(ours[name], unit[name], FORWARD)


def test_log_probability_agrees_where_the_tanh_rounds_as_well():
    unit, ours = policy_unit()
    assert (np.abs(unit["action"]) == 1).any()
    assert_close(ours["log_prob"], unit["log_prob"], SAC)
