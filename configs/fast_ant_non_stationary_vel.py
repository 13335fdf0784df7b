"""Ant at velocities that change, sized for wall-clock."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs import ant_non_stationary_vel
from cemrl_jax.configs.base import alternating, fast


def get_config() -> Config:
    """`alternating` of ant_non_stationary_vel with the SAC that does not stand still.

    Noisier actions, networks twice as wide, this learning rate and a posterior that
    may leave its prior: with all four an ant began to walk. `benchmarks/learning.md`
    has the runs.
    """
    config = fast(
        ant_non_stationary_vel.get_config(),
        num_epochs=300,
        learning_rate=7e-4,
        elbo_learning_rate=5e-4,
    )
    sac = dataclasses.replace(config.sac, hidden_size=256, target_entropy_factor=0.5)
    elbo = dataclasses.replace(config.elbo, kl_z_weight=1e-3, kl_y_weight=1e-3)
    return alternating(dataclasses.replace(config, sac=sac, elbo=elbo))
