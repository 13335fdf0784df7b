"""The whole configuration: its fields and what they mean."""

import dataclasses

from cemrl_jax.config import rules
from cemrl_jax.config.fields import ConfigError
from cemrl_jax.envs import NonStationaryEnv, engines
from cemrl_jax.envs.base import Robot, Schedule, TaskDistribution, World
from cemrl_jax.envs.engines.simulated import Simulated
from cemrl_jax.envs.groups import make_groups
from cemrl_jax.envs.robots import HalfCheetah
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import Velocity
from cemrl_jax.evaluation import cases


@dataclasses.dataclass
class EnvConfig:
    """Robot x task distribution x schedule. Presets name the objects themselves.

    Attributes:
      robot: the body, or a world with one.
      task: the family of tasks.
      schedule: when the task changes within an episode.
      engine: of the physics: "mjx", "mujoco" (C MuJoCo, on CPU devices only),
        "mujoco_ffi" (the same, with quicker calls, once scripts/build_engine.py has
        built it) or "auto" (C MuJoCo on CPU devices, MJX on all others).
      num_train_tasks: size of the pool that training draws from.
      num_test_tasks: size of the pool that evaluation uses; drawn from its own key.
    """

    robot: Robot | World = dataclasses.field(default_factory=HalfCheetah)
    task: TaskDistribution = dataclasses.field(default_factory=Velocity)
    schedule: Schedule = dataclasses.field(default_factory=Stationary)
    engine: str = "auto"
    num_train_tasks: int = 100
    num_test_tasks: int = 30

    @property
    def resolved_engine(self) -> str | None:
        """The engine that runs here; None for a robot without physics engine."""
        if not isinstance(self.robot, Simulated):
            return None
        return engines.resolve(self.engine)

    def make(self) -> NonStationaryEnv:
        """Returns the environment."""
        robot = self.robot
        if isinstance(robot, Simulated):
            robot = robot.on_engine(self.engine)
        return make_groups(robot, self.task, self.schedule)


@dataclasses.dataclass
class RolloutConfig:
    """How experience is collected; counts are totals over all devices.

    Attributes:
      num_envs: environments that run side by side, one episode each per collect.
      num_steps: length of an episode, in steps.
      num_initial: collects with the untrained policy before the first epoch.
    """

    num_envs: int = 20
    num_steps: int = 200
    num_initial: int = 0


@dataclasses.dataclass
class ReplayConfig:
    """Memory of transitions.

    Attributes:
      capacity: transitions kept, a total over all devices; rounded down to whole
        collects, and never more than the run produces.
      num_collects: collects kept instead, which grow with rollout.num_envs; 0 to go by
        `capacity`.
    """

    capacity: int = 1_000_000
    num_collects: int = 0


@dataclasses.dataclass
class EncoderConfig:
    """The network that infers the task.

    Attributes:
      kind: see `cemrl_jax.agents.cemrl.encoders`, or `module:Class` of your own.
      merge: how shared_y agrees on a class, one of its `MERGES`.
      window_steps: T, transitions that it sees.
      obs_size: leading entries of an observation that it and the decoder see; 0: all.
        What differs by task and says nothing of it can be learnt by heart: with few
        tasks, keep it from them.
      num_classes: K, Gaussians in the mixture.
      latent_size: Z, size of the task variable.
      width_factor: width of its layers, in widths of its input.
    """

    kind: str = "shared_y"
    merge: str = "add"
    window_steps: int = 10
    obs_size: int = 0
    num_classes: int = 1
    latent_size: int = 1
    width_factor: float = 10.0


