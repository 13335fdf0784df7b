"""Several kinds of tasks in one family."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.robots.locomotion import kind_of
from cemrl_jax.envs.tasks.pools import draw_from

VARIANTS = ("velocity", "direction", "goal", "flipping", "jumping")
"""The kinds of tasks, each a name in `envs.robots.locomotion.REWARDS`."""


@dataclasses.dataclass
class MultiTask:
    """Velocity, direction, goal, flipping and jumping: any of them, in equal shares.

    A change draws from the pool, so that the kind of task may change too. The base
    task is the number of the kind in `variants`.

    Attributes:
      variants: kinds of tasks.
      min_velocity: smallest goal velocity, m/s.
      max_velocity: largest goal velocity, m/s.
      max_goal: largest distance of a goal on the x-axis, m.
    """

    variants: tuple[str, ...] = VARIANTS
    min_velocity: float = 1.0
    max_velocity: float = 3.0
    max_goal: float = 5.0

    @property
    def num_base_tasks(self) -> int:
        """Number of kinds."""
        return len(self.variants)

    def sample(self, key: Array, num_tasks: int) -> Task:
        """See `TaskDistribution.sample`: kinds in turn, two-sided ones alternate."""
        number = jnp.arange(num_tasks)
        base = number % self.num_base_tasks
        uniform = jax.random.uniform(key, (num_tasks,))
        span = self.max_velocity - self.min_velocity
        sign = 1.0 - 2.0 * ((number // self.num_base_tasks) % 2)
        specs = {
            "velocity": self.min_velocity + span * uniform,
            "direction": sign,
            "goal": self.max_goal * (2 * uniform - 1),
            "flipping": sign,
            "jumping": jnp.zeros(num_tasks),
        }
        kinds = jnp.array([kind_of(name) for name in self.variants], jnp.int32)
        spec = jnp.stack([specs[name] for name in self.variants])[base, number]
        return Task(kind=kinds[base], base=base, spec=spec, number=number, overrides={})

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """See `TaskDistribution.change`."""
        del task, event
        return draw_from(key, pool)

    def validate(self) -> list[str]:
        """Returns what is wrong with the settings, as `field=value must ...`."""
        problems = []
        unknown = set(self.variants) - set(VARIANTS)
        if (
            unknown
            or not self.variants
            or len(set(self.variants)) < self.num_base_tasks
        ):
            problems.append(
                f"variants={self.variants} must hold different ones of"
                f" {', '.join(VARIANTS)}"
            )
        if self.min_velocity > self.max_velocity:
            problems.append(
                f"min_velocity={self.min_velocity} must not exceed"
                f" max_velocity={self.max_velocity} (m/s)"
            )
        return problems
