"""CEMRL in JAX: meta-reinforcement learning in changing environments."""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cemrl_jax.policy import Policy


def load(run: str | pathlib.Path, checkpoint: str = "best") -> "Policy":
    """Returns the trained policy in a run's folder; see `cemrl_jax.policy.load`."""
    from cemrl_jax import policy

    return policy.load(run, checkpoint)
