"""Trajectory: the whole window through one network."""

from typing import Any

from flax import linen as nn
from jax import Array

from cemrl_jax.agents.cemrl.networks import (
    ClassHead,
    GaussianHead,
    Trunk,
    apply_encoder,
    join_encoder,
    split_encoder,
)
from cemrl_jax.agents.cemrl.types import Posterior
from cemrl_jax.agents.networks import Joined
from cemrl_jax.data.types import Params


class Trajectory(nn.Module):
    """Encoder that reads the window as one long vector (trajectory).

    Attributes:
      num_classes: K.
      latent_size: Z.
      width_factor: width of the shared network, in widths of the window.
    """

    num_classes: int
    latent_size: int
    width_factor: float

    def setup(self) -> None:
        """Builds the layers."""
        self.shared = Trunk(self.width_factor)
        self.class_head = ClassHead(self.num_classes)
        self.gaussian_head = GaussianHead(self.num_classes, self.latent_size)

    def embed(self, x: Array) -> Array:
        """Nothing can be said of a transition alone: returns it, `[..., F]`."""
        return x

    def infer(self, embedded: Array) -> Posterior:
        """Normalised window `[..., T, F]` -> posterior with S = 1."""
        flat = embedded.reshape(*embedded.shape[:-2], 1, -1)
        features = self.shared(flat)
        mean, std = self.gaussian_head(features)
        return Posterior(probs=self.class_head(features), mean=mean, std=std)

    def __call__(self, window: Array) -> Posterior:
        """Normalised window `[..., T, F]` -> posterior."""
        return self.infer(self.embed(window))

    def join(self, params: Params) -> Params:
        """Returns parameters in which both heads are one product."""
        return join_encoder(params)

    def split(self, joined: Params) -> Params:
        """Undoes `join`."""
        return split_encoder(joined, self.num_classes)

    def apply_joined(self, joined: Joined, x: Any, method: str = "infer") -> Any:
        """Does what a call does; `method` is one of this class."""
        if method == "embed":
            return x
        flat = x.reshape(*x.shape[:-2], 1, -1)
        sizes = (self.num_classes, self.latent_size)
        probs, mean, std = apply_encoder(joined, *sizes, flat)
        return Posterior(probs=probs, mean=mean, std=std)
