"""What the experiments of the original have in common; not a preset itself."""

from cemrl_jax.config import (
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


def experiment(
    name: str,
    env: EnvConfig,
    rollout: RolloutConfig,
    *,
    num_epochs: int,
    encoder: EncoderConfig,
    elbo: ElboConfig,
    batch_size: int = 256,
    num_policy_steps: int = 2000,
    num_eval_trajectories: int = 2,
    seed: int = 0,
) -> Config:
    """Returns an experiment with the original's epoch and its replay.

    The replay holds the whole run, or the ten million transitions that the original's
    held.

    Args:
      name: the original's name of the experiment.
      env: robot, tasks and schedule.
      rollout: how much is collected.
      num_epochs: epochs of the run.
      encoder: the network that infers the task.
      elbo: what trains it.
      batch_size: transitions in an update of the model or of the policy.
      num_policy_steps: policy updates in an epoch.
      num_eval_trajectories: episodes per task in an evaluation.
      seed: of everything random.
    """
    collect = rollout.num_envs * rollout.num_steps
    whole_run = (rollout.num_initial + num_epochs) * collect
    return Config(
        name=name,
        seed=seed,
        env=env,
        rollout=rollout,
        replay=ReplayConfig(capacity=min(whole_run, 10_000_000)),
        encoder=encoder,
        elbo=elbo,
        sac=SACConfig(batch_size=batch_size),
        train=TrainConfig(
            num_epochs=num_epochs,
            schedule="alternating",
            num_updates=num_policy_steps,
        ),
        evaluation=EvaluationConfig(num_episodes=num_eval_trajectories),
    )
