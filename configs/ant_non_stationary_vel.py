"""Ant at goal velocities that change every 20 to 21 m."""

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
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """The original's ant-non-stationary-vel."""
    return experiment(
        "ant-non-stationary-vel",
        EnvConfig(
            Ant(can_fall=False, torso_last=True),
            Velocity(1.0, 5.0),
            Location(20.0, 1.0),
        ),
        RolloutConfig(num_envs=20, num_steps=800, num_initial=5),
        num_epochs=401,
        encoder=EncoderConfig(window_steps=30),
        elbo=ElboConfig(state_size=13),
        batch_size=512,
    )
