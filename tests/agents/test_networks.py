from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.agents.cemrl.networks import (
    ClassHead,
    Decoder,
    FixedPrior,
    GaussianHead,
    LearntPrior,
    Trunk,
)
from cemrl_jax.agents.networks import MLP
from cemrl_jax.agents.sac import Actor, Critic, Temperature

KEY = jax.random.key(0)


def init(module, *args):
    return jax.jit(module.init)(KEY, *args)["params"]


def apply(module: Any, *args: Any) -> Any:
    return module.apply(*args)


def sizes(params):
    return jax.tree.map(lambda leaf: leaf.shape, params)


def largest(kernel) -> float:
    return float(np.abs(kernel).max())


# ---------------------------------------------------------------- initial values


def test_hidden_layers_start_within_the_output_widths_root_and_biases_at_01():
    params = init(MLP((400, 100), 3), jnp.zeros(5))
    first, second, last = (params[f"Dense_{number}"] for number in range(3))
    assert 0.99 / 20 < largest(first["kernel"]) <= 1 / 20
    assert 0.99 / 10 < largest(second["kernel"]) <= 1 / 10
    np.testing.assert_array_equal(first["bias"], np.full(400, 0.1, np.float32))
    np.testing.assert_array_equal(second["bias"], np.full(100, 0.1, np.float32))
    assert 0.9 * 3e-3 < largest(last["kernel"]) <= 3e-3
    assert 0 < largest(last["bias"]) <= 3e-3


def test_the_initial_policy_is_nearly_a_standard_normal():
    actor = Actor((64,), 2)
    params = jax.jit(actor.init)(KEY, jnp.zeros(3), jnp.zeros(1))
    mean, log_std = jax.jit(actor.apply)(params, jnp.ones((10, 3)), jnp.ones((10, 1)))
    assert mean.shape == log_std.shape == (10, 2)
    assert largest(mean) < 0.1
    assert largest(log_std) < 0.1


@pytest.mark.parametrize(("bias", "expected"), [(-1e3, -20), (1e3, 2)])
def test_the_log_std_of_the_policy_is_clipped_to_minus_20_and_2(bias, expected):
    actor = Actor((4,), 1)
    params = jax.jit(actor.init)(KEY, jnp.zeros(3), jnp.zeros(1))
    params["params"]["Dense_2"]["bias"] = jnp.full(1, bias)
    _, log_std = apply(actor, params, jnp.zeros(3), jnp.zeros(1))
    np.testing.assert_array_equal(log_std, [expected])


def test_the_two_critics_start_different():
    critic = Critic((16,))
    args = jnp.ones((5, 3)), jnp.ones((5, 2)), jnp.ones((5, 1))
    params = jax.jit(critic.init)(KEY, *args)
    for leaf in jax.tree.leaves(params):
        assert leaf.shape[0] == 2
    values = apply(critic, params, *args)
    assert values.shape == (2, 5)
    assert not np.array_equal(values[0], values[1])


# ---------------------------------------------------------------- widths


def test_the_trunk_is_as_wide_as_its_input_times_the_factor():
    params = init(Trunk(2.5), jnp.zeros(6))["MLP_0"]
    assert [params[f"Dense_{n}"]["kernel"].shape for n in range(3)] == [
        (6, 15),
        (15, 15),
        (15, 15),
    ]


def test_the_decoder_has_a_network_for_the_state_and_one_for_the_reward():
    decoder = Decoder(2.0, state_size=3)
    args = jnp.ones((7, 4)), jnp.ones((7, 2)), jnp.ones((7, 1))
    params = init(decoder, *args)
    assert set(params) == {"state", "reward"}
    assert params["state"]["Dense_0"]["kernel"].shape == (7, 14)
    state, reward = apply(decoder, {"params": params}, *args)
    assert (state.shape, reward.shape) == ((7, 3), (7,))


# ---------------------------------------------------------------- heads and priors


def test_class_probabilities_sum_to_one():
    head = ClassHead(4)
    x = jax.random.normal(KEY, (10, 6))
    probs = apply(head, {"params": init(head, x)}, x)
    assert probs.shape == (10, 4)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
    assert (np.asarray(probs) > 0).all()


def test_gaussian_head_gives_each_class_a_mean_and_a_positive_scale():
    head = GaussianHead(num_classes=3, latent_size=2)
    x = 10 * jax.random.normal(KEY, (10, 6))
    mean, scale = apply(head, {"params": init(head, x)}, x)
    assert mean.shape == scale.shape == (10, 3, 2)
    assert (np.asarray(scale) > 0).all()
    assert (np.asarray(mean) < 0).any()


def test_the_fixed_prior_is_centred_on_the_class_index_and_has_no_parameters():
    prior = FixedPrior(3, 2, std=0.5)
    variables = prior.init(KEY)
    assert not jax.tree.leaves(variables)
    mean, std = apply(prior, variables)
    np.testing.assert_array_equal(mean, [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(std, np.full((3, 2), 0.5))


def test_the_learnt_prior_has_a_positive_scale_for_each_class():
    prior = LearntPrior(3, 2)
    mean, std = apply(prior, prior.init(KEY))
    assert mean.shape == std.shape == (3, 2)
    assert (np.asarray(std) > 0).all()
    assert len(np.unique(mean)) == 6


def test_with_layer_norm_values_of_actions_never_tried_stay_bounded():
    """Without, they grow with the action; with it, they level out."""
    obs, z, action = jnp.ones((1, 4)), jnp.ones((1, 1)), jnp.ones((1, 2))

    def growth(layer_norm: bool) -> float:
        critic = Critic((64, 64), layer_norm)
        params = critic.init(KEY, obs, z, action)
        near, far = (
            np.asarray(apply(critic, params, obs, z, scale * action))
            for scale in (1e3, 1e5)
        )
        return float(np.abs(far / near).max())

    assert growth(False) > 50
    assert growth(True) < 1.1


# ---------------------------------------------------------------- temperature


def test_the_scalar_temperature_starts_at_its_initial_value():
    module = Temperature(conditioned=False, initial=0.2)
    z = jnp.zeros((5, 3))
    log_alpha = apply(module, module.init(KEY, z), z)
    assert log_alpha.shape == ()
    assert float(jnp.exp(log_alpha)) == pytest.approx(0.2)


def test_the_conditioned_temperature_depends_on_z():
    module = Temperature(conditioned=True, initial=0.2)
    z = jnp.array([[0.0], [50.0], [-50.0]])
    params = module.init(KEY, z)
    log_alpha = apply(module, params, z)
    assert log_alpha.shape == (3,)
    assert len(np.unique(log_alpha)) == 3
    assert sizes(params["params"])["MLP_0"]["Dense_0"]["kernel"] == (1, 10)
