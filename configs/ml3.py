"""Reach, push and pick-place of Meta-World, which change within an episode."""

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.schedules import Timed


def get_config() -> Config:
    """Each task lasts 100 steps at least; then comes another place or another task.

    The original's ML3 changes at episodes' ends only.
    """
    return manipulation(
        "ml3",
        ("reach", "push", "pick-place"),
        Timed(min_steps=100, probability=0.05),
        num_steps=300,
        num_epochs=200,
    )
