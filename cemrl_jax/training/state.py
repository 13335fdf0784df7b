"""The state that the phases of a run advance: shapes, sizes, how it begins.

With several seeds it is made in joint form, see `cemrl_jax.training.seeds`: nothing is
stacked, so the replay exists once.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import packing, replay
from cemrl_jax.data.types import Transition, WorkerState
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.runtime import parallel
from cemrl_jax.runtime.programs import Program
from cemrl_jax.training import seeds
from cemrl_jax.training.keys import Keys


class State(struct.PyTreeNode):
    """What a run, or several seeds of one, has in its devices' memory.

    Attributes:
      learner: what is learnt; with several seeds `[N, ...]`.
      worker: replay and randomness of each device, `[D, ...]`.
    """

    learner: Any
    worker: WorkerState


def example_transition(env: NonStationaryEnv, task: Task) -> Transition:
    """Returns a transition of zeros with an environment's shapes, `task` without N."""
    obs, zero = jnp.zeros(env.obs_size), jnp.float32(0)
    return Transition(
        obs=obs,
        action=jnp.zeros(env.action_size),
        reward=zero,
        next_obs=obs,
        terminated=zero,
        step=jnp.int32(0),
        task=task.replace(overrides={}),
    )


def first(tasks: Task) -> Task:
    """Returns the first task of a pool."""
    return jax.tree.map(lambda leaf: leaf[0], tasks)


def lower_init(config: Config, num_seeds: int) -> Any:
    """Returns what makes the learners of so many seeds from their keys, lowered."""
    algorithm = make_algorithm(config, config.env.make())
    keys = [jax.random.key(0)] * num_seeds
    init = seeds.for_seeds(algorithm.init, num_seeds)
    return jax.jit(init).lower(keys[0] if num_seeds == 1 else _join(keys))


def initial(
    config: Config,
    numbers: Sequence[int],
    pools: Sequence[Task],
    init: Program | None = None,
) -> State:
    """Returns the state at the start of a run, for each of the seeds `numbers`.

    Args:
      config: of the run.
      numbers: the seeds.
      pools: the training tasks `[M]` of each.
      init: of `lower_init`, if it is compiled already.
    """
    keys = [Keys.of(number).agent for number in numbers]
    joined = keys[0] if len(keys) == 1 else _join(keys)
    if init is not None:
        learner, _ = init(joined)
    else:
        learner = lower_init(config, len(numbers)).compile()(joined)
    return State(learner=learner, worker=initial_worker(config, numbers, pools))


def initial_worker(
    config: Config, numbers: Sequence[int], pools: Sequence[Task]
) -> WorkerState:
    """Returns the workers `[D, ...]` of `initial`, their replays empty.

    Raises:
      ConfigError: tasks have a kind, base or number that a replay has no bits for.
    """
    for field, largest in packing.LARGEST.items():
        most = max(int(getattr(pool, field).max()) for pool in pools)
        if most > largest:
            raise ConfigError(
                f"env.task has tasks of {field} {most}, which must be at most"
                f" {largest}, what the replay has bits for"
            )
    num_seeds, num_devices = len(numbers), parallel.num_devices()
    keys = [
        parallel.split_keys(Keys.of(number).workers, num_devices) for number in numbers
    ]
    make = _make_worker(config, config.env.make(), pools[0])
    make = seeds.worker_for_seeds(make, num_seeds)
    if num_seeds == 1:
        return parallel.on_each_device(make, keys[0], pools[0])
    return parallel.on_each_device(make, _join(keys, 1), seeds.stack(pools))


def learner_shapes(config: Config) -> Any:
    """Returns the shapes of a seed's learner."""
    algorithm = make_algorithm(config, config.env.make())
    return jax.eval_shape(algorithm.init, jax.random.key(0))


def shapes(
    config: Config,
    num_seeds: int,
    tasks: Task,
    num_devices: int | None = None,
    platform: str | None = None,
) -> State:
    """Returns the shapes of `initial`, with the rows of this process's devices.

    Args:
      config: of the run.
      num_seeds: N.
      tasks: the training tasks `[M]` of one seed; only shapes matter.
      num_devices: devices that are described, in place of those that are here.
      platform: of these devices; None for JAX's default.
    """
    env = config.env.make()
    num_rows = num_devices or parallel.num_local_devices()

    def all_rows(key: Array, tasks: Task) -> State:
        keys = key if num_seeds == 1 else jnp.stack([key] * num_seeds)
        pools = tasks
        if num_seeds > 1:
            pools = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_seeds), tasks)
        learner = seeds.for_seeds(make_algorithm(config, env).init, num_seeds)(keys)
        make_worker = _make_worker(config, env, tasks, num_devices, platform)
        make = seeds.worker_for_seeds(make_worker, num_seeds)
        rows = jnp.stack([keys] * num_rows)
        return State(learner, jax.vmap(make, (0, None))(rows, pools))

    return jax.eval_shape(all_rows, jax.random.key(0), tasks)


def num_bytes(tree: Any) -> int:
    """Returns what arrays, or shapes of arrays, take in memory, bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _make_worker(
    config: Config,
    env: NonStationaryEnv,
    tasks: Task,
    num_devices: int | None = None,
    platform: str | None = None,
) -> Any:
    """Returns a function of a device's key and tasks that makes its worker."""
    example = example_transition(env, first(tasks))
    num_envs = config.rollout.num_envs // (num_devices or parallel.num_devices())
    sizes = num_envs, config.replay_length, config.rollout.num_steps

    def make(key: Array, tasks: Task) -> WorkerState:
        memory = replay.init(example, *sizes, env.can_fall, platform)
        return WorkerState(replay=memory, key=key, tasks=tasks)

    return make


def _join(keys: Sequence[Array], axis: int = 0) -> Array:
    return jnp.stack(list(keys), axis)
