"""Hopper at velocities that stay, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import hopper_stationary_vel
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of hopper_stationary_vel."""
    return fast(hopper_stationary_vel.get_config(), num_epochs=300, learning_rate=7e-4)
