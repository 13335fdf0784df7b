"""Meta-World ML1: a puck is pushed to a place on the table; only rewards tell where."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation_of_one


def get_config() -> Config:
    """One task, 50 places to learn from; 6 M steps."""
    return manipulation_of_one("ml1-push", "push", obs_size=7, num_epochs=200)
