"""An encoder of your own: it looks at the last transition of the window only."""

from flax import linen as nn

from cemrl_jax.agents.cemrl.networks import ClassHead, GaussianHead, Trunk
from cemrl_jax.agents.cemrl.types import Posterior
from cemrl_jax.configs import debug


class Latest(nn.Module):
    num_classes: int  # K
    latent_size: int  # Z
    width_factor: float

    def setup(self):
        self.shared = Trunk(self.width_factor)
        self.class_head = ClassHead(self.num_classes)
        self.gaussian_head = GaussianHead(self.num_classes, self.latent_size)

    def embed(self, x):  # a transition [..., F], normalised
        features = self.shared(x)
        return Posterior(self.class_head(features), *self.gaussian_head(features))

    def infer(self, embedded):  # [..., T] -> S = 1
        mean, std = embedded.mean[..., -1:, :, :], embedded.std[..., -1:, :, :]
        return Posterior(embedded.probs[..., -1:, :], mean, std)

    def __call__(self, window):
        return self.infer(self.embed(window))


def get_config():
    config = debug.get_config()
    config.name, config.encoder.kind = "point-latest", "latest:Latest"
    return config
