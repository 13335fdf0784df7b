"""Distributions as the original writes them; some differ from the textbook."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_MIN_VARIANCE = 1e-7
_MIN_RATIO = 1e-30
_MIN_PROB = float(np.finfo(np.float32).eps)


def tanh_normal(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    """Samples a Gaussian squashed by tanh (rlkit/torch/distributions.py:107-119).

    Args:
      mean: `[..., A]` mean before the tanh.
      log_std: `[..., A]` log standard deviation before the tanh.
      noise: `[..., A]` standard normal draws.

    Returns:
      The action `[..., A]` and its log-probability `[...]`. The 1e-6 in the log of
      the tanh's slope is the original's; its results depend on it.
    """
    x = mean + jnp.exp(log_std) * noise
    normal = -0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2 * jnp.pi)
    # 1 - tanh(x)^2, written so that it keeps its digits near an action of 1.
    slope = 4 * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * x)
    log_prob = normal - jnp.log(slope + 1e-6)
    return jnp.tanh(x), log_prob.sum(-1)


def product_of_gaussians(
    mean: Array, variance: Array, axis: int
) -> tuple[Array, Array]:
    """Multiplies Gaussians along `axis`, which disappears.

    Returns the mean and the VARIANCE of the product. Callers feed scales in as
    variances and use the result as a scale (cerml/utils.py:5-12): so the scale
    shrinks like 1/T with the window, and the original's results depend on it.
    """
    variance = jnp.maximum(variance, _MIN_VARIANCE)
    product = 1 / (1 / variance).sum(axis)
    return product * (mean / variance).sum(axis), product


def log_probs(probs: Array) -> Array:
    """Logs class probabilities, kept off 0 and 1 as torch's Categorical does."""
    return jnp.log(jnp.clip(probs, _MIN_PROB, 1 - _MIN_PROB))


def normal_kl(mean: Array, std: Array, prior_mean: Array, prior_std: Array) -> Array:
    """KL divergence of Gaussians, in nats, summed over the last axis."""
    ratio = std / prior_std
    distance = jnp.square((mean - prior_mean) / prior_std)
    # Not the log of the square: it is that of 0 for scales that individual_y reaches.
    log_ratio = jnp.log(jnp.maximum(ratio, _MIN_RATIO))
    return (0.5 * (jnp.square(ratio) + distance - 1) - log_ratio).sum(-1)


def uniform_kl(probs: Array) -> Array:
    """KL divergence of class probabilities `[..., K]` from uniform ones, in nats."""
    uniform = jnp.full_like(probs, 1 / probs.shape[-1])
    return (probs * (log_probs(probs) - log_probs(uniform))).sum(-1)
