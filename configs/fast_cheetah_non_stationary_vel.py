"""Half-cheetah at velocities that change, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_vel
from cemrl_jax.configs.base import fast_velocities


def get_config() -> Config:
    """`fast_velocities` of cheetah_non_stationary_vel."""
    return fast_velocities(cheetah_non_stationary_vel.get_config(), num_epochs=100)
