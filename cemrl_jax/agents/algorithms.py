"""The algorithms by name."""

from collections.abc import Callable

from cemrl_jax.agents.base import Algorithm
from cemrl_jax.agents.cemrl.algorithm import CEMRL
from cemrl_jax.config import Config
from cemrl_jax.envs import NonStationaryEnv

ALGORITHMS: dict[str, Callable[[Config, NonStationaryEnv], Algorithm]] = {
    "cemrl": CEMRL.of
}


def make_algorithm(config: Config, env: NonStationaryEnv) -> Algorithm:
    """Returns the algorithm that a valid configuration describes."""
    return ALGORITHMS["cemrl"](config, env)
