"""Half-cheetah forward or backward, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_stationary_dir
from cemrl_jax.configs.base import fast_classes


def get_config() -> Config:
    """`fast_classes` of cheetah_stationary_dir."""
    return fast_classes(cheetah_stationary_dir.get_config(), num_epochs=120)
