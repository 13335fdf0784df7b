import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.agents.distributions import (
    log_probs,
    normal_kl,
    product_of_gaussians,
    tanh_normal,
    uniform_kl,
)


def test_tanh_normal_without_noise_is_the_tanh_of_the_mean():
    mean = jnp.array([[-2.0, 0.0, 0.5]])
    action, _ = tanh_normal(mean, jnp.zeros_like(mean), jnp.zeros_like(mean))
    np.testing.assert_allclose(action, np.tanh(mean), rtol=1e-6)


def test_tanh_normal_density_sums_to_one():
    """The probability of all actions of a fine grid, in one dimension."""
    mean, std = 0.3, 0.6
    actions = np.linspace(-0.9999, 0.9999, 20_001)
    noise = jnp.array((np.arctanh(actions) - mean) / std, jnp.float32)[:, None]
    ones = jnp.ones_like(noise)
    _, log_prob = jax.jit(tanh_normal)(mean * ones, jnp.log(std) * ones, noise)
    area = np.exp(log_prob).sum() * (actions[1] - actions[0])
    assert area == pytest.approx(1, abs=1e-3)


def test_tanh_normal_log_prob_at_zero_is_the_normal_one_less_1e_6():
    """Two dimensions of a standard normal at 0: -log(2 pi), slope 1 + 1e-6."""
    zero = jnp.zeros(2)
    _, log_prob = tanh_normal(zero, zero, zero)
    expected = -np.log(2 * np.pi) - 2 * np.log1p(1e-6)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


