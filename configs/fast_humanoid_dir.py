"""Humanoid towards a heading, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import humanoid_dir
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of humanoid_dir."""
    return fast(humanoid_dir.get_config(), num_epochs=500, learning_rate=7e-4)
