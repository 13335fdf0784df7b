"""Trajectory: the whole window through one network."""

from flax import linen as nn
from jax import Array

from cemrl_jax.agents.cemrl.networks import ClassHead, GaussianHead, Trunk
from cemrl_jax.agents.cemrl.types import Posterior


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
