"""A point on a line, under a minute: does everything work?"""

from cemrl_jax.config import (
    CheckpointConfig,
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    EvaluationConfig,
    ReplayConfig,
    RolloutConfig,
    SACConfig,
    TrainConfig,
)
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Velocity


def get_config() -> Config:
    """Small in every respect."""
    return Config(
        name="point-vel",
        env=EnvConfig(
            Point(), Velocity(-2.0, 2.0), Timed(min_steps=15), num_test_tasks=8
        ),
        rollout=RolloutConfig(num_envs=16, num_steps=50, num_initial=1),
        replay=ReplayConfig(capacity=20_000),
        encoder=EncoderConfig(window_steps=5, width_factor=4),
        elbo=ElboConfig(state_size=2, decoder_width_factor=4, learning_rate=1e-3),
        sac=SACConfig(
            batch_size=64,
            hidden_size=32,
            num_layers=2,
            learning_rate=2e-3,
            discount=0.9,
        ),
        train=TrainConfig(num_epochs=12, num_updates=100),
        evaluation=EvaluationConfig(interval=2),
        checkpoint=CheckpointConfig(interval=4),
    )
