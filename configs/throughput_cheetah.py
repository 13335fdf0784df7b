"""cheetah-stationary-vel for one large accelerator: many environments and samples."""

from cemrl_jax.config import (
    CheckpointConfig,
    Config,
    ElboConfig,
    EncoderConfig,
    EvaluationConfig,
    ReplayConfig,
    RolloutConfig,
    SACConfig,
    TrainConfig,
)
from configs import cheetah_stationary_vel


def get_config() -> Config:
    """The original's task and networks, fused updates, 32 times its batch.

    What follows from counting: an epoch collects 2,048 episodes of 200 steps and makes
    800 updates of 8,192 transitions, 16 samples for a step collected, where the
    original draws 320 for the model and 128 for the policy. The learning rates are
    below 3e-4 times the square root of 8,192 / 256, which would be 1.7e-3; the
    target's rate is twice the original's, because there are fewer updates.

    What is not measured yet: that these settings learn as well as the original's, and
    which ratio of updates to steps reaches a return soonest.
    """
    return Config(
        name="throughput-cheetah",
        env=cheetah_stationary_vel.get_config().env,
        rollout=RolloutConfig(num_envs=2048, num_steps=200),
        replay=ReplayConfig(capacity=10 * 2048 * 200),
        encoder=EncoderConfig(window_steps=10),
        elbo=ElboConfig(state_size=8, learning_rate=1e-3),
        sac=SACConfig(batch_size=8192, learning_rate=1e-3, target_rate=0.01),
        train=TrainConfig(num_epochs=100, num_updates=800),
        evaluation=EvaluationConfig(interval=5),
        checkpoint=CheckpointConfig(interval=20, replay=False),
    )
