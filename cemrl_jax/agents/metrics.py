"""Metrics of a loss."""

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.data.types import Metrics


def means(values: dict[str, Array]) -> Metrics:
    """Averages values `[B]` or `[]` of a batch, all of them in one reduction."""
    rows = jnp.stack(jnp.broadcast_arrays(*values.values()))
    rows = jax.lax.stop_gradient(rows).reshape(len(values), -1)
    return dict(zip(values, rows.mean(1), strict=True))
