"""The networks of encoder, decoder and class prior."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cemrl_jax.agents.networks import (
    MLP,
    Joined,
    Layer,
    apply_layers,
    apply_pair,
    join_pair,
    plain_layer,
    split_pair,
)
from cemrl_jax.data.types import Params


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
        return self.gaussians(raw)

    def gaussians(self, raw: Array) -> tuple[Array, Array]:
        """Returns means and positive scales of the layer's outputs."""
        raw = raw.reshape(*raw.shape[:-1], self.num_classes, 2, self.latent_size)
        return raw[..., 0, :], nn.softplus(raw[..., 1, :])


def join_encoder(params: Params) -> Joined:
    """Returns trunk and both heads of an encoder, the heads in one layer."""
    trunk, class_head, gaussian_head = (
        params["params"][name] for name in ("shared", "class_head", "gaussian_head")
    )
    hidden = trunk["MLP_0"]
    layers = [hidden[f"Dense_{number}"] for number in range(len(hidden))]
    heads = jax.tree.map(
        lambda *x: jnp.concatenate(x, -1),
        class_head["Dense_0"],
        gaussian_head["Dense_0"],
    )
    return Joined(tuple(Layer(**layer) for layer in (*layers, heads)))


def split_encoder(joined: Joined, num_classes: int) -> Params:
    """Undoes `join_encoder`."""
    *layers, heads = (
        {"kernel": layer.kernel, "bias": layer.bias} for layer in joined.layers
    )
    return {
        "params": {
            "shared": {
                "MLP_0": {f"Dense_{n}": layer for n, layer in enumerate(layers)}
            },
            "class_head": {
                "Dense_0": jax.tree.map(lambda x: x[..., :num_classes], heads)
            },
            "gaussian_head": {
                "Dense_0": jax.tree.map(lambda x: x[..., num_classes:], heads)
            },
        }
    }


def apply_encoder(
    joined: Joined, num_classes: int, latent_size: int, x: Array
) -> tuple[Array, Array, Array]:
    """Returns class probabilities, means and scales: trunk and heads of an encoder."""
    *trunk, heads = joined.layers
    raw = apply_layers(trunk, x) @ heads.kernel + heads.bias
    gaussians = GaussianHead(num_classes, latent_size, parent=None)
    mean, std = gaussians.gaussians(raw[..., num_classes:])
    return nn.softmax(raw[..., :num_classes]), mean, std


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

    def join(self, params: Params) -> Joined:
        """Returns parameters of a pair of networks with equally many outputs.

        The reward's network gets outputs that nobody reads, and whose parameters
        therefore stay zero.
        """
        state, reward = (params["params"][name] for name in ("state", "reward"))
        last = f"Dense_{len(state) - 1}"
        more = self.state_size - 1
        wide = reward | {
            last: jax.tree.map(
                lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]),
                reward[last],
            )
        }
        return Joined(join_pair(jax.tree.map(lambda *x: jnp.stack(x), state, wide)))

    def split(self, joined: Joined) -> Params:
        """Undoes `join`."""
        pair = split_pair(joined.layers)
        state, reward = (jax.tree.map(lambda x, n=n: x[n], pair) for n in (0, 1))
        last = f"Dense_{len(pair) - 1}"
        reward[last] = jax.tree.map(lambda x: x[..., :1], reward[last])
        return {"params": {"state": state, "reward": reward}}

    def apply_joined(
        self, joined: Joined, obs: Array, action: Array, z: Array
    ) -> tuple[Array, Array]:
        """Does what a call does."""
        x = jnp.concatenate([obs, action, z], -1)
        state, reward = apply_pair(joined.layers, x)
        return state, reward[..., 0]


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
