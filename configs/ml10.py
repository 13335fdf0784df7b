"""The ten training tasks of Meta-World's ML10, eight models in one run."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.metaworld.vectors import NAMES
from cemrl_jax.envs.schedules import Stationary


def get_config() -> Config:
    """20 M steps."""
    return manipulation("ml10", NAMES[:10], Stationary(), num_steps=500, num_epochs=667)
