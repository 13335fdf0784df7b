"""Half-cheetah whose kind of task changes, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_multi_task
from cemrl_jax.configs.base import fast_classes


def get_config() -> Config:
    """`fast_classes` of cheetah_non_stationary_multi_task."""
    return fast_classes(
        cheetah_non_stationary_multi_task.get_config(),
        num_epochs=180,
        steps_per_epoch=32_000,
    )
