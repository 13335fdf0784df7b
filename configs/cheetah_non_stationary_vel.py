"""Half-cheetah at goal velocities that change every 10 to 11 m."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's cheetah-non-stationary-vel."""
    return experiment(
        "cheetah-non-stationary-vel",
        EnvConfig(HalfCheetah(), Velocity(0.5, 3.0), Location(10.0, 1.0)),
        RolloutConfig(num_envs=20, num_steps=800, num_initial=5),
        num_epochs=301,
        encoder=EncoderConfig(window_steps=10),
        elbo=ElboConfig(state_size=8),
    )
