"""Ant forward and backward for one large accelerator: many environments and samples."""

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
from envs.robots import Ant
from envs.schedules import Location
from envs.tasks import Direction


def get_config() -> Config:
    """Turns at 10 to 12 m; an ant without contact costs, which need an extra pass.

    What follows from counting: an epoch collects 2,048 episodes of 200 steps and makes
    600 updates of 8,192 transitions, 12 samples for a step collected.

    What is not measured yet: that these settings learn, and how the rate of steps
    compares with the half-cheetah's; the ant's physics takes several times as long
    (RK4 and more contact pairs).
    """
    return Config(
        name="throughput-ant",
        env=EnvConfig(
            Ant(contact_forces=False),
            Direction(),
            Location(10.0, 2.0),
            num_train_tasks=2,
            num_test_tasks=2,
        ),
        rollout=RolloutConfig(num_envs=2048, num_steps=200),
        replay=ReplayConfig(capacity=10 * 2048 * 200),
        encoder=EncoderConfig(window_steps=10, num_classes=2),
        elbo=ElboConfig(
            state_size=13, kl_z_weight=0.01, kl_y_weight=0.01, learning_rate=1e-3
        ),
        sac=SACConfig(batch_size=8192, learning_rate=1e-3, target_rate=0.01),
        train=TrainConfig(num_epochs=200, num_updates=600),
        evaluation=EvaluationConfig(interval=10, num_episodes=8),
        checkpoint=CheckpointConfig(interval=20, replay=False),
    )