@dataclasses.dataclass
class ElboConfig:
    """What trains the encoder.

    Attributes:
      learning_rate: of encoder, decoder and prior.
      decoder_width_factor: width of the decoder's layers, in widths of its input.
      state_size: leading entries of the next observation that the decoder predicts.
      state_difference: predict the change of the state instead.
      kl_z_weight: weight of the KL divergence of z.
      kl_y_weight: weight of the KL divergence of the class.
      prior: "fixed" (mean = class index) or "learnt".
      prior_std: standard deviation of the fixed prior.
      component_constraint: tell the encoder the true base task; the decoder then
        predicts for that class only, which with many classes is much of an update.
      loss_weight_memory: where no validation sets them, updates over which the weights
        of state and reward follow their errors.
      windows_per_segment: W; a batch holds runs of W consecutive transitions, whose
        windows overlap and share their embeddings. Each transition is as likely as
        with 1, those of a batch are correlated, and a step is some times faster.
      decode: what the decoder predicts: "current", the transition whose window the
        encoder sees, as in the original; "episode", any of its episode with the same
        task; "task", any of the replay with the same task, which must stay. Where the
        last reward says the next one whatever the task, only the others need the task.
        VariBAD (arXiv:1910.08348) decodes whole episodes, PEARL (arXiv:1903.08254)
        learns from other episodes of a task.
    """

    learning_rate: float = 3e-4
    decoder_width_factor: float = 10.0
    state_size: int = 8
    state_difference: bool = False
    kl_z_weight: float = 1e-3
    kl_y_weight: float = 1e-3
    prior: str = "fixed"
    prior_std: float = 0.5
    component_constraint: bool = False
    loss_weight_memory: int = 50
    windows_per_segment: int = 1
    decode: str = "current"


@dataclasses.dataclass
class SACConfig:
    """Soft actor-critic on [observation, z].

    Attributes:
      context: what the policy sees of the task: "inferred" (z) or, to see what
        inference costs and is worth, "oracle" (the true task) or "blind" (nothing).
        The last two train no world model, which nothing would read.
      batch_size: transitions in an update, a total over all devices; the ELBO's too.
      learning_rate: of actor, critic and temperature.
      hidden_size: width of the hidden layers.
      num_layers: number of hidden layers.
      critic_layer_norm: normalise the critic's hidden layers, which keeps it from
        running away at higher learning rates.
      normalize_obs: show actor and critic observations normalised, as the world model
        sees them; the original's see them raw.
      discount: of future rewards.
      reward_scale: factor on rewards.
      target_rate: share of the critic that enters its target in a step.
      temperature: "learnt", "conditioned" (on z) or "fixed".
      initial_temperature: its start, or its value if fixed.
      target_entropy_factor: entropy to keep, in nats per action dimension, negated.
      independent_transitions: with train.schedule "fused" and elbo.windows_per_segment
        above 1, draw transitions of its own and infer their tasks in a pass of its own,
        instead of learning from the ELBO's segments.
    """

    context: str = "inferred"
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden_size: int = 300
    num_layers: int = 3
    critic_layer_norm: bool = False
    normalize_obs: bool = False
    discount: float = 0.99
    reward_scale: float = 1.0
    target_rate: float = 0.005
    temperature: str = "learnt"
    initial_temperature: float = 1.0
    target_entropy_factor: float = 1.0
    independent_transitions: bool = False


@dataclasses.dataclass
class TrainConfig:
    """What an epoch does after collecting.

    Attributes:
      num_epochs: epochs of the run.
      schedule: "fused" (each update trains the model and the policy on the same
        transitions) or "alternating" (the original's: first the model, with
        validation and early stopping, then the policy).
      num_updates: policy updates in an epoch; with "fused" model updates too.
      updates_per_step: updates for each environment step of a collect instead, which
        grow with rollout.num_envs; 0 to go by `num_updates`.
      final_learning_rate: what is left of all learning rates at the end of the run, as
        a share; they fall linearly with the updates. 1 for constant ones. The world
        model's falls with the steps that it really makes: where validation ends its
        phases early there is more left of it.
      num_world_model_steps: with "alternating", model updates in an epoch at most.
      validation_interval: with "alternating", model steps from one validation to
        the next.
      validation_fold: one in so many transitions is for validation.
      early_stopping_steps: model steps without a better validation before it stops and
        goes back to the best parameters; 0 for no validation and a fixed number.
      precision: of matrix products in updates: "highest" (float32) or "default" (what
        the device does fastest: TF32 on recent NVIDIA GPUs, bfloat16 on TPUs, float32
        on CPUs). Physics and acting are always at the highest.
      max_hours: of one start of the program; then it ends the running phase, saves
        and exits with 0, and --resume goes on. 0 for no limit.
    """

    num_epochs: int = 500
    schedule: str = "fused"
    num_updates: int = 2000
    updates_per_step: float = 0.0
    final_learning_rate: float = 1.0
    num_world_model_steps: int = 5000
    validation_interval: int = 50
    validation_fold: int = 5
    early_stopping_steps: int = 500
    precision: str = "highest"
    max_hours: float = 0.0


