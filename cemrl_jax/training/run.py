"""A run: its randomness, its tasks, its state, its folder."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import jax

from cemrl_jax import config as config_lib
from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config
from cemrl_jax.data import task_pools
from cemrl_jax.envs import Task
from cemrl_jax.training import state
from cemrl_jax.training.keys import Keys


def make_pools(config: Config) -> dict[str, Task]:
    """Draws the tasks of a run, each pool from its own key.

    "validation" is what the best checkpoint is chosen on, "test" what is reported.
    There is a pool "extrapolate", outside the range of the others, where the task
    distribution has one.
    """
    keys, task = Keys.of(config.seed), config.env.make().distribution
    num_test = config.env.num_test_tasks
    pools = {
        "train": task.sample(keys.train_tasks, config.env.num_train_tasks),
        "test": task.sample(keys.test_tasks, num_test),
        "validation": task.sample(keys.validation_tasks, num_test),
    }
    extrapolate = getattr(task, "extrapolate", None)
    if extrapolate is not None:
        with contextlib.suppress(ValueError):  # nothing is outside of the range
            pools["extrapolate"] = extrapolate(keys.extrapolate_tasks, num_test)
    return pools


def stored_pools(config: Config, directory: pathlib.Path) -> dict[str, Task]:
    """Returns the tasks that are stored with a run of this configuration.

    They count even if the same seed would give others today. A run from before tasks
    were stored has none; then they are drawn.
    """
    if not (directory / task_pools.FILE).exists():
        return make_pools(config)
    return task_pools.load(directory)


@dataclasses.dataclass
class Run:
    """A run in progress: state that outlives an epoch.

    Attributes:
      config: the configuration, validated.
      directory: where everything is written.
      learner: what is learnt; None while programs advance it.
      worker: replay and randomness `[D, ...]`; None likewise, and where seeds train
        together.
      pools: its tasks by pool, see `make_pools`.
      epoch: epochs done.
      env_steps: environment steps done.
      begun: the initial collects, which make the row of epoch 0, are done.
      phase: phases done of the epoch that is running, or initial collects.
      clock: phases done since the start, evaluations included.
      row: what the running epoch has logged so far.
    """

    config: Config
    directory: pathlib.Path
    learner: Any
    worker: Any
    pools: dict[str, Task]
    epoch: int = 0
    env_steps: int = 0
    begun: bool = False
    phase: int = 0
    clock: int = 0
    row: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left."""
        return self.begun and self.epoch >= self.config.train.num_epochs

    @property
    def logged_epoch(self) -> int:
        """The last epoch that has a row, -1 for none."""
        return self.epoch if self.begun else -1

    @property
    def collects(self) -> int:
        """Collects done, the initial ones included."""
        rollout = self.config.rollout
        return self.env_steps // (rollout.num_envs * rollout.num_steps)

    def position(self) -> dict[str, Any]:
        """Returns where the run is, as checkpoints store it."""
        return {name: getattr(self, name) for name in POSITION}


POSITION = ("epoch", "env_steps", "begun", "phase", "clock", "row")
"""Fields of a run that say where it is."""


def start_run(
    config: Config, directory: pathlib.Path, pools: dict[str, Task] | None = None
) -> Run:
    """Returns a run that begins, with its state; nothing is written yet.

    Args:
      config: the configuration, valid.
      directory: of the run.
      pools: its tasks; None to draw them.
    """
    pools = pools or make_pools(config)
    start = state.initial(config, [config.seed], [pools["train"]])
    return Run(config, directory, start.learner, start.worker, pools)


def store_run(run: Run) -> None:
    """Writes what a run is, its configuration and its tasks, into its folder."""
    if not (run.directory / task_pools.FILE).exists():
        task_pools.save(run.pools, run.directory)
    config_lib.save(run.config, run.directory / "config.json")


def describe(config: Config, num_seeds: int = 1) -> str:
    """Returns what a run, or each of so many seeds, will do and its memory."""
    env, devices = config.env.make(), jax.devices()
    algorithm = make_algorithm(config, env)
    params = algorithm.num_parameters(state.learner_shapes(config))
    tasks = make_pools(config)["train"]
    memory = state.shapes(config, num_seeds, tasks, num_devices=1).worker.replay
    num_envs, length = config.rollout.num_envs, config.replay_length
    size = state.num_bytes(memory)
    engine = config.env.resolved_engine
    physics = f", physics by {engine}" if engine else ""
    steps, updates = config.collect_steps, config.num_updates
    collects = length // config.rollout.num_steps
    others = f" and {num_seeds - 1} more" if num_seeds > 1 else ""
    return (
        f"{config.name}, seed {config.seed}{others}: {config.train.num_epochs} epochs,"
        f" {config.train.schedule}, on {len(devices)} x {devices[0].device_kind}"
        f"{physics}\n"
        f"an epoch: {steps:,} environment steps, {updates:,} updates"
        f" ({updates / steps:.3g} a step)\n"
        f"{params:,} parameters; replay of {num_envs * length:,} transitions"
        f" ({collects:,} collects) takes {size / 2**20:,.1f} MiB"
    )
