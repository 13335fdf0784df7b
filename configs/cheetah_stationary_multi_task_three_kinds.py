"""cheetah-stationary-multi-task as the authors ran it in February 2021."""

from cemrl_jax.config import Config
from cemrl_jax.configs.cheetah_stationary_multi_task import multi_task


def get_config() -> Config:
    """Three kinds, as many classes."""
    return multi_task(
        "-three-kinds",
        ("velocity", "flipping", "jumping"),
        num_classes=3,
        num_epochs=501,
    )
