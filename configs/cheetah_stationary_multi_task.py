"""Half-cheetah with several kinds of tasks that stay for the episode."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import MultiTask


def get_config() -> Config:
    """The original's cheetah-stationary-multi-task: velocity and jumping."""
    return multi_task("", ("velocity", "jumping"), num_classes=4, num_epochs=1001)


def multi_task(
    suffix: str,
    variants: tuple[str, ...],
    *,
    num_classes: int,
    num_epochs: int,
    merge: str = "add",
) -> Config:
    """Returns one of the original's experiments with several kinds of tasks.

    Args:
      suffix: tells this experiment from its others of the same name.
      variants: kinds of tasks.
      num_classes: Gaussians of the encoder.
      num_epochs: epochs of the run.
      merge: how the encoder agrees on a class.
    """
    return experiment(
        "cheetah-stationary-multi-task" + suffix,
        EnvConfig(HalfCheetah(), MultiTask(variants), Stationary(), num_train_tasks=60),
        RolloutConfig(num_envs=60, num_steps=200, num_initial=1),
        num_epochs=num_epochs,
        encoder=EncoderConfig(merge=merge, window_steps=10, num_classes=num_classes),
        elbo=ElboConfig(state_size=8, kl_z_weight=0.1, kl_y_weight=1.0, prior="learnt"),
        num_eval_trajectories=1,
    )
