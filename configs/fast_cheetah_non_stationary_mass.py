"""Half-cheetah with masses that change, sized for wall-clock."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_mass
from cemrl_jax.configs.base import fast, find_gait


def get_config() -> Config:
    """`fast` and `find_gait` of cheetah_non_stationary_mass."""
    return find_gait(
        fast(
            cheetah_non_stationary_mass.get_config(), num_epochs=120, learning_rate=7e-4
        )
    )
