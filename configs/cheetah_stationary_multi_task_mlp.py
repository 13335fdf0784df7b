"""cheetah-stationary-multi-task as the authors ran it in October 2020."""

from cemrl_jax.config import Config
from cemrl_jax.configs.cheetah_stationary_multi_task import multi_task


def get_config() -> Config:
    """Three kinds, the mlp merge; the authors permuted the windows, we do not."""
    return multi_task(
        "-mlp",
        ("velocity", "flipping", "jumping"),
        num_classes=3,
        num_epochs=251,
        merge="mlp",
    )
