"""The world model's losses: pure functions; gradients flow to the first argument."""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.cemrl.types import Batch, Posterior, Segments
from cemrl_jax.agents.distributions import (
    log_probs,
    normal_kl,
    product_of_gaussians,
    uniform_kl,
)
from cemrl_jax.agents.metrics import means
from cemrl_jax.data.types import Metrics, Params


class WorldModel(Protocol):
    """How the parts of the world model are applied to their parameters."""

    def encode(self, params: Params, window: Array | Segments) -> Posterior:
        """Windows `[B, T, F]`, or segments of them -> posterior `[B]`."""
        ...

    def decode(
        self, params: Params, obs: Array, action: Array, z: Array
    ) -> tuple[Array, Array]:
        """Normalised obs, action and z -> next state and reward."""
        ...

    def prior(self, params: Params) -> tuple[Array, Array]:
        """Returns mean and standard deviation of p(z | class), `[K, Z]`."""
        ...


class ElboSettings(struct.PyTreeNode):
    """Constants of the ELBO.

    Attributes:
      kl_z_weight: weight of the KL divergence of z (alpha_kl_z).
      kl_y_weight: weight of the KL divergence of the class (beta_kl_y).
      component_constraint: tell the encoder the true base task.
      state_difference: the decoder predicts the change of the state.
      batch_size: total over all devices; the loss is a sum over the batch.
    """

    kl_z_weight: float = struct.field(pytree_node=False)
    kl_y_weight: float = struct.field(pytree_node=False)
    component_constraint: bool = struct.field(pytree_node=False)
    state_difference: bool = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)


def class_gaussians(posterior: Posterior) -> tuple[Array, Array]:
    """Multiplies each class's Gaussians over s: `[..., S, K, Z]` -> `[..., K, Z]`.

    With one Gaussian nothing is multiplied. Scales are taken as variances and the
    variance of the product as its scale (see `product_of_gaussians`).
    """
    if posterior.mean.shape[-3] == 1:
        return posterior.mean[..., 0, :, :], posterior.std[..., 0, :, :]
    return product_of_gaussians(posterior.mean, posterior.std, -3)


def infer_task(posterior: Posterior) -> Array:
    """Returns z `[..., Z]`: the mean for the most likely class.

    Takes the most likely class of each s and multiplies their Gaussians over s.
    """
    best = posterior.probs.argmax(-1)[..., None, None]
    mean = jnp.take_along_axis(posterior.mean, best, -2)[..., 0, :]
    std = jnp.take_along_axis(posterior.std, best, -2)[..., 0, :]
    if mean.shape[-2] == 1:
        return mean[..., 0, :]
    return product_of_gaussians(mean, std, -2)[0]


def infer_class(posterior: Posterior) -> Array:
    """Returns the class `[...]` that the product over s of the probabilities favours.

    With S > 1, z may mix other classes: it takes the best of each s.
    """
    return posterior.probs.prod(-2).argmax(-1)


def prediction_errors(
    params: Params,
    world_model: WorldModel,
    batch: Batch,
    z: Array,
    state_difference: bool,
) -> tuple[Array, Array]:
    """Squared errors of the decoder's predictions, in normalised units.

    Args:
      params: parameters of the world model.
      world_model: how to apply them.
      batch: `[B]` transitions.
      z: `[B, N, Z]`, N guesses of the task for each transition.
      state_difference: the target is the change of the normalised state.

    Returns:
      Errors of the state, summed over its entries, and of the reward, both `[B, N]`.
    """
    chex.assert_rank(z, 3)
    scaled = batch.scaled
    repeat = lambda x: jnp.broadcast_to(  # noqa: E731
        x[:, None], (x.shape[0], z.shape[1], x.shape[-1])
    )
    state, reward = world_model.decode(
        params, repeat(scaled.obs), repeat(scaled.action), z
    )
    target = scaled.next_obs - scaled.obs if state_difference else scaled.next_obs
    state_error = jnp.square(state - target[:, None, : state.shape[-1]]).sum(-1)
    return state_error, jnp.square(reward - scaled.reward[:, None])


def elbo_loss(
    params: Params,
    world_model: WorldModel,
    batch: Batch,
    noise: Array,
    loss_weights: Array,
    settings: ElboSettings,
) -> tuple[Array, tuple[Metrics, Array]]:
    """Minus the ELBO of the next state and reward (cerml/reconstruction_trainer.py).

    Args:
      params: parameters of encoder, decoder and prior.
      world_model: how to apply them.
      batch: `[B]` transitions with their windows.
      noise: `[B, K, Z]` standard normal draws, one per class.
      loss_weights: `[2]` weights of the state and reward errors.
      settings: constants.

    Returns:
      The loss, a sum over the batch of all devices (on each device its average times
      the total size, so that the average over devices is that sum), and metrics with
      the inferred z `[B, Z]`. With the component constraint errors are those of the
      true class, without it means over the inferred classes.
    """
    posterior = world_model.encode(params, batch.window)
    mean, std = class_gaussians(posterior)
    chex.assert_equal_shape([mean, std, noise])
    guesses = mean + std * noise
    if settings.component_constraint:  # no other class's prediction counts
        true = batch.current.task.base[:, None, None]
        guesses = jnp.take_along_axis(guesses, true, -2)
    state_error, reward_error = prediction_errors(
        params, world_model, batch, guesses, settings.state_difference
    )
    nll = loss_weights[0] * state_error + loss_weights[1] * reward_error
    prior_mean, prior_std = world_model.prior(params)
    kl_z = normal_kl(posterior.mean, posterior.std, prior_mean, prior_std)
    kl_y = uniform_kl(posterior.probs)
    weights, class_cost = posterior.probs, kl_y
    if settings.component_constraint:
        label = jax.nn.one_hot(batch.current.task.base, posterior.probs.shape[-1])
        weights = label[:, None, :]
        class_cost = -(weights * log_probs(posterior.probs)).sum(-1)
    per_class = -nll[:, None, :] - settings.kl_z_weight * kl_z
    elbo = (weights * per_class).sum(-1) - settings.kl_y_weight * class_cost
    loss = -elbo.sum(-1)
    probs = posterior.probs.mean(-2)
    values = {
        "elbo/loss": loss,
        "elbo/state_error": (probs * state_error).sum(-1),
        "elbo/reward_error": (probs * reward_error).sum(-1),
        "elbo/kl_z": (posterior.probs * kl_z).sum((-2, -1)),
        "elbo/kl_y": kl_y.sum(-1),
        "elbo/posterior_std": (probs[..., None] * std).sum(-2).mean(-1),
    }
    if batch.weight is not None:
        loss = batch.weight * loss
        values = {name: batch.weight * value for name, value in values.items()}
    z = jax.lax.stop_gradient(infer_task(posterior))
    return settings.batch_size * loss.mean(), (means(values), z)


def mean_prediction_errors(
    params: Params, world_model: WorldModel, batch: Batch, state_difference: bool
) -> Array:
    """State and reward error `[2]` of a batch, with z the mean of the best class."""
    z = infer_task(world_model.encode(params, batch.window))
    errors = prediction_errors(params, world_model, batch, z[:, None], state_difference)
    return jnp.stack(errors).mean((-2, -1))
