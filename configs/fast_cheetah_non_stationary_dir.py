"""Half-cheetah that turns at 10 to 12 m, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_dir
from cemrl_jax.configs.base import fast_direction


def get_config() -> Config:
    """`fast_direction` of cheetah_non_stationary_dir."""
    return fast_direction(cheetah_non_stationary_dir.get_config(), num_epochs=160)
