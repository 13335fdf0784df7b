"""A trained agent from the folder of a run, or from a packed one."""

import dataclasses
import pathlib

import jax

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.analysis import pretrained
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.training import storage
from cemrl_jax.training.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained agent.

    Attributes:
      config: of its run.
      env: its environment.
      agent: applies the learner.
      learner: what it has learnt.
      epoch: of the checkpoint.
    """

    config: Config
    env: NonStationaryEnv
    agent: Agent
    learner: LearnerState
    epoch: int


def restore(directory: pathlib.Path, checkpoint: str = "best") -> Restored:
    """Returns the agent of a checkpoint; a packed folder has only one.

    Args:
      directory: of the run.
      checkpoint: "best", "latest", an epoch, or "failed" for the weights of a run
        whose numbers were not finite any more.

    Raises:
      ConfigError: no configuration, or no such checkpoint.
      CheckpointError: it cannot be read.
    """
    config = config_lib.load(directory / "config.json")
    env = config.env.make()
    agent = agent_for(config, env)
    like = jax.eval_shape(agent.init, jax.random.key(config.seed))
    if pretrained.is_packed(directory):
        learner = pretrained.learner(directory, like)
        return Restored(config, env, agent, learner, pretrained.epoch(directory))
    failed = checkpoint == storage.FAILED
    if failed and not (directory / storage.FAILED).is_dir():
        raise ConfigError(f"--checkpoint={checkpoint}: the run has not failed")
    folder = directory / (storage.FAILED if failed else storage.CHECKPOINTS)
    with Checkpoints(folder, read_only=True) as saved:
        epoch = saved.find("latest" if failed else checkpoint)
        return Restored(config, env, agent, saved.learner(epoch, like), epoch)
