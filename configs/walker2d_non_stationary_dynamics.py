"""Walker forward with a physique that changes every 75 steps or more."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import Walker2d
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Dynamics


def get_config() -> Config:
    """An environment of the original for which it has no configuration.

    Mass, inertia, damping and friction of each part have multipliers of their own. The
    decoder predicts velocities too.
    """
    return experiment(
        "walker2d-non-stationary-dynamics",
        EnvConfig(Walker2d(can_fall=True), Dynamics(), Timed(min_steps=75)),
        RolloutConfig(num_envs=20, num_steps=400, num_initial=5),
        num_epochs=301,
        encoder=EncoderConfig(window_steps=30, latent_size=4),
        elbo=ElboConfig(state_size=17),
    )
