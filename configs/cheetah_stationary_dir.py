"""Half-cheetah forward or backward for the whole episode."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import Direction


def get_config() -> Config:
    """The original's cheetah-stationary-dir."""
    return experiment(
        "cheetah-stationary-dir",
        EnvConfig(
            HalfCheetah(),
            Direction(),
            Stationary(),
            num_train_tasks=2,
            num_test_tasks=2,
        ),
        RolloutConfig(num_envs=6, num_steps=200, num_initial=1),
        num_epochs=1001,
        encoder=EncoderConfig(merge="add_softmax", window_steps=10, num_classes=2),
        elbo=ElboConfig(state_size=8, kl_z_weight=0.01, kl_y_weight=0.01),
    )
