"""Half-cheetah at goal velocities that stay, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_stationary_vel
from cemrl_jax.configs.base import fast, find_gait


def get_config() -> Config:
    """`fast` with three times the environments, which pay here, and `find_gait`."""
    return find_gait(
        fast(
            cheetah_stationary_vel.get_config(),
            num_epochs=200,
            learning_rate=4e-4,
            elbo_learning_rate=5e-4,
            steps_per_epoch=102_400,
        )
    )
