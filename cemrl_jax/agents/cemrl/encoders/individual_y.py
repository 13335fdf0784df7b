"""Individual-y: a class and a Gaussian for every step of the window."""

from flax import linen as nn
from jax import Array

from cemrl_jax.agents.cemrl.networks import ClassHead, GaussianHead, Trunk
from cemrl_jax.agents.cemrl.types import Posterior


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
