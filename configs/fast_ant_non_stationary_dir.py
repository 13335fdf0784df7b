"""Ant that turns at 10 to 12 m, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import ant_non_stationary_dir
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of ant_non_stationary_dir."""
    return fast(ant_non_stationary_dir.get_config(), num_epochs=300, learning_rate=7e-4)
