"""The networks, initialised as the original initialises them.

Its "fan-in" rule reads the OUTPUT width of a layer (rlkit/torch/pytorch_util.py:18-27)
and its last layers start near zero; learning depends on both, so they are kept.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer, constant, uniform


def symmetric_uniform(bound: float) -> Initializer:
    """Uniform on [-bound, bound]."""
    base = uniform(2 * bound)
    return lambda *args, **kwargs: base(*args, **kwargs) - bound


def hidden_layer(size: int) -> nn.Dense:
    """A layer inside an MLP: kernel within 1/sqrt(output width), bias 0.1."""
    return nn.Dense(
        size, kernel_init=symmetric_uniform(size**-0.5), bias_init=constant(0.1)
    )


def last_layer(size: int, bound: float = 3e-3) -> nn.Dense:
    """The end of an MLP: kernel and bias within a small bound."""
    init = symmetric_uniform(bound)
    return nn.Dense(size, kernel_init=init, bias_init=init)


def plain_layer(size: int, input_size: int) -> nn.Dense:
    """A layer on its own: kernel and bias within 1/sqrt(input width)."""
    init = symmetric_uniform(input_size**-0.5)
    return nn.Dense(size, kernel_init=init, bias_init=init)


class MLP(nn.Module):
    """Hidden layers with ReLU and a linear end: `[..., in]` -> `[..., out]`.

    Attributes:
      hidden: widths of the hidden layers.
      output: width of the last layer.
    """

    hidden: tuple[int, ...]
    output: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the network."""
        for size in self.hidden:
            x = nn.relu(hidden_layer(size)(x))
        return last_layer(self.output)(x)


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
            x = nn.relu(hidden_layer(size)(x))
        mean = last_layer(self.action_size, 1e-3)(x)
        log_std = last_layer(self.action_size, 1e-3)(x)
        return mean, jnp.clip(log_std, -20, 2)


class Critic(nn.Module):
    """Two Q-functions in one: parameters have a leading axis of 2.

    Attributes:
      hidden: widths of the hidden layers.
    """

    hidden: tuple[int, ...]

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
        return pair(self.hidden, 1)(x)[..., 0]


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
