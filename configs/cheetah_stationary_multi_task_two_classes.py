"""cheetah-stationary-multi-task as the authors ran it in February 2021."""

from cemrl_jax.config import Config
from cemrl_jax.configs.cheetah_stationary_multi_task import multi_task


def get_config() -> Config:
    """Two kinds, as many classes."""
    return multi_task(
        "-two-classes", ("velocity", "jumping"), num_classes=2, num_epochs=501
    )
