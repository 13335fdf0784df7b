"""Soft actor-critic: networks and losses that algorithms share.

Losses are pure functions; gradients flow to the first argument only.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import constant

from cemrl_jax.agents.metrics import means
from cemrl_jax.agents.networks import (
    MLP,
    Joined,
    Layer,
    apply_layers,
    apply_pair,
    hidden_layer,
    join_pair,
    last_layer,
    relu,
    split_pair,
)
from cemrl_jax.data.types import Metrics, Params, Trainable

ActorApply = Callable[[Params, Array, Array], tuple[Array, Array]]
CriticApply = Callable[[Params, Array, Array, Array], Array]


class Actor(nn.Module):
    """Policy: observation and z -> mean and log standard deviation before the tanh.

    Attributes:
      hidden: widths of the hidden layers.
      action_size: size of an action.
    """

    hidden: tuple[int, ...]
    action_size: int

    @nn.compact
    def __call__(self, obs: Array, z: Array) -> tuple[Array, Array]:
        """`[..., obs_size]`, `[..., Z]` -> two of `[..., action_size]`."""
        x = jnp.concatenate([obs, z], -1)
        for size in self.hidden:
            x = relu(hidden_layer(size)(x))
        mean = last_layer(self.action_size, 1e-3)(x)
        log_std = last_layer(self.action_size, 1e-3)(x)
        return mean, jnp.clip(log_std, -20, 2)

    def join(self, params: Params) -> Joined:
        """Returns parameters with mean and log standard deviation in one layer."""
        *hidden, mean, log_std = (
            params["params"][f"Dense_{number}"]
            for number in range(len(self.hidden) + 2)
        )
        last = jax.tree.map(lambda *x: jnp.concatenate(x, -1), mean, log_std)
        return Joined(tuple(Layer(**layer) for layer in (*hidden, last)))

    def split(self, joined: Joined) -> Params:
        """Undoes `join`."""
        *hidden, last = (
            {"kernel": layer.kernel, "bias": layer.bias} for layer in joined.layers
        )
        mean = jax.tree.map(lambda x: x[..., : self.action_size], last)
        log_std = jax.tree.map(lambda x: x[..., self.action_size :], last)
        layers = [*hidden, mean, log_std]
        return {"params": {f"Dense_{n}": layer for n, layer in enumerate(layers)}}

    def apply_joined(self, joined: Joined, obs: Array, z: Array) -> Any:
        """Does what a call does."""
        x = apply_layers(joined.layers, jnp.concatenate([obs, z], -1))
        mean, log_std = jnp.split(x, 2, -1)
        return mean, jnp.clip(log_std, -20, 2)


class Critic(nn.Module):
    """Two Q-functions in one: parameters have a leading axis of 2.

    Attributes:
      hidden: widths of the hidden layers.
      layer_norm: normalise each hidden layer, which bounds the values of actions that
        were never tried (Ball et al. 2023, arXiv:2302.02948, section 4.2).
    """

    PAIR = "VmapMLP_0"

    hidden: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array, z: Array, action: Array) -> Array:
        """Returns the values `[2, ...]` of actions."""
        pair = nn.vmap(
            MLP,
            in_axes=None,  # pyright: ignore[reportArgumentType]
            axis_size=2,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        x = jnp.concatenate([obs, z, action], -1)
        return pair(self.hidden, 1, self.layer_norm, name=self.PAIR)(x)[..., 0]

    def join(self, params: Params) -> Joined:
        """Returns parameters as layers of a pair."""
        return Joined(join_pair(params["params"][self.PAIR]))

    def split(self, joined: Joined) -> Params:
        """Undoes `join`."""
        return {"params": {self.PAIR: split_pair(joined.layers)}}

    def apply_joined(
        self, joined: Joined, obs: Array, z: Array, action: Array
    ) -> Array:
        """Does what a call does."""
        x = jnp.concatenate([obs, z, action], -1)
        return apply_pair(joined.layers, x)[..., 0]


class Temperature(nn.Module):
    """The weight of the entropy, as its logarithm.

    Attributes:
      conditioned: compute it from z; otherwise it is one number.
      initial: the number's start.
    """

    conditioned: bool
    initial: float

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """`[..., Z]` -> log temperature, `[...]` or `[]`."""
        if self.conditioned:
            return MLP((10 * z.shape[-1],), 1)(z)[..., 0]
        return self.param("log_alpha", constant(jnp.log(self.initial)), ())


def temperature_loss(
    params: Params,
    apply: Callable[[Params, Array], Array],
    z: Array,
    log_prob: Array,
    target_entropy: float,
) -> tuple[Array, Metrics]:
    """Raises the temperature while the policy's entropy is below its target.

    Args:
      params: parameters of the temperature.
      apply: `(params, z) -> log temperature`, `[B]` or `[]`.
      z: `[B, Z]` tasks.
      log_prob: `[B]` log-probabilities of the policy's own actions.
      target_entropy: entropy to keep, nats.

    Returns:
      The loss and metrics.
    """
    log_alpha = apply(params, z)
    losses = -log_alpha * jax.lax.stop_gradient(log_prob + target_entropy)
    metrics = {
        "sac/temperature_loss": losses,
        "sac/temperature": jnp.exp(log_alpha),
        "sac/entropy": -log_prob,
    }
    return losses.mean(), means(metrics)


def critic_target(
    next_value: Array, next_log_prob: Array, alpha: Array, reward: Array, mask: Array
) -> Array:
    """Soft Bellman target `[B]`: r + discount * (min Q' - alpha log pi).

    Args:
      next_value: `[2, B]` target critic at the next observation and a new action.
      next_log_prob: `[B]` of that action.
      alpha: `[B]` or `[]` temperature.
      reward: `[B]` scaled reward.
      mask: `[B]` discount, 0 where the robot fell.
    """
    return reward + mask * (next_value.min(0) - alpha * next_log_prob)


def critic_loss(
    params: Params,
    apply: CriticApply,
    obs: Array,
    z: Array,
    action: Array,
    target: Array,
) -> tuple[Array, Metrics]:
    """Mean squared distance of both Q-functions to the target `[B]`, added up."""
    value = apply(params, obs, z, action)
    errors = jnp.square(value - jax.lax.stop_gradient(target))
    metrics = {
        "sac/critic_loss": errors.mean(0),
        "sac/value": value.mean(0),
        "sac/target": target,
    }
    return errors.mean(-1).sum(), means(metrics)


def critic_gradient_by_temperature(
    gradient: Callable[[Trainable, Array], Params], critic: Trainable
) -> tuple[Params, Params]:
    """Splits the critic's gradient, which the temperature enters as a factor.

    The target is `critic_target`'s and the error is squared, so the gradient is
    `a + temperature * b`. Devices can average `a` and `b` before they know the
    temperature, which waits for an average of its own.

    Args:
      gradient: `(critic, temperature)` -> gradient of `critic_loss`.
      critic: the critic.

    Returns:
      `a` and `b`.
    """
    fixed, whole = (gradient(critic, jnp.float32(alpha)) for alpha in (0, 1))
    return fixed, jax.tree.map(jnp.subtract, whole, fixed)


def actor_loss(
    params: Params,
    sample: Callable[[Params, Array, Array, Array], tuple[Array, Array]],
    value: Callable[[Array, Array, Array], Array],
    obs: Array,
    z: Array,
    noise: Array,
    alpha: Array,
) -> tuple[Array, Metrics]:
    """Mean of alpha log pi - min Q for the policy's own actions.

    Args:
      params: parameters of the actor.
      sample: `(params, obs, z, noise) -> (action, log_prob)`.
      value: `(obs, z, action) -> [2, B]`, the UPDATED critic: the original's gradient
        mixes weights from before and after the critic's step.
      obs: `[B, obs_size]` raw observations.
      z: `[B, Z]` tasks.
      noise: `[B, action_size]` standard normal draws.
      alpha: `[B]` or `[]` temperature, a constant here.

    Returns:
      The loss and metrics.
    """
    action, log_prob = sample(params, obs, z, noise)
    first, second = value(obs, z, action)
    # The derivative of `min` compares values with their minimum. A compiler that rounds
    # the two differently finds none that is equal: the gradient was 0 / 0 on a CPU.
    lower = jnp.where(first < second, first, second)
    loss = (alpha * log_prob - lower).mean()
    return loss, {"sac/actor_loss": loss}
