"""A schedule of your own: the task changes at every n-th step."""

import dataclasses

import jax.numpy as jnp

from cemrl_jax.configs import debug
from cemrl_jax.envs.base import ELAPSED, NO_EVENT


@dataclasses.dataclass
class Alarm:
    period_steps: int = 10

    def init(self, key):
        return jnp.int32(0)  # steps since the last change

    def update(self, key, state, x):
        due = state == self.period_steps
        return jnp.where(due, ELAPSED, NO_EVENT), jnp.where(due, 0, state) + 1

    def validate(self):
        if self.period_steps < 1:
            return [f"period_steps={self.period_steps} must be at least 1"]
        return []


def get_config():
    config = debug.get_config()
    config.name, config.env.schedule = "point-alarm", Alarm(period_steps=7)
    return config
