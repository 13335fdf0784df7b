"""Ant that turns at 10 to 12 m, sized for wall-clock."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs import ant_non_stationary_dir
from cemrl_jax.configs.base import alternating, fast, rewarded_tenfold


def get_config() -> Config:
    """`alternating` of ant_non_stationary_dir whose posterior may leave its prior."""
    config = fast(
        ant_non_stationary_dir.get_config(), num_epochs=300, learning_rate=7e-4
    )
    elbo = dataclasses.replace(config.elbo, kl_z_weight=1e-3, kl_y_weight=1e-3)
    return alternating(rewarded_tenfold(dataclasses.replace(config, elbo=elbo)))
