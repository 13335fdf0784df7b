"""A robot of your own: a cart with a mass."""

import dataclasses

import jax
import jax.numpy as jnp

from cemrl_jax.configs import debug


@dataclasses.dataclass
class Cart:
    mass: float = 2.0
    action_size, control_dt = 1, 0.05

    def reset(self, key):
        return 0.1 * jax.random.normal(key, (2,))  # position, velocity

    def step(self, physics, action, overrides):
        x, v = physics
        force = 10 * jnp.clip(action[0], -1, 1) - v
        v = v + self.control_dt * force / self.mass
        return jnp.stack([x + self.control_dt * v, v])

    def reward(self, before, after, action, task):
        return -jnp.abs((after[0] - before[0]) / self.control_dt - task.spec)

    observe = staticmethod(lambda physics: physics / 10)
    x_position = staticmethod(lambda physics: physics[0])
    terminated = staticmethod(lambda physics: jnp.abs(physics[0]) > 100)


def get_config():
    config = debug.get_config()
    config.name, config.env.robot = "cart-vel", Cart(mass=1.0)
    return config
