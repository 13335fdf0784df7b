"""Never changes the task."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import NO_EVENT


@dataclasses.dataclass
class Stationary:
    """Keeps the task for the whole episode."""

    def init(self, key: Array) -> tuple[()]:
        """See `Schedule.init`."""
        del key
        return ()

    def update(self, key: Array, state: tuple[()], x: Array) -> tuple[Array, tuple[()]]:
        """See `Schedule.update`."""
        del key, x
        return jnp.int32(NO_EVENT), state

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings: never anything."""
        return []
