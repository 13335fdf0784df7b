"""Measures the collecting phase, and the physics alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.cemrl.phases import make_collect
from cemrl_jax.benchmark.subject import Subject
from cemrl_jax.benchmark.timing import Program, Row, timings
from cemrl_jax.data.rollout import deal_tasks
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.runtime import parallel


def measure_rollout(subject: Subject, num_devices: int, num_repeats: int) -> Row:
    """Times the collecting phase in turns with the physics alone."""
    config, env = subject.config, subject.env
    num_envs = config.rollout.num_envs // num_devices
    steps = config.rollout.num_steps
    worker = subject.workers(num_envs, steps, steps, num_devices)

    def make(key: Array, tasks: Task) -> PhysicsWorker:
        key_reset, key_tasks, key = jax.random.split(key, 3)
        tasks = deal_tasks(key_tasks, tasks, num_envs)
        keys_reset = jax.random.split(key_reset, num_envs)
        return PhysicsWorker(jax.vmap(env.world.reset)(keys_reset, tasks), tasks, key)

    keys = parallel.split_keys(jax.random.key(2), num_devices)
    robots = parallel.on_each_device(make, keys, subject.tasks)
    collect = make_collect(env, subject.agent, num_envs, steps)
    programs = {
        "rollout": Program(collect, subject.learner, worker),
        "physics": Program(make_physics(env, steps), jnp.float32(0), robots),
    }
    row = timings(programs, num_repeats)
    seconds = row["seconds"]
    rate = config.rollout.num_envs * steps / seconds["rollout"]
    simulator = getattr(env.robot, "simulator", None)
    return row | {
        "env_steps_per_second": rate,
        "physics_steps_per_second": rate * getattr(simulator, "substeps", 1),
        "limit_env_steps_per_second": rate * seconds["rollout"] / seconds["physics"],
        "rollout_share_of_physics": seconds["physics"] / seconds["rollout"],
    }


class PhysicsWorker(struct.PyTreeNode):
    """Robots `[E]` in their first states, what they are, and randomness."""

    physics: Any
    tasks: Task
    key: Array


def make_physics(env: NonStationaryEnv, num_steps: int) -> Callable[..., Any]:
    """Returns the phase that only steps robots, with random actions."""

    def physics(learner: Array, worker: PhysicsWorker) -> Any:
        num_envs = worker.tasks.kind.shape[0]

        def step(state: Any, key: Array) -> tuple[Any, None]:
            shape = (num_envs, env.action_size)
            action = jax.random.uniform(key, shape, minval=-1, maxval=1)
            return jax.vmap(env.world.step)(state, action, worker.tasks), None

        key, key_steps = jax.random.split(worker.key)
        keys = jax.random.split(key_steps, num_steps)
        last, _ = jax.lax.scan(step, worker.physics, keys)
        metrics = {"x": jax.vmap(env.world.x_position)(last).mean()}
        return learner, worker.replace(key=key), parallel.average(metrics)

    return physics
