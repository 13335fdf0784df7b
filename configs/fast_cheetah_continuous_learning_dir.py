"""Half-cheetah that turns at 20 to 21 m, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_continuous_learning_dir
from cemrl_jax.configs.base import fast_classes


def get_config() -> Config:
    """`fast_classes` of cheetah_continuous_learning_dir."""
    return fast_classes(cheetah_continuous_learning_dir.get_config(), num_epochs=150)
