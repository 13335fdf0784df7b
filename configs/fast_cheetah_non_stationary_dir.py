"""Half-cheetah that turns at 10 to 12 m, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_dir
from cemrl_jax.configs.base import fast_classes


def get_config() -> Config:
    """`fast_classes` of cheetah_non_stationary_dir."""
    return fast_classes(cheetah_non_stationary_dir.get_config(), num_epochs=160)
