"""Shared-y: one class for the window, Gaussians multiplied over its steps."""

from collections.abc import Callable
from typing import Any

import jax
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
from cemrl_jax.agents.distributions import product_of_gaussians
from cemrl_jax.agents.networks import MLP, Joined, plain_layer
from cemrl_jax.data.types import Params

PROBABILITY_MERGES: dict[str, Callable[[Array], Array]] = {
    "add": lambda probs: probs.mean(-2),
    "add_softmax": lambda probs: jax.nn.softmax(probs.sum(-2)),
    "multiply": lambda probs: jax.nn.softmax(probs.prod(-2)),
}
"""Class probabilities per step `[..., T, K]` -> of the window `[..., K]`.

They work on probabilities, not on logits, because the original's results do
(cerml/encoder_decoder_networks.py:167-176).
"""


class LinearMerge(nn.Module):
    """Features of all steps through one layer: `[..., T, H]` -> `[..., H]`."""

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Applies the layer, oldest step first."""
        size = features.shape[-1]
        flat = features.reshape(*features.shape[:-2], -1)
        return plain_layer(size, flat.shape[-1])(flat)


class MLPMerge(nn.Module):
    """Features of all steps through an MLP: `[..., T, H]` -> `[..., H]`."""

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Applies the network, oldest step first."""
        size = features.shape[-1]
        return MLP((size,), size)(features.reshape(*features.shape[:-2], -1))


FEATURE_MERGES: dict[str, type[nn.Module]] = {"linear": LinearMerge, "mlp": MLPMerge}
"""Merges of features, before the class head."""

MERGES = (*PROBABILITY_MERGES, *FEATURE_MERGES)


class SharedY(nn.Module):
    """Encoder with one class for the whole window (transitionSharedY).

    Attributes:
      num_classes: K.
      latent_size: Z.
      width_factor: width of the shared network, in widths of a transition.
      merge: how the steps agree on a class, one of `MERGES`.
    """

    num_classes: int
    latent_size: int
    width_factor: float
    merge: str = "add"

    def setup(self) -> None:
        """Builds the layers."""
        self.shared = Trunk(self.width_factor)
        self.class_head = ClassHead(self.num_classes)
        self.gaussian_head = GaussianHead(self.num_classes, self.latent_size)
        if self.merge in FEATURE_MERGES:
            self.pre_class = FEATURE_MERGES[self.merge]()

    def embed(self, x: Array) -> dict[str, Array]:
        """Normalised transition `[..., F]` -> what `infer` needs of it."""
        features = self.shared(x)
        mean, variance = self.gaussian_head(features)
        if self.merge in PROBABILITY_MERGES:
            vote = self.class_head(features)
        else:
            vote = features
        return {"vote": vote, "mean": mean, "variance": variance}

    def infer(self, embedded: dict[str, Array]) -> Posterior:
        """Window of embeddings `[..., T]` -> posterior with S = 1."""
        vote = embedded["vote"]
        if self.merge in PROBABILITY_MERGES:
            probs = PROBABILITY_MERGES[self.merge](vote)
        else:
            probs = self.class_head(self.pre_class(vote))
        # The softplus outputs go in as variances; the variance of the product comes
        # out as the scale. See `product_of_gaussians`.
        mean, std = product_of_gaussians(embedded["mean"], embedded["variance"], -3)
        return Posterior(
            probs=probs[..., None, :],
            mean=mean[..., None, :, :],
            std=std[..., None, :, :],
        )

    def __call__(self, window: Array) -> Posterior:
        """Normalised window `[..., T, F]` -> posterior."""
        return self.infer(self.embed(window))

    def join(self, params: Params) -> Params:
        """Returns parameters in which both heads are one product.

        Not where the class is read off merged features.
        """
        if self.merge in FEATURE_MERGES:
            return params
        return join_encoder(params)

    def split(self, joined: Params) -> Params:
        """Undoes `join`."""
        if self.merge in FEATURE_MERGES:
            return joined
        return split_encoder(joined, self.num_classes)

    def apply_joined(self, joined: Joined, x: Any, method: str = "") -> Any:
        """Does what a call does, or one of the methods."""
        if method == "infer":
            return self.apply({}, x, method=method)
        sizes = (self.num_classes, self.latent_size)
        vote, mean, variance = apply_encoder(joined, *sizes, x)
        embedded = {"vote": vote, "mean": mean, "variance": variance}
        if method == "embed":
            return embedded
        return self.apply({}, embedded, method="infer")
