"""ELBO: its terms, total, gradients, an Adam step and validation."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from agents import (
    batch_of_windows,
    exported,
    last_gradients,
    of,
    on_one_device,
    per_class,
    per_class_last,
    run,
    with_weights,
)
from closeness import (
    FORWARD,
    assert_close,
    assert_gradients_close,
    assert_steps_close,
)
from recordings import cases, slow_ones

from cemrl_jax.agents.cemrl.losses import (
    class_gaussians,
    infer_class,
    infer_task,
    mean_prediction_errors,
    prediction_errors,
)
from cemrl_jax.agents.distributions import log_probs, normal_kl, uniform_kl

CASES = cases("elbo")
SLOW = slow_ones(CASES)


def param(case, *number):
    name = "-".join(map(str, (case, *number)))
    marks = [pytest.mark.slow] if case in SLOW else []
    return pytest.param(case, *number, marks=marks, id=name)


every_case = pytest.mark.parametrize("case", [param(case) for case in CASES])
every_step = pytest.mark.parametrize(
    ("case", "number"),
    [param(case, number) for case in CASES for number in range(len(case.steps))],
)


@functools.cache
def before(case, number):
    """Returns the learner that enters a step: our optimiser, recorded weights."""
    agent, learner = of(case)
    if number:
        recorded = case.steps[number - 1].under("params_after/")
        last = outcome(case, number - 1)
        learner = with_weights(agent, last.learner, recorded)
    weights = [case.meta["loss_weight_state"], case.meta["loss_weight_reward"]]
    return learner.replace(loss_weights=jnp.array(weights))


class Outcome(NamedTuple):
    """What a step computed on its way, and the learner that left it."""

    posterior: Any
    log_probs: Any
    errors: Any
    kl_z: Any
    kl_y: Any
    learner: Any
    metrics: Any
    validation: Any


def validate(agent, params, case):
    """Returns errors, tasks and classes of the recorded validation batch, if any."""
    if "val_return" not in case:
        return None
    batch, difference = batch_of_windows(case, "val_"), agent.elbo.state_difference
    posterior = agent.encode(params, batch.window)
    errors = mean_prediction_errors(params, agent, batch, difference)
    return errors, infer_task(posterior), infer_class(posterior)


@functools.cache
def outcome(case, number) -> Any:
    agent, step = of(case)[0], case.steps[number]

    def compute(learner, batch, noise):
        params = learner.world_model.params
        posterior = agent.encode(params, batch.window)
        mean, std = class_gaussians(posterior)
        z, difference = mean + std * noise, agent.elbo.state_difference
        new, metrics, _ = on_one_device(agent.world_model_step, learner, batch, noise)
        prior = agent.prior(params)
        return Outcome(
            posterior=posterior,
            log_probs=log_probs(posterior.probs),
            errors=prediction_errors(params, agent, batch, z, difference),
            kl_z=normal_kl(posterior.mean, posterior.std, *prior),
            kl_y=uniform_kl(posterior.probs),
            learner=new,
            metrics=metrics,
            validation=validate(agent, params, case) if not number else None,
        )

    noise = np.moveaxis(step["eps"], 0, 1)
    return run(compute, before(case, number), batch_of_windows(step), noise)


@every_step
def test_windows_are_what_the_encoder_receives(case, number):
    step = case.steps[number]
    if "encoder_input" not in step:
        pytest.skip("recorded for single steps only")
    window = batch_of_windows(step).window.reshape(step["encoder_input"].shape)
    assert_close(window, step["encoder_input"], FORWARD)


@every_step
def test_posterior_agrees(case, number):
    step, ours = case.steps[number], outcome(case, number)
    mean, std = (per_class(case, x) for x in (ours.posterior.mean, ours.posterior.std))
    probs = per_class_last(case, ours.posterior.probs)
    assert_close(probs, step["y_probs"], FORWARD, "probs")
    assert_close(per_class_last(case, ours.log_probs), step["y_logits"], FORWARD, "log")
    assert_close(mean, step["mu"], FORWARD, "mean")
    assert_close(std, step["sigma"], FORWARD, "scale")


@every_step
def test_prediction_errors_of_every_class_agree(case, number):
    step, weights = case.steps[number], before(case, number).loss_weights
    state, reward = (
        np.broadcast_to(per_class_last(case, error[:, None]), step["nll_px"].shape)
        for error in outcome(case, number).errors
    )
    assert_close(state, step["state_losses"], FORWARD, "state")
    assert_close(reward, step["reward_losses"], FORWARD, "reward")
    total = weights[0] * state + weights[1] * reward
    assert_close(total, step["nll_px"], FORWARD, "weighted")


@every_step
def test_divergences_agree(case, number):
    step, ours = case.steps[number], outcome(case, number)
    assert_close(per_class_last(case, ours.kl_z), step["kl_qz_pz"], FORWARD, "z")
    assert_close(per_class_last(case, ours.kl_y), step["kl_qy_py"], FORWARD, "class")


@every_step
def test_loss_is_the_recorded_sum_over_the_batch(case, number):
    step, mean = case.steps[number], outcome(case, number).metrics["elbo/loss"]
    assert_close(mean, step["returned_loss"], FORWARD, "mean")
    total = mean * case.meta["batch_size"]
    assert_close(total, step["loss"], FORWARD, "sum")
    assert_close(-total, step["elbo"], FORWARD, "elbo")


@every_step
def test_gradients_of_all_parameters_agree(case, number):
    old, new = (
        before(case, number).world_model,
        outcome(case, number).learner.world_model,
    )
    gradients = exported(of(case)[0], last_gradients(old, new))
    assert_gradients_close(gradients, case.steps[number].under("grads/"))


@every_step
def test_parameters_after_an_adam_step_agree(case, number):
    step, learner = case.steps[number], outcome(case, number).learner
    recorded = step.under("params_after/")
    for name in case.meta["params_without_grad"]:  # the fixed prior has none of ours
        recorded = {k: v for k, v in recorded.items() if not k.startswith(name)}
    ours = exported(of(case)[0], learner.world_model.params)
    assert_steps_close(ours, recorded, step.under("grads/"))


@every_case
def test_validation_errors_agree(case):
    if "val_return" not in case:
        pytest.skip("not recorded")
    errors, z, y = outcome(case, 0).validation
    assert_close(errors, case["val_return"], FORWARD, "mean")
    sums = [case["val_state_loss_sum"], case["val_reward_loss_sum"]]
    assert_close(errors * case.meta["batch_size"], sums, FORWARD, "sum")
    assert_close(z, case["val_z"], FORWARD, "z")
    assert np.array_equal(y, case["val_y"])
