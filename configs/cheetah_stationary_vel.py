"""Half-cheetah at goal velocities that stay for the episode."""

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
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's cheetah-stationary-vel."""
    return experiment(
        "cheetah-stationary-vel",
        EnvConfig(HalfCheetah(), Velocity(0.0, 3.0), Stationary()),
        RolloutConfig(num_envs=20, num_steps=200),
        num_epochs=501,
        encoder=EncoderConfig(window_steps=10),
        elbo=ElboConfig(state_size=8),
    )
