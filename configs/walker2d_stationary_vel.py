"""Walker at goal velocities that stay for the episode."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Walker2d
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's walker2d-stationary-vel."""
    return experiment(
        "walker2d-stationary-vel",
        EnvConfig(Walker2d(can_fall=False), Velocity(0.0, 3.0), Stationary()),
        RolloutConfig(num_envs=20, num_steps=200),
        num_epochs=501,
        encoder=EncoderConfig(window_steps=10),
        elbo=ElboConfig(state_size=8),
    )