def test_tanh_normal_log_prob_is_finite_where_the_tanh_is_one():
    """The original's 1e-6 keeps the slope's log at 6 ln 10."""
    _, log_prob = tanh_normal(jnp.array([50.0]), jnp.zeros(1), jnp.zeros(1))
    expected = -0.5 * np.log(2 * np.pi) + 6 * np.log(10)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def original_log_prob(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The original's action and its part of the log-probability, all in float32."""
    one, action = np.float32(1), np.tanh(x.astype(np.float64)).astype(np.float32)
    return action, -np.log(one - action * action + np.float32(1e-6))


def saturated(*shape: int) -> np.ndarray:
    """Values before the tanh whose actions lie between 0.964 and 1."""
    rng = np.random.default_rng(0)
    sign = rng.choice([-1, 1], shape)
    return (sign * rng.uniform(2, 9.5, shape)).astype(np.float32)


def our_log_prob(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of `tanh_normal`: what is left without the normal's part."""
    action, log_prob = jax.jit(tanh_normal)(x, jnp.zeros(x.shape), jnp.zeros(x.shape))
    size = x.shape[-1]
    return np.asarray(action), np.asarray(log_prob) + size * 0.5 * np.log(2 * np.pi)


def test_saturated_log_probs_are_the_original_s_rounding_included():
    """One in a thousand may differ: where tanh(x) lies between two float32 numbers."""
    x = saturated(100_000, 1)
    action, expected = original_log_prob(x)
    ours, log_prob = our_log_prob(x)
    assert np.mean(ours == action) > 0.99
    error = np.abs(log_prob - expected[:, 0]) / np.abs(expected[:, 0])
    assert np.mean(error > 1e-4) < 1e-3
    # Those that differ do so by one number of float32 next to 1, 2^-24.
    distance = 1 - np.abs(action[:, 0].astype(np.float64))
    slope = np.maximum(2 * distance - 2**-23, 0) + 1e-6
    assert np.all(np.abs(log_prob - expected[:, 0]) < 1e-4 + 2**-22 / slope)


def test_means_over_saturated_batches_are_the_original_s():
    """What the temperature's gradient and the soft values are made of: within 1e-4."""
    x = saturated(3_000, 32, 6)
    expected = original_log_prob(x)[1].sum(-1, dtype=np.float64).mean(-1)
    ours = our_log_prob(x)[1].mean(-1, dtype=np.float64)
    assert np.max(np.abs(ours - expected) / np.maximum(1, np.abs(expected))) < 1e-4


def test_the_gradient_of_a_log_prob_is_that_of_the_formula():
    """2 a (1 - a^2) / (1 - a^2 + 1e-6), with the slope's rounding near an action of 1.

    Of both signs, at 0, and where the tanh is 1: then it has all but vanished.
    """
    x = np.array([-6, -3, -1.5, -0.3, 0, 0.9, 1.1, 2.5, 5, 12], np.float32)
    log_prob = lambda x: tanh_normal(x, 0 * x, 0 * x)[1]  # noqa: E731
    gradient = jax.vmap(jax.jit(jax.grad(log_prob)))(x[:, None])[:, 0]
    action = np.tanh(x.astype(np.float64))
    slope = 1 - np.square(action)
    expected = 2 * action * slope / (slope + 1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=1e-4)


def test_product_of_two_equal_gaussians_halves_the_variance():
    mean = jnp.full((2, 1, 3), 0.7)
    new_mean, new_variance = product_of_gaussians(mean, jnp.ones_like(mean), 0)
    np.testing.assert_allclose(new_mean, np.full((1, 3), 0.7), rtol=1e-6)
    np.testing.assert_allclose(new_variance, np.full((1, 3), 0.5), rtol=1e-6)


def test_product_weighs_means_by_their_precision():
    mean, variance = jnp.array([0.0, 3.0]), jnp.array([1.0, 0.5])
    new_mean, new_variance = product_of_gaussians(mean, variance, 0)
    assert float(new_mean) == pytest.approx(2.0)
    assert float(new_variance) == pytest.approx(1 / 3)


def test_product_takes_a_variance_of_zero_as_1e_7():
    mean, variance = product_of_gaussians(jnp.array([1.0, 5.0]), jnp.zeros(2), 0)
    assert float(mean) == pytest.approx(3.0)
    assert float(variance) == pytest.approx(5e-8)


def test_product_of_many_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=(7, 4)), rng.uniform(0.1, 2, size=(7, 4))
    order = rng.permutation(7)
    first = product_of_gaussians(jnp.array(mean), jnp.array(variance), 0)
    second = product_of_gaussians(jnp.array(mean[order]), jnp.array(variance[order]), 0)
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_log_probs_stay_off_zero_and_one():
    eps = float(np.finfo(np.float32).eps)
    expected = np.log([eps, 0.5, 1 - eps]).astype(np.float32)
    np.testing.assert_allclose(log_probs(jnp.array([0, 0.5, 1.0])), expected, rtol=1e-5)


def test_normal_kl_of_equal_gaussians_is_zero():
    mean, std = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    assert float(normal_kl(mean, std, mean, std)) == 0


def test_normal_kl_of_known_gaussians():
    """KL(N(1, 2) || N(0, 1)) = (4 + 1 - 1 - ln 4) / 2, in two dimensions twice."""
    value = normal_kl(jnp.ones(2), jnp.full(2, 2.0), jnp.zeros(2), jnp.ones(2))
    assert float(value) == pytest.approx(4 - np.log(4))


@pytest.mark.parametrize("scale", [1e-20, 1e-30, 0.0])
def test_normal_kl_and_its_gradient_are_finite_for_vanishing_scales(scale):
    """Individual-y's scales get below 1e-19, where the square of float32 is 0."""
    kl = lambda std: normal_kl(jnp.zeros(1), std[None], jnp.zeros(1), jnp.ones(1))  # noqa: E731
    value, slope = jax.value_and_grad(kl)(jnp.float32(scale))
    assert np.isfinite(value)
    assert np.isfinite(slope)


def test_uniform_kl_is_zero_for_uniform_and_log_k_for_certain_classes():
    assert float(uniform_kl(jnp.full(4, 0.25))) == pytest.approx(0, abs=1e-6)
    certain = jnp.array([0.0, 1.0, 0.0, 0.0])
    assert float(uniform_kl(certain)) == pytest.approx(np.log(4), rel=1e-5)
