"""Walker with a physique that changes, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import walker2d_non_stationary_dynamics
from cemrl_jax.configs.base import fast


def get_config() -> Config:
    """`fast` of walker2d_non_stationary_dynamics."""
    return fast(
        walker2d_non_stationary_dynamics.get_config(),
        num_epochs=300,
        learning_rate=7e-4,
    )
