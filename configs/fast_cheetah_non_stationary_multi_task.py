"""Half-cheetah whose kind of task changes, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_multi_task
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of cheetah_non_stationary_multi_task."""
    return fast(
        cheetah_non_stationary_multi_task.get_config(),
        num_epochs=300,
        learning_rate=7e-4,
    )
