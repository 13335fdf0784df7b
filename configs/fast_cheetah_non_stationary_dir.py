"""Half-cheetah that turns at 10 to 12 m, sized for wall-clock."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_dir
from cemrl_jax.configs.base import fast_directions


def get_config() -> Config:
    """`fast_directions` of cheetah_non_stationary_dir that also looks further back.

    With a window of 30 steps most classes are right; one of 10 had two in three.
    """
    config = fast_directions(cheetah_non_stationary_dir.get_config(), num_epochs=160)
    encoder = dataclasses.replace(config.encoder, window_steps=30)
    return dataclasses.replace(config, encoder=encoder)
