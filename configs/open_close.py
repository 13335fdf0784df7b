"""Doors, drawers and windows of Meta-World that open and close within an episode."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.schedules import Timed


def get_config() -> Config:
    """Three models in one run; each task lasts 100 steps at least."""
    return manipulation(
        "open-close",
        (
            "door-open",
            "door-close",
            "drawer-open",
            "drawer-close",
            "window-open",
            "window-close",
        ),
        Timed(min_steps=100, probability=0.05),
        num_steps=300,
        num_epochs=400,
    )
