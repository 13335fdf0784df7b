"""The networks, initialised as the original initialises them.

Its "fan-in" rule reads the OUTPUT width of a layer (rlkit/torch/pytorch_util.py:18-27)
and its last layers start near zero; learning depends on both, so they are kept.
"""

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
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return last_layer(self.output)(x)
