"""A task distribution of your own: speeds from a list, never the same twice."""

import dataclasses

import jax
import jax.numpy as jnp

from cemrl_jax.configs import debug
from cemrl_jax.envs.tasks.pools import reward_tasks


@dataclasses.dataclass
class Gears:
    speeds: tuple[float, ...] = (-1.0, 1.0, 2.0)

    @property
    def num_base_tasks(self):
        return len(self.speeds)

    def sample(self, key, num_tasks):
        base = jax.random.randint(key, (num_tasks,), 0, self.num_base_tasks)
        return self.tasks(base)

    def change(self, key, pool, task, event):
        other = jax.random.randint(key, (), 1, self.num_base_tasks)
        return jax.tree.map(
            lambda leaf: leaf[0],
            self.tasks((task.base[None] + other) % self.num_base_tasks),
        )

    def tasks(self, base):
        return reward_tasks("velocity", jnp.array(self.speeds)[base], base)


def get_config():
    config = debug.get_config()
    config.name, config.env.task = "point-gears", Gears((-2.0, 0.5, 2.0))
    return config
