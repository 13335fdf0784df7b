"""Encoders: every mode, merge, number of classes and latent size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import of, per_class, per_class_last, run
from closeness import FORWARD, assert_close
from recordings import Group, cases

from cemrl_jax.agents.cemrl.losses import class_gaussians, infer_class, infer_task
from cemrl_jax.agents.cemrl.networks import GaussianHead
from cemrl_jax.agents.cemrl.types import Posterior
from cemrl_jax.agents.distributions import product_of_gaussians

NO_TIE = 1e-6
every_case = pytest.mark.parametrize("case", cases("encoders"), ids=str)


@functools.cache
def encode(case):
    agent, learner = of(case)
    window = case["input"].reshape(-1, agent.window_steps, agent.num_features)
    return run(agent.encode, learner.world_model.params, window)


def clear(case, name):
    """Which choices were not decided by rounding; with one class there is no other."""
    margin = case[name] if name in case else np.ones(case["y"].shape)
    return margin > NO_TIE


@every_case
def test_features_of_the_shared_network_agree(case):
    if "shared" not in case:
        pytest.skip("not recorded for large networks")
    agent, learner = of(case)
    params = learner.world_model.params["encoder"]
    shared = lambda x: agent.encoder.bind(params).shared(x)  # noqa: E731
    assert_close(run(shared, case["input"]), case["shared"], FORWARD)


@every_case
def test_class_probabilities_agree(case):
    probs = per_class_last(case, encode(case).probs)
    assert_close(probs, case["y_probs"], FORWARD)


@every_case
def test_means_and_scales_of_every_class_agree(case):
    posterior = encode(case)
    assert_close(per_class(case, posterior.mean), case["mu"], FORWARD, "mu")
    assert_close(per_class(case, posterior.std), case["sigma"], FORWARD, "sigma")


@every_case
def test_inferred_class_agrees(case):
    rows = clear(case, "y_margin")
    inferred = np.asarray(run(infer_class, encode(case)))
    assert np.array_equal(inferred[rows], case["y"][rows])


def test_class_of_individual_y_is_the_one_that_the_product_over_time_favours():
    probs = jnp.array([[0.01, 0.99], [0.9, 0.1], [0.9, 0.1]])  # 0.0081 and 0.0099
    nothing = jnp.zeros((3, 2, 1))
    assert infer_class(Posterior(probs=probs, mean=nothing, std=nothing)) == 1


@every_case
def test_inferred_task_agrees(case):
    rows = clear(case, "y_margin")
    if "y_per_step" in case:
        steps = clear(case, "y_per_step_margin")
        best = np.asarray(encode(case).probs.argmax(-1))
        assert np.array_equal(best[steps], case["y_per_step"][steps])
        rows = steps.all(-1)
    z = np.asarray(run(infer_task, encode(case)))
    assert_close(z[rows], case["z"][rows], FORWARD)


@every_case
def test_samples_of_every_class_agree(case):
    mean, std = (np.moveaxis(x, 1, 0) for x in run(class_gaussians, encode(case)))
    if "pog_mu_class" in case:
        assert_close(mean, case["pog_mu_class"], FORWARD, "mean")
        assert_close(std, case["pog_sigma_class"], FORWARD, "scale")
    sample = mean + std * case["sample_eps"]
    assert_close(sample, case["sample_z"], FORWARD, "sample")


def test_softplus_heads_and_their_product_agree():
    unit = Group("encoders", "unit_gaussian/")
    raw = jnp.asarray(unit["raw"])
    latent = raw.shape[-1] // 2
    identity = {"kernel": jnp.eye(2 * latent), "bias": jnp.zeros(2 * latent)}
    head = GaussianHead(1, latent).apply({"params": {"Dense_0": identity}}, raw)
    mean, std = (x[..., 0, :] for x in jax.tree.leaves(head))
    assert_close(mean, unit["plain_mu"], FORWARD, "mean")
    assert_close(std, unit["plain_sigma"], FORWARD, "scale")
    mean, std = product_of_gaussians(mean, std, 1)
    assert_close(mean, unit["product_mu"], FORWARD, "mean of the product")
    assert_close(std, unit["product_sigma"], FORWARD, "scale of the product")


def test_product_of_tiny_variances_agrees():
    unit = Group("encoders", "unit_gaussian/")
    mean, var = (jnp.asarray(unit[name]) for name in ("pog_in_mu", "pog_in_var"))
    mean, scale = product_of_gaussians(mean, var, 1)
    assert_close(mean, unit["pog_mu"], FORWARD, "mean")
    # Relative: these scales are far below 1.
    assert_close(scale / unit["pog_out"], np.ones_like(scale), FORWARD, "scale")
