"""What experiments have in common, faithful and fast; not a preset itself."""

import dataclasses

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
from cemrl_jax.envs import Schedule
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.schedules import Stationary


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


SMALL_SAC = SACConfig(
    hidden_size=128,
    num_layers=2,
    critic_layer_norm=True,
    learning_rate=1e-3,
    initial_temperature=0.2,
    independent_transitions=True,
)
"""Of experiments sized for wall-clock on two CPU cores."""


def fast(
    faithful: Config,
    *,
    num_epochs: int,
    learning_rate: float = 1e-3,
    elbo_learning_rate: float = 1e-3,
    steps_per_epoch: int = 32_000,
    batch_size: int = 256,
) -> Config:
    """Returns an experiment sized for wall-clock on two CPU cores.

    Robot, tasks, schedule, episodes, window, classes and the weights of the ELBO are
    the experiment's own. Networks are small, updates fused, and as many steps are
    collected an epoch whatever the length of an episode. With one class z has two
    numbers or more: one alone folds again and again, and tasks that share a value
    cannot be told apart. Layer normalisation keeps the critic from running away at
    these learning rates, which fall to a fiftieth: with a fifth left the last policies
    differ by as much as is missing. An evaluation has 20 episodes or more of each kind,
    also where there are two tasks.

    Args:
      faithful: the experiment as the original has it.
      num_epochs: epochs of the run, 1,000 updates each.
      learning_rate: of SAC.
      elbo_learning_rate: of the encoder and the decoder.
      steps_per_epoch: environment steps collected in an epoch, of all environments.
      batch_size: transitions in an update.
    """
    num_steps, encoder = faithful.rollout.num_steps, faithful.encoder
    least = 2 if encoder.num_classes == 1 else 1
    return Config(
        name="fast-" + faithful.name,
        seed=faithful.seed,
        env=faithful.env,
        rollout=RolloutConfig(
            num_envs=steps_per_epoch // num_steps, num_steps=num_steps
        ),
        replay=ReplayConfig(capacity=2_000_000),
        encoder=dataclasses.replace(
            encoder, width_factor=1.5, latent_size=max(least, encoder.latent_size)
        ),
        elbo=dataclasses.replace(
            faithful.elbo,
            decoder_width_factor=4.0,
            learning_rate=elbo_learning_rate,
            windows_per_segment=8,
        ),
        sac=dataclasses.replace(
            SMALL_SAC, batch_size=batch_size, learning_rate=learning_rate
        ),
        train=TrainConfig(
            num_epochs=num_epochs, num_updates=1000, final_learning_rate=0.02
        ),
        evaluation=EvaluationConfig(
            interval=5, num_episodes=-(-20 // faithful.env.num_test_tasks)
        ),
        checkpoint=CheckpointConfig(interval=10),
    )


def fast_velocities(faithful: Config, *, num_epochs: int) -> Config:
    """Returns `fast` and `find_gait` for half-cheetahs with goal velocities.

    They are given three times as many environments, and lower learning rates.

    Args:
      faithful: the experiment as the original has it.
      num_epochs: epochs of the run, 1,000 updates each.
    """
    return find_gait(
        fast(
            faithful,
            num_epochs=num_epochs,
            learning_rate=4e-4,
            elbo_learning_rate=5e-4,
            steps_per_epoch=102_400,
        )
    )


def fast_classes(
    faithful: Config, *, num_epochs: int, steps_per_epoch: int = 102_400
) -> Config:
    """Returns `fast` for half-cheetahs whose tasks fall into classes.

    `find_gait`, lower learning rates, and a posterior that may leave its prior, so that
    it tells the classes apart: two directions, or running from jumping. Two directions
    are given three times as many environments.

    Args:
      faithful: the experiment as the original has it.
      num_epochs: epochs of the run, 1,000 updates each.
      steps_per_epoch: environment steps collected in an epoch, of all environments.
    """
    config = fast(
        faithful,
        num_epochs=num_epochs,
        learning_rate=5e-4,
        elbo_learning_rate=5e-4,
        steps_per_epoch=steps_per_epoch,
    )
    elbo = dataclasses.replace(config.elbo, kl_z_weight=1e-3, kl_y_weight=1e-3)
    return find_gait(dataclasses.replace(config, elbo=elbo))


def fast_directions(faithful: Config, *, num_epochs: int) -> Config:
    """Returns `fast_classes`, `alternating`, for half-cheetahs with two directions.

    A robot needs 80 steps and more to turn round and be fast again; a discount of 0.98
    looks 50 ahead, 0.99 a hundred.

    Args:
      faithful: the experiment as the original has it.
      num_epochs: epochs of the run.
    """
    config = alternating(fast_classes(faithful, num_epochs=num_epochs))
    sac = dataclasses.replace(config.sac, learning_rate=1e-3, discount=0.99)
    return dataclasses.replace(config, sac=sac)


def find_gait(config: Config) -> Config:
    """Returns a `fast` experiment with the SAC that soon finds a gait to run with.

    Networks are twice as wide, the horizon is shorter, and the target follows in 50
    updates. `benchmarks/learning.md` has what was measured. quickstart ended worse with
    such a target.
    """
    sac = dataclasses.replace(
        config.sac, hidden_size=256, discount=0.98, target_rate=0.02
    )
    return dataclasses.replace(config, sac=sac)


def alternating(config: Config) -> Config:
    """Returns a `fast` experiment that trains its world model first, then its policy.

    The policy's steps find the embeddings of their windows made, once an epoch: 1,000
    steps of the model and 1,500 of the policy take about as long as 1,000 fused updates
    do. No validation ends the model's: it sees more transitions each epoch. Actor and
    critic see observations normalised. `benchmarks/learning.md` has what was measured.
    """
    sac = dataclasses.replace(
        config.sac, normalize_obs=True, independent_transitions=False
    )
    train = dataclasses.replace(
        config.train,
        schedule="alternating",
        num_world_model_steps=1000,
        early_stopping_steps=0,
        num_updates=1500,
    )
    return dataclasses.replace(config, sac=sac, train=train)


def rewarded_tenfold(config: Config) -> Config:
    """Returns a `fast` experiment of an ant whose direction has ten times its reward.

    A step of the authors' ants earns up to 35. SAC gets a tenth, and networks that are
    twice as wide: with both it learnt to walk. `benchmarks/learning.md` has the runs.
    """
    sac = dataclasses.replace(config.sac, hidden_size=256, reward_scale=0.1)
    return dataclasses.replace(config, sac=sac)


def manipulation(
    name: str,
    names: tuple[str, ...],
    schedule: Schedule,
    *,
    num_steps: int,
    num_epochs: int,
    seed: int = 0,
) -> Config:
    """Returns tasks of Meta-World, sized for wall-clock on two CPU cores.

    The target is not observed: the encoder has to find it in the rewards. Window and
    length of an episode are about those of the original's configurations of
    Meta-World; each task has 50 places to learn from, as there. As in `fast`, an epoch
    has about 30,000 steps and 1,000 updates.

    Args:
      name: of the experiment.
      names: the tasks.
      schedule: when they change.
      num_steps: length of an episode.
      num_epochs: epochs of the run.
      seed: of everything random.
    """
    return Config(
        name=name,
        seed=seed,
        env=EnvConfig(
            Sawyer(),
            Manipulation(names),
            schedule,
            num_train_tasks=50 * len(names),
            num_test_tasks=50 // len(names) * len(names),
        ),
        rollout=RolloutConfig(
            num_envs=30_000 // num_steps // len(names) * len(names),
            num_steps=num_steps,
        ),
        replay=ReplayConfig(capacity=2_000_000),
        encoder=EncoderConfig(
            window_steps=20, num_classes=len(names), latent_size=4, width_factor=1.5
        ),
        elbo=ElboConfig(
            state_size=7,
            decoder_width_factor=4.0,
            learning_rate=1e-3,
            windows_per_segment=8,
        ),
        sac=dataclasses.replace(SMALL_SAC, reward_scale=0.1),
        train=TrainConfig(
            num_epochs=num_epochs, num_updates=1000, final_learning_rate=0.2
        ),
        evaluation=EvaluationConfig(interval=5),
        checkpoint=CheckpointConfig(interval=10),
    )


def manipulation_of_one(
    name: str, task: str, *, obs_size: int, num_epochs: int
) -> Config:
    """Returns `manipulation` of one task in episodes of 150 steps.

    Once the hand rests, rewards no longer say where the target is, and the next one is
    like the last wherever that is: so the window holds the whole episode, with the
    hand's way there, and the decoder predicts other episodes of the task, in which the
    hand went elsewhere. What tells the 50 targets apart without saying where others
    are, as an object does that nothing depends on, stays out of sight.
    `benchmarks/learning.md` has what this is worth.

    Args:
      name: of the experiment.
      task: of Meta-World.
      obs_size: leading entries of an observation that rewards depend on: 4 of the hand,
        3 of the object.
      num_epochs: epochs of the run.
    """
    num_steps = 150
    config = manipulation(
        name, (task,), Stationary(), num_steps=num_steps, num_epochs=num_epochs
    )
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(
            config.encoder, window_steps=num_steps, obs_size=obs_size, width_factor=10.0
        ),
        elbo=dataclasses.replace(
            config.elbo,
            decode="task",
            decoder_width_factor=12.0,
            state_size=obs_size,
            kl_z_weight=1e-4,
            kl_y_weight=1e-4,
        ),
        sac=dataclasses.replace(config.sac, independent_transitions=False),
        train=dataclasses.replace(config.train, final_learning_rate=0.02),
    )
