"""Half-cheetah forward or backward, sized for wall-clock."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_stationary_dir
from cemrl_jax.configs.base import alternating, fast_classes


def get_config() -> Config:
    """`alternating` of cheetah_stationary_dir, with a discount that looks 100 ahead."""
    config = alternating(
        fast_classes(cheetah_stationary_dir.get_config(), num_epochs=120)
    )
    sac = dataclasses.replace(config.sac, learning_rate=1e-3, discount=0.99)
    return dataclasses.replace(config, sac=sac)
