"""Running statistics of what the encoder reads and the decoder predicts.

The arithmetic is `brax.training.acme.running_statistics`; this file says which parts
of a transition have statistics.
"""

import contextlib
import io
from typing import Any

import jax.numpy as jnp
from jax import Array

from cemrl_jax.data.types import Transition

with contextlib.redirect_stdout(io.StringIO()):  # brax imports MJX: Warp is missing
    from brax.training.acme import running_statistics
    from brax.training.acme.running_statistics import (
        NestedMeanStd,
        RunningStatisticsState,
    )

FARTHEST = 10.0
"""Standard deviations from the mean, of what a policy sees at most."""


def init(obs_size: int, action_size: int) -> RunningStatisticsState:
    """Returns statistics of nothing yet: mean 0, standard deviation 1."""
    obs, action = jnp.zeros(obs_size), jnp.zeros(action_size)
    return running_statistics.init_state(
        {"obs": obs, "action": action, "reward": jnp.zeros(()), "next_obs": obs}
    )


def update(
    state: RunningStatisticsState, transitions: Transition, axis_name: str | None
) -> RunningStatisticsState:
    """Adds transitions with any leading axes, of all devices along `axis_name`."""
    return running_statistics.update(
        state, _parts(transitions), pmap_axis_name=axis_name
    )


def normalize(state: RunningStatisticsState, transitions: Transition) -> Transition:
    """Returns transitions whose obs, action, reward and next_obs are normalised."""
    scaled: Any = running_statistics.normalize(_parts(transitions), state)
    return transitions.replace(**scaled)


def normalize_obs(state: RunningStatisticsState, obs: Array) -> Array:
    """Returns observations normalised, none further than `FARTHEST` from the mean.

    What hardly ever changed until now has a tiny standard deviation: were it to change
    there would be no limit.
    """
    mean: Any = state.mean
    std: Any = state.std
    own = NestedMeanStd(mean=mean["obs"], std=std["obs"])
    scaled: Any = running_statistics.normalize(obs, own, max_abs_value=FARTHEST)
    return scaled


def features(scaled: Transition) -> Array:
    """Joins normalised transitions to the encoder's input `[..., F]`."""
    parts = [scaled.obs, scaled.action, scaled.reward[..., None], scaled.next_obs]
    return jnp.concatenate(parts, -1)


def _parts(transitions: Transition) -> Any:
    return {
        "obs": transitions.obs,
        "action": transitions.action,
        "reward": transitions.reward,
        "next_obs": transitions.next_obs,
    }
