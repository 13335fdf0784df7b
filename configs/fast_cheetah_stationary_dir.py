"""Half-cheetah forward or backward, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_stationary_dir
from cemrl_jax.configs.base import fast_directions


def get_config() -> Config:
    """`fast_directions` of cheetah_stationary_dir."""
    return fast_directions(cheetah_stationary_dir.get_config(), num_epochs=120)
