"""Humanoid towards a heading, sized for wall-clock."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs import humanoid_dir
from cemrl_jax.configs.base import alternating, fast


def get_config() -> Config:
    """`fast`, `alternating`, with small networks for its 376 observations.

    A step of a world model as wide as that of `fast` takes 18 times as long. Most of
    what there is to learn is to stand.
    """
    config = alternating(
        fast(humanoid_dir.get_config(), num_epochs=100, learning_rate=7e-4)
    )
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, width_factor=0.25),
        elbo=dataclasses.replace(
            config.elbo, decoder_width_factor=0.5, windows_per_segment=4
        ),
        train=dataclasses.replace(config.train, num_updates=2000),
    )
