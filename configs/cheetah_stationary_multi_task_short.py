"""cheetah-stationary-multi-task as the authors ran it most often: 16 epochs."""

from cemrl_jax.config import Config
from cemrl_jax.configs.cheetah_stationary_multi_task import multi_task


def get_config() -> Config:
    """Three kinds in sixteen epochs."""
    return multi_task(
        "-short", ("velocity", "flipping", "jumping"), num_classes=3, num_epochs=16
    )
