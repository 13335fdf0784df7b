"""Initialisation: ranges, means and spreads of many fresh networks."""

import functools

import jax
import numpy as np
import pytest
from agents import exported, make, run
from recordings import initialisation

OTHER_MERGE = "encoder_linear_merge/"
RECORDED = initialisation()
every_array = pytest.mark.parametrize("name", RECORDED)


def width(name, axis=-1):
    return RECORDED[name]["shape"][axis]


@functools.cache
def description():
    """Returns the sizes of the recorded networks."""
    features, shared = RECORDED["encoder/shared/fc0/kernel"]["shape"]
    decoder, hidden = RECORDED["decoder/state/fc0/kernel"]["shape"]
    latent = width("encoder/gauss_head_0/bias") // 2
    obs = width("policy/fc0/kernel", 0) - latent
    return {
        "encoding_mode": "transitionSharedY",
        "obs_dim": obs,
        "action_dim": width("policy/mean/bias"),
        "time_steps": width("encoder/pre_class/fc0/kernel", 0) // shared,
        "num_classes": width("encoder/class_head/bias"),
        "latent_dim": latent,
        "net_complex": (shared + 0.5) / features,
        "net_complex_decoder": (hidden + 0.5) / decoder,
        "state_reconstruction_clip": width("decoder/state/out/bias"),
        "sac_layer_size": width("policy/fc0/bias"),
        "prior_mode": "network",
        "use_parametrized_alpha": True,
    }


@functools.cache
def learners(merge, num_learners=200):
    """Returns the agent and many fresh learners `[N]`."""
    agent = make(description() | {"merge_mode": merge}, RECORDED)
    keys = jax.random.split(jax.random.key(0), num_learners)
    return agent, run(jax.vmap(agent.init), keys)


@functools.cache
def arrays(merge):
    """Returns the parameters `[N, ...]`, by the original's names."""
    agent, many = learners(merge)
    trees = dict(many.world_model.params)
    for name in ("actor", "temperature"):
        trees[name] = getattr(many, name).params
    swapped = jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), many.critic.params)
    return exported(agent, trees | {"critic": swapped})


def ours(name):
    if name.startswith(OTHER_MERGE):
        return arrays("linear")["encoder/" + name.removeprefix(OTHER_MERGE)]
    return arrays("mlp")[name]


@every_array
def test_range_agrees(name):
    values, recorded = ours(name), RECORDED[name]
    assert list(values.shape[1:]) == recorded["shape"]
    bound = max(abs(recorded["min"]), abs(recorded["max"]))
    largest = np.abs(values).max()
    # The largest of n uniform draws is about bound / n below the bound.
    assert abs(largest / bound - 1) < 20 / min(values.size, recorded["n"]) + 1e-6


@every_array
def test_mean_and_spread_agree(name):
    values, recorded = ours(name).astype(np.float64), RECORDED[name]
    few = min(values.size, recorded["n"])
    tolerance = 6 * recorded["std"] / np.sqrt(few) + 1e-7
    assert abs(values.mean() - recorded["mean"]) < tolerance
    assert abs(values.std() - recorded["std"]) < tolerance


@pytest.mark.parametrize("name", ["critic", "actor", "temperature"])
def test_every_network_is_drawn_on_its_own(name):
    first = jax.tree.leaves(getattr(learners("mlp")[1], name).params)[-1]
    assert len(np.unique(np.asarray(first).reshape(len(first), -1), axis=0)) == 200


def test_both_q_functions_differ_and_the_targets_are_copies():
    """The original draws its targets anew; ours start as copies, on purpose."""
    many = learners("mlp")[1]
    for leaf, target in zip(
        jax.tree.leaves(many.critic.params), jax.tree.leaves(many.target_critic)
    ):
        assert np.array_equal(leaf, target)
    kernel = jax.tree.leaves(many.critic.params)[-1]
    assert not np.array_equal(kernel[:, 0], kernel[:, 1])


def test_temperature_starts_at_one():
    agent = make(description() | {"use_parametrized_alpha": False}, RECORDED)
    temperature = run(agent.init, jax.random.key(0)).temperature.params
    assert exported(agent, {"temperature": temperature})["log_alpha"] == 0
