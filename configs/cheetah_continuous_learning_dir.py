"""Half-cheetah that always starts backward and turns at 20 to 21 m."""

from cemrl_jax.config import (
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    RolloutConfig,
)
from cemrl_jax.configs.base import experiment
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Direction


def get_config() -> Config:
    """The original's cheetah-continuous-learning-dir, seed included."""
    return experiment(
        "cheetah-continuous-learning-dir",
        EnvConfig(
            HalfCheetah(),
            Direction(starts=(-1.0,)),
            Location(20.0, 1.0),
            num_train_tasks=1,
            num_test_tasks=1,
        ),
        RolloutConfig(num_envs=2, num_steps=800, num_initial=1),
        num_epochs=251,
        encoder=EncoderConfig(window_steps=10, num_classes=2),
        elbo=ElboConfig(state_size=8, kl_z_weight=0.01, kl_y_weight=0.1),
        seed=1,
    )
