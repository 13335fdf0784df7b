"""Ant with joints that fail, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import ant_non_stationary_cripple
from cemrl_jax.configs.base import fast, rewarded_tenfold


def get_config() -> Config:
    """`fast` of ant_non_stationary_cripple."""
    return rewarded_tenfold(
        fast(
            ant_non_stationary_cripple.get_config(), num_epochs=300, learning_rate=7e-4
        )
    )