@dataclasses.dataclass
class EvaluationConfig:
    """When and how the policy is judged.

    Attributes:
      interval: epochs from one evaluation to the next; the last epoch always has one.
      num_episodes: episodes per task and case.
    """

    interval: int = 10
    num_episodes: int = 1


@dataclasses.dataclass
class CheckpointConfig:
    """What is saved.

    Attributes:
      interval: epochs from one checkpoint to the next; the last epoch always has one,
        and so has each that is the best so far.
      keep: number of latest checkpoints to keep; the best one is kept as well.
      metric: what the best is best at: "validation/fixed_deterministic_return" or
        "validation/changing_deterministic_return" or the same of test, as the schedule
        is; "auto" for the first that there is.
      replay: save the replay too, which `--resume` needs to continue the same run.
    """

    interval: int = 10
    keep: int = 2
    metric: str = "auto"
    replay: bool = True


@dataclasses.dataclass
class LoggingConfig:
    """Where rows of progress.csv go besides. Training never waits for these.

    Attributes:
      wandb: log to Weights & Biases (extra "wandb"); WANDB_MODE=offline works.
      mlflow: log to MLflow (extra "mlflow"): to MLFLOW_TRACKING_URI, or else to the
        folder mlruns in `output_dir`.
      project: name of the project there.
    """

    wandb: bool = False
    mlflow: bool = False
    project: str = "cemrl"


@dataclasses.dataclass
class Config:
    """A run.

    Attributes:
      name: what is learnt; names the folder of the runs.
      seed: of everything random.
      num_seeds: runs with this and the following seeds, trained in the same programs.
      output_dir: folder of all runs.
      tensorboard: write TensorBoard events beside the CSV file.
    """

    name: str = "cheetah-stationary-vel"
    seed: int = 0
    num_seeds: int = 1
    output_dir: str = "output"
    tensorboard: bool = True
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    elbo: ElboConfig = dataclasses.field(default_factory=ElboConfig)
    sac: SACConfig = dataclasses.field(default_factory=SACConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)

    def validate(self, num_devices: int) -> None:
        """Checks every rule.

        Raises:
          ConfigError: lists each broken rule with the field, its value and the rule.
        """
        problems = rules.problems(self, num_devices)
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def checkpoint_metric(self) -> str:
        """What the best checkpoint is best at."""
        if self.checkpoint.metric != "auto":
            return self.checkpoint.metric
        return cases.metric_names(self.env.schedule)[0]

    def warnings(self) -> list[str]:
        """Returns the fields that were set although they have no effect."""
        return rules.warnings(self)

    @property
    def collect_steps(self) -> int:
        """Environment steps of a collect, on all devices together."""
        return self.rollout.num_envs * self.rollout.num_steps

    @property
    def num_updates(self) -> int:
        """Policy updates in an epoch."""
        rate = self.train.updates_per_step
        return round(rate * self.collect_steps) if rate else self.train.num_updates

    @property
    def replay_length(self) -> int:
        """L, transitions kept per environment: whole episodes, no more than needed."""
        episodes = self.replay.num_collects or (
            self.replay.capacity // self.collect_steps
        )
        needed = self.rollout.num_initial + self.train.num_epochs
        return min(episodes, needed) * self.rollout.num_steps
