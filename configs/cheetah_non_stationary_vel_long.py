"""cheetah-non-stationary-vel as the authors first planned it: 501 epochs."""

from cemrl_jax.config import Config
from cemrl_jax.configs import cheetah_non_stationary_vel


def get_config() -> Config:
    """The runs of December 2020 that were stopped after 301 epochs."""
    config = cheetah_non_stationary_vel.get_config()
    collect = config.rollout.num_envs * config.rollout.num_steps
    config.name = "cheetah-non-stationary-vel-long"
    config.train.num_epochs = 501
    config.replay.capacity = (config.rollout.num_initial + 501) * collect
    return config
