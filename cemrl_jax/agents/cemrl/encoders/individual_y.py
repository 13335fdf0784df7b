"""Individual-y: a class and a Gaussian for every step of the window."""

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


class IndividualY(nn.Module):
    """Encoder in which every step has its own class (transitionIndividualY).

    Attributes:
      num_classes: K.
      latent_size: Z.
      width_factor: width of the shared network, in widths of a transition.
    """

    num_classes: int
    latent_size: int
    width_factor: float

    def setup(self) -> None:
        """Builds the layers."""
        self.shared = Trunk(self.width_factor)
        self.class_head = ClassHead(self.num_classes)
        self.gaussian_head = GaussianHead(self.num_classes, self.latent_size)

    def embed(self, x: Array) -> Posterior:
        """Normalised transition `[..., F]` -> its own posterior, no S axis."""
        features = self.shared(x)
        mean, std = self.gaussian_head(features)
        return Posterior(probs=self.class_head(features), mean=mean, std=std)

    def infer(self, embedded: Posterior) -> Posterior:
        """Window of embeddings `[..., T]` -> posterior with S = T."""
        return embedded

    def __call__(self, window: Array) -> Posterior:
        """Normalised window `[..., T, F]` -> posterior."""
        return self.infer(self.embed(window))

    def join(self, params: Params) -> Params:
        """Returns parameters in which both heads are one product."""
        return join_encoder(params)

    def split(self, joined: Params) -> Params:
        """Undoes `join`."""
        return split_encoder(joined, self.num_classes)

    def apply_joined(self, joined: Joined, x: Any, method: str = "embed") -> Posterior:
        """Does what a call does; `method` is one of this class."""
        if method == "infer":
            return x
        sizes = (self.num_classes, self.latent_size)
        probs, mean, std = apply_encoder(joined, *sizes, x)
        return Posterior(probs=probs, mean=mean, std=std)
