"""Hopper at goal velocities that change every 10 to 11 m."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Hopper
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's hopper-non-stationary-vel."""
    return experiment(
        "hopper-non-stationary-vel",
        EnvConfig(
            Hopper(can_fall=True, alive_bonus=3.0),
            Velocity(0.5, 3.0),
            Location(10.0, 1.0),
        ),
        RolloutConfig(num_envs=25, num_steps=800, num_initial=4),
        num_epochs=251,
        encoder=EncoderConfig(window_steps=30),
        elbo=ElboConfig(state_size=5),
    )
