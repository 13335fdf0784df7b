"""Walker at goal velocities that change every 10 to 11 m."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Walker2d
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's walker2d-non-stationary-vel."""
    return experiment(
        "walker2d-non-stationary-vel",
        EnvConfig(Walker2d(can_fall=True), Velocity(0.5, 3.0), Location(10.0, 1.0)),
        RolloutConfig(num_envs=25, num_steps=800, num_initial=4),
        num_epochs=301,
        encoder=EncoderConfig(window_steps=30),
        elbo=ElboConfig(state_size=8),
    )
