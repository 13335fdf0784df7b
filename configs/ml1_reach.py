"""Meta-World ML1: the hand goes to a place in the air; only rewards tell where."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.schedules import Stationary


def get_config() -> Config:
    """One task, 50 places to learn from; 2.01 M steps."""
    return manipulation(
        "ml1-reach",
        ("reach",),
        Stationary(),
        num_steps=150,
        num_epochs=67,
    )
