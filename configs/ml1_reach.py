"""Meta-World ML1: the hand goes to a place in the air; only rewards tell where."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation_of_one


def get_config() -> Config:
    """One task, 50 places to learn from; 1.2 M steps."""
    return manipulation_of_one("ml1-reach", "reach", obs_size=4, num_epochs=40)
