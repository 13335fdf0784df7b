"""A door of Meta-World that is to be opened, then closed, within one episode."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.schedules import Timed


def get_config() -> Config:
    """Each task lasts 100 steps at least; the door stays where it is."""
    return manipulation(
        "open-close-door",
        ("door-open", "door-close"),
        Timed(min_steps=100, probability=0.05),
        num_steps=300,
        num_epochs=200,
    )
