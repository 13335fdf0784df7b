"""A robot of your own: a cart with a mass."""

import dataclasses

import jax
import jax.numpy as jnp

from cemrl_jax.configs import debug
from cemrl_jax.envs.base import Motion


@dataclasses.dataclass
class Cart:
    mass: float = 2.0
    action_size, control_dt = 1, 0.05

    def reset(self, key):
        return 0.1 * jax.random.normal(key, (2,))  # position, velocity

    def step(self, physics, action, model):
        x, v = physics
        force = 10 * jnp.clip(action[0], -1, 1) - v
        v = v + self.control_dt * force / self.mass
        return jnp.stack([x + self.control_dt * v, v])

    def motion(self, before, after, action):
        x_axis, zero = jnp.array([1.0, 0.0]), jnp.float32(0)
        speed = x_axis * (after[0] - before[0]) / self.control_dt
        return Motion(x_axis * after[0], speed, zero, zero, zero, zero, zero + 1)

    observe = staticmethod(lambda physics: physics / 10)
    x_position = staticmethod(lambda physics: physics[0])
    terminated = staticmethod(lambda physics: jnp.abs(physics[0]) > 100)


def get_config():
    config = debug.get_config()
    config.name, config.env.robot = "cart-vel", Cart(mass=1.0)
    return config
