"""Half-cheetah whose kind of task changes every 75 steps or more."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import MultiTask


def get_config() -> Config:
    """An environment of the original for which it has no configuration.

    Tasks and encoder are those of cheetah-stationary-multi-task. Changes come with
    time, since a robot that jumps passes no place.
    """
    return experiment(
        "cheetah-non-stationary-multi-task",
        EnvConfig(
            HalfCheetah(),
            MultiTask(("velocity", "jumping")),
            Timed(min_steps=75),
            num_train_tasks=60,
        ),
        RolloutConfig(num_envs=30, num_steps=400, num_initial=1),
        num_epochs=1001,
        encoder=EncoderConfig(window_steps=10, num_classes=4),
        elbo=ElboConfig(state_size=8, kl_z_weight=0.1, kl_y_weight=1.0, prior="learnt"),
        num_eval_trajectories=1,
    )
