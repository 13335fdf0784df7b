"""Humanoid towards a heading that stays for the episode."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Humanoid
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import PlanarAngle


def get_config() -> Config:
    """The original's humanoid-dir."""
    return experiment(
        "humanoid-dir",
        EnvConfig(Humanoid(), PlanarAngle(), Stationary()),
        RolloutConfig(num_envs=6, num_steps=200, num_initial=50),
        num_epochs=1001,
        encoder=EncoderConfig(merge="add_softmax", window_steps=10, num_classes=2),
        elbo=ElboConfig(state_size=24, kl_z_weight=0.01, kl_y_weight=0.01),
    )
