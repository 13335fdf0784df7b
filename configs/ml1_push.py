"""Meta-World ML1: a puck is pushed to a place on the table; only rewards tell where."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.schedules import Stationary


def get_config() -> Config:
    """One task, 50 places to learn from; 6 M steps."""
    return manipulation(
        "ml1-push",
        ("push",),
        Stationary(),
        num_steps=150,
        num_epochs=200,
    )
