"""Going on from what a run has saved."""

import pathlib
from typing import Any

import jax
import numpy as np
from jax import Array

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config
from cemrl_jax.data import replay
from cemrl_jax.data.types import ReplayState, WorkerState
from cemrl_jax.envs import Task
from cemrl_jax.runtime import parallel
from cemrl_jax.training import seeds
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.run import Run, stored_pools
from cemrl_jax.training.state import example_transition, first


def resume_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns the run in a folder as its newest checkpoint left it.

    With as many devices as before it continues to the last digit. With another number
    the replay is shared out anew and the devices draw other random numbers.

    Raises:
      CheckpointError: there is no checkpoint that can be resumed.
      ConfigError: the configuration asks for another replay or other tasks than the
        run has.
    """
    pools = stored_pools(config, directory)
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        epoch = saved.latest()
        counters = saved.counters(epoch)
        env = config.env.make()
        like = jax.eval_shape(make_algorithm(config, env).init, jax.random.key(0))
        learner = saved.learner(epoch, like)
        num_devices = counters["num_devices"]
        example = example_transition(env, first(pools["train"]))

        def make(key: Array, tasks: Task) -> WorkerState:
            num_envs = config.rollout.num_envs // num_devices
            memory = replay.init(example, num_envs, counters["replay_length"])
            return WorkerState(replay=memory, key=key, tasks=tasks)

        shapes = jax.eval_shape(
            jax.vmap(make, in_axes=(0, None)),
            jax.random.split(jax.random.key(0), num_devices),
            pools["train"],
        )
        worker = saved.worker(epoch, shapes)
    worker = reshard(worker, parallel.num_devices())
    memory = replay.resize(worker.replay, config.replay_length)
    worker = parallel.place(worker.replace(replay=memory))
    env_steps = counters["env_steps"]
    return Run(config, directory, learner, worker, pools, epoch, env_steps)


def reshard(worker: WorkerState, num_devices: int) -> WorkerState:
    """Shares `[D, E / D, ...]` workers out over another number of devices."""
    old = worker.replay.cursor.shape[0]
    if old == num_devices:
        return worker

    def split(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(num_devices, -1, *leaf.shape[2:])

    def same(leaf: Any) -> Any:
        return np.repeat(leaf[:1], num_devices, 0)

    return WorkerState(
        replay=ReplayState(
            data=jax.tree.map(split, worker.replay.data),
            cursor=same(worker.replay.cursor),
            size=same(worker.replay.size),
        ),
        key=parallel.split_keys(worker.key[0], num_devices),
        tasks=jax.tree.map(same, worker.tasks),
    )


def with_weights(
    config: Config, learner: Any, directory: pathlib.Path, num_seeds: int = 1
) -> Any:
    """Returns fresh learners with the best weights of another run.

    Args:
      config: of the learner.
      learner: fresh; with several seeds `[N, ...]`.
      directory: of the other run.
      num_seeds: N.

    Raises:
      CheckpointError: no checkpoint, or networks of other sizes.
    """
    algorithm = make_algorithm(config, config.env.make())
    like = jax.eval_shape(algorithm.init, jax.random.key(0))
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        trained = saved.learner(saved.best(), like)
    transfer = lambda learner: algorithm.transfer(learner, trained)  # noqa: E731
    return seeds.for_seeds(transfer, num_seeds)(learner)
