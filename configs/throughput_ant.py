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
from cemrl_jax.envs.robots import Ant
from cemrl_jax.envs.schedules import Location
from cemrl_jax.envs.tasks import Direction


def get_config() -> Config:
    """Turns at 10 to 12 m; an ant without contact costs, which need an extra pass.

    An epoch collects 1,024 episodes of 200 steps and makes 4,000 updates of 4,096
    transitions: 80 samples for a step collected, four times as many as
    throughput-cheetah, since an ant's steps cost several times as much. Rewards are
    scaled, since the authors' ant earns 35 in a step.

    On a CPU it was seen to learn, as it is (three epochs) and with an eighth of
    environments and updates in an epoch. With rewards unscaled and 1,500 updates in
    an epoch of 1,024 episodes the first two epochs made it worse.
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
        rollout=RolloutConfig(num_envs=1024, num_steps=200),
        replay=ReplayConfig(capacity=10 * 1024 * 200),
        encoder=EncoderConfig(window_steps=10, num_classes=2, width_factor=1.0),
        elbo=ElboConfig(
            state_size=13,
            decoder_width_factor=2.0,
            kl_z_weight=0.01,
            kl_y_weight=0.01,
            learning_rate=1e-3,
        ),
        sac=SACConfig(
            batch_size=4096,
            hidden_size=256,
            num_layers=2,
            learning_rate=1e-3,
            reward_scale=0.1,
            initial_temperature=0.1,
            target_rate=0.01,
        ),
        train=TrainConfig(num_epochs=100, num_updates=4000),
        evaluation=EvaluationConfig(interval=2, num_episodes=8),
        checkpoint=CheckpointConfig(interval=20, replay=False),
    )
