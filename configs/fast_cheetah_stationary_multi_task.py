"""Half-cheetah with several kinds of tasks, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_stationary_multi_task
from cemrl_jax.configs.base import fast_classes


def get_config() -> Config:
    """`fast_classes` of cheetah_stationary_multi_task."""
    return fast_classes(
        cheetah_stationary_multi_task.get_config(),
        num_epochs=180,
        steps_per_epoch=32_000,
    )
