"""Half-cheetah forward with masses that change every 75 steps or more."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Dynamics


def get_config() -> Config:
    """An environment of the original for which it has no configuration.

    Each part of the body has between 0.3 and 3.4 times its mass, independently. The
    decoder predicts velocities too, since what a mass does is to accelerate.
    """
    return experiment(
        "cheetah-non-stationary-mass",
        EnvConfig(
            HalfCheetah(),
            Dynamics(parameters=("body_mass",), bases=(1.5,)),
            Timed(min_steps=75),
        ),
        RolloutConfig(num_envs=20, num_steps=400, num_initial=5),
        num_epochs=301,
        encoder=EncoderConfig(window_steps=20, latent_size=4),
        elbo=ElboConfig(state_size=20),
    )
