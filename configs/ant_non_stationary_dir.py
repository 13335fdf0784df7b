"""Ant forward and backward, turning at 10 to 12 m."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Ant
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Direction


def get_config() -> Config:
    """The original's ant-non-stationary-dir."""
    return experiment(
        "ant-non-stationary-dir",
        EnvConfig(
            Ant(), Direction(), Location(10.0, 2.0), num_train_tasks=2, num_test_tasks=2
        ),
        RolloutConfig(num_envs=20, num_steps=800, num_initial=2),
        num_epochs=501,
        encoder=EncoderConfig(window_steps=20, num_classes=2),
        elbo=ElboConfig(state_size=13, kl_z_weight=0.01, kl_y_weight=0.01),
        batch_size=128,
        num_policy_steps=4000,
    )
