"""The networks of encoder, decoder and class prior."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cemrl_jax.agents.networks import MLP, plain_layer


class Trunk(nn.Module):
    """The encoder's shared network: `[..., F]` -> `[..., int(F * width_factor)]`.

    Attributes:
      width_factor: width of every layer, in widths of the input.
    """

    width_factor: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the network."""
        width = int(x.shape[-1] * self.width_factor)
        return MLP((width, width), width)(x)


class ClassHead(nn.Module):
    """Features `[..., H]` -> class probabilities `[..., K]`.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Applies the layer."""
        return nn.softmax(plain_layer(self.num_classes, features.shape[-1])(features))


class GaussianHead(nn.Module):
    """Features `[..., H]` -> one Gaussian per class, two arrays `[..., K, Z]`.

    Attributes:
      num_classes: K.
      latent_size: Z.
    """

    num_classes: int
    latent_size: int

    @nn.compact
    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Returns means and positive scales."""
        size = self.num_classes * 2 * self.latent_size
        raw = plain_layer(size, features.shape[-1])(features)
        raw = raw.reshape(*raw.shape[:-1], self.num_classes, 2, self.latent_size)
        return raw[..., 0, :], nn.softplus(raw[..., 1, :])


class Decoder(nn.Module):
    """Predicts next state and reward, which is what trains the encoder.

    Attributes:
      width_factor: width of the hidden layers, in widths of the input.
      state_size: number of leading entries of the next observation to predict.
    """

    width_factor: float
    state_size: int

    @nn.compact
    def __call__(self, obs: Array, action: Array, z: Array) -> tuple[Array, Array]:
        """Normalised obs, action and z -> state `[..., state_size]`, reward `[...]`."""
        x = jnp.concatenate([obs, action, z], -1)
        hidden = (int(x.shape[-1] * self.width_factor),) * 2
        state = MLP(hidden, self.state_size, name="state")(x)
        return state, MLP(hidden, 1, name="reward")(x)[..., 0]


class FixedPrior(nn.Module):
    """p(z | class k): Gaussian around k, the same in every latent dimension.

    Attributes:
      num_classes: K.
      latent_size: Z.
      std: standard deviation.
    """

    num_classes: int
    latent_size: int
    std: float

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Returns mean and standard deviation `[K, Z]`."""
        mean = jnp.arange(self.num_classes, dtype=jnp.float32)[:, None]
        mean = jnp.broadcast_to(mean, (self.num_classes, self.latent_size))
        return mean, jnp.full_like(mean, self.std)


class LearntPrior(nn.Module):
    """p(z | class k): Gaussian whose mean and scale are learnt.

    Attributes:
      num_classes: K.
      latent_size: Z.
    """

    num_classes: int
    latent_size: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Returns mean and standard deviation `[K, Z]`."""
        layer = plain_layer(2 * self.latent_size, self.num_classes)
        mean, raw = jnp.split(layer(jnp.eye(self.num_classes)), 2, -1)
        return mean, nn.softplus(raw)
