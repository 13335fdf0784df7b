"""Ant forward with a joint without torque, another every 75 steps or more."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Ant
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Cripple


def get_config() -> Config:
    """No experiment of the original: a robot that breaks while it runs.

    It is healthy or one of four motors fails, and a class of the encoder is there for
    each. The decoder predicts velocities too.
    """
    return experiment(
        "ant-non-stationary-cripple",
        EnvConfig(
            Ant(),
            Cripple(),
            Timed(min_steps=75),
            num_train_tasks=5,
            num_test_tasks=10,
        ),
        RolloutConfig(num_envs=20, num_steps=400, num_initial=5),
        num_epochs=501,
        encoder=EncoderConfig(window_steps=20, num_classes=5, latent_size=2),
        elbo=ElboConfig(state_size=30, kl_z_weight=0.01, kl_y_weight=0.01),
    )
