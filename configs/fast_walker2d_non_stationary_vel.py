"""Walker at velocities that change, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import walker2d_non_stationary_vel
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of walker2d_non_stationary_vel."""
    return fast(
        walker2d_non_stationary_vel.get_config(),
        num_epochs=300,
        learning_rate=4e-4,
        elbo_learning_rate=5e-4,
    )
