"""Distributions as the original writes them; some differ from the textbook."""

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
    action, slope = _tanh(x)
    return action, (normal - jnp.log(slope + 1e-6)).sum(-1)


def _tanh(x: Array) -> tuple[Array, Array]:
    """Returns tanh(x) and 1 - tanh(x)^2 as float32 gives it to the original.

    Near an action of 1 the original's slope is what rounding leaves of it: up to 5 %
    of `slope + 1e-6` at |x| = 8. To be as far off, the action must be the float32 that
    is nearest to tanh(x), and its square must round. A compiler may join the two steps
    of 1 - a * a and round once; from the distance u to 1, which float32 holds exactly,
    1 - a * a = 2 u - round(u * u) comes out the same either way.
    """
    decay = jnp.exp(-2 * jnp.abs(x))
    large = jnp.sign(x) * (1 - 2 * decay / (1 + decay))
    action = jnp.where(jnp.abs(x) > 1, large, jnp.tanh(x))
    distance = 1 - jnp.abs(action)
    # Adding 0.5 rounds to multiples of 2^-24, those of the squares in [0.5, 1).
    square = (jnp.square(distance) + 0.5) - 0.5
    near_one = 2 * distance - square
    return action, jnp.where(distance < 0.25, near_one, 1 - jnp.square(action))


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
