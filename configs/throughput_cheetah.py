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
from cemrl_jax.configs import cheetah_stationary_vel


def get_config() -> Config:
    """Networks of quickstart's sizes and fused updates, sixteen times its batch.

    An epoch collects 1,024 episodes of 200 steps and makes 1,000 updates of 4,096
    transitions: 20 samples for a step collected, where quickstart draws 8, the
    original 320 for the model and 128 for the policy. With learning rates of 2e-3 in
    SAC and 600 updates the policy unlearned again what it could do: return -162, then
    -217. z has one number here, as in the experiment.
    """
    return Config(
        name="throughput-cheetah",
        env=cheetah_stationary_vel.get_config().env,
        rollout=RolloutConfig(num_envs=1024, num_steps=200),
        replay=ReplayConfig(capacity=10 * 1024 * 200),
        encoder=EncoderConfig(window_steps=10, width_factor=1.5),
        elbo=ElboConfig(state_size=8, decoder_width_factor=4.0, learning_rate=2e-3),
        sac=SACConfig(
            batch_size=4096,
            hidden_size=128,
            num_layers=2,
            learning_rate=1e-3,
            initial_temperature=0.2,
            target_rate=0.01,
        ),
        train=TrainConfig(num_epochs=50, num_updates=1000),
        evaluation=EvaluationConfig(interval=2),
        checkpoint=CheckpointConfig(interval=20, replay=False),
    )
