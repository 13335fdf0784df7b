"""Half-cheetah at goal velocities that stay for the episode."""

from cemrl_jax.config import (
    Config,
    EnvConfig,
    EvaluationConfig,
    ReplayConfig,
    RolloutConfig,
    TrainConfig,
)
from envs.robots import HalfCheetah
from envs.schedules import Stationary
from envs.tasks import Velocity


def get_config() -> Config:
    """The original's cheetah-stationary-vel."""
    return Config(
        name="cheetah-stationary-vel",
        env=EnvConfig(HalfCheetah(), Velocity(0.0, 3.0), Stationary()),
        rollout=RolloutConfig(num_envs=20, num_steps=200),
        replay=ReplayConfig(capacity=2_004_000),
        train=TrainConfig(num_epochs=501, schedule="alternating"),
        evaluation=EvaluationConfig(interval=10, num_episodes=2),
    )
