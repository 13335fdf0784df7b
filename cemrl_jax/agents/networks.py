"""The networks, initialised as the original initialises them.

Its "fan-in" rule reads the OUTPUT width of a layer (rlkit/torch/pytorch_util.py:18-27)
and its last layers start near zero; learning depends on both, so they are kept.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.nn.initializers import Initializer, constant, uniform

from cemrl_jax.data.types import Params
from cemrl_jax.data.vectors import tree_of


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


@jax.custom_jvp
def relu(x: Array) -> Array:
    """Returns max(x, 0); its slope at 0 is 0, as in the original.

    The derivative reads the result, so nobody needs `x` and a product, its bias and
    this are one kernel.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    return y, jnp.where(y > 0, *tangents, 0)


class MLP(nn.Module):
    """Hidden layers with ReLU and a linear end: `[..., in]` -> `[..., out]`.

    Attributes:
      hidden: widths of the hidden layers.
      output: width of the last layer.
      layer_norm: normalise each hidden layer before its ReLU.
    """

    hidden: tuple[int, ...]
    output: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the network."""
        for size in self.hidden:
            x = hidden_layer(size)(x)
            x = relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return last_layer(self.output)(x)


class Layer(struct.PyTreeNode):
    """A dense layer, or one of each of P networks.

    Attributes:
      kernel: `[in, out]` or `[P, in, out]`.
      bias: `[out]` or `[P, out]`.
      scale: `[P, out]` of the layer's normalisation; None without.
      shift: `[P, out]` likewise.
    """

    kernel: Array
    bias: Array
    scale: Array | None = None
    shift: Array | None = None


class Joined(struct.PyTreeNode):
    """A network whose products on the same input are one: a form to compute with.

    Attributes:
      layers: from the input to the output.
    """

    layers: tuple[Layer, ...]


def apply_layers(layers: Sequence[Layer], x: Array) -> Array:
    """Applies dense layers with ReLUs between them: `[..., in]` -> `[..., out]`."""
    for layer in layers[:-1]:
        x = relu(x @ layer.kernel + layer.bias)
    return x @ layers[-1].kernel + layers[-1].bias


def apply_pair(layers: Sequence[Layer], x: Array) -> Array:
    """Applies two networks to one input: `[..., in]` -> `[2, ..., out]`."""
    first, *others = layers
    rows = x.reshape(-1, x.shape[-1])
    pair = jnp.broadcast_to(rows, (2, *rows.shape)) @ first.kernel
    pair = pair + first.bias[:, None]
    before = first
    for layer in others:
        if before.scale is not None and before.shift is not None:
            pair = normalised(pair, before.scale[:, None], before.shift[:, None])
        pair = relu(pair) @ layer.kernel + layer.bias[:, None]
        before = layer
    return pair.reshape(2, *x.shape[:-1], -1)


def join_pair(mlp: Params) -> tuple[Layer, ...]:
    """Returns the layers of two MLPs, whose parameters `[2, ...]` are of one `MLP`."""
    layers = []
    for number in range(sum(name.startswith("Dense") for name in mlp)):
        norm = mlp.get(f"LayerNorm_{number}", {})
        layers.append(
            Layer(
                **mlp[f"Dense_{number}"],
                scale=norm.get("scale"),
                shift=norm.get("bias"),
            )
        )
    return tuple(layers)


def split_pair(layers: Sequence[Layer]) -> Params:
    """Undoes `join_pair`."""
    mlp = {}
    for number, layer in enumerate(layers):
        mlp[f"Dense_{number}"] = {"kernel": layer.kernel, "bias": layer.bias}
        if layer.scale is not None:
            mlp[f"LayerNorm_{number}"] = {"scale": layer.scale, "bias": layer.shift}
    return mlp


def normalised(x: Array, scale: Array, shift: Array) -> Array:
    """Normalises the last axis as `nn.LayerNorm` does; `scale` and `shift` fit to it.

    One average after the other: XLA makes one kernel of this, but not of a variance
    that is the difference of two averages.
    """
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * scale + shift


def apply_module(module: nn.Module, params: Params, *args: Any, **kwargs: Any) -> Any:
    """Applies a module to parameters, which may be joined, and packed."""
    params = tree_of(params)
    if isinstance(params, Joined):
        return module.apply_joined(params, *args, **kwargs)
    return module.apply(params, *args, **kwargs)
