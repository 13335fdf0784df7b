"""The whole configuration: its schema, its rules, its JSON form."""

import dataclasses
import difflib
import importlib
import inspect
import json
import pathlib
import re
import types
import typing
from typing import Any, TypeVar

from cemrl_jax.encoders import ENCODERS, MERGES
from envs import ROBOTS, SCHEDULES, TASKS, NonStationaryEnv
from envs.base import Robot, Schedule, TaskDistribution
from envs.robots import HalfCheetah
from envs.schedules import Stationary
from envs.tasks import Velocity

Kind = TypeVar("Kind")

TABLES = {"robot": ROBOTS, "task": TASKS, "schedule": SCHEDULES}
"""Field of `EnvConfig` -> names of what can stand there."""


class ConfigError(ValueError):
    """A configuration that cannot run; the message says what to change."""


@dataclasses.dataclass
class EnvConfig:
    """Robot x task distribution x schedule. Presets name the objects themselves.

    Attributes:
      robot: the body.
      task: the family of tasks.
      schedule: when the task changes within an episode.
      num_train_tasks: size of the pool that training draws from.
      num_test_tasks: size of the pool that evaluation uses; drawn from its own key.
    """

    robot: Robot = dataclasses.field(default_factory=HalfCheetah)
    task: TaskDistribution = dataclasses.field(default_factory=Velocity)
    schedule: Schedule = dataclasses.field(default_factory=Stationary)
    num_train_tasks: int = 100
    num_test_tasks: int = 30

    def make(self) -> NonStationaryEnv:
        """Returns the environment."""
        return NonStationaryEnv(self.robot, self.task, self.schedule)


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
    """

    capacity: int = 1_000_000


@dataclasses.dataclass
class EncoderConfig:
    """The network that infers the task.

    Attributes:
      kind: one of `cemrl_jax.encoders.ENCODERS`.
      merge: how shared_y agrees on a class, one of `cemrl_jax.encoders.MERGES`.
      window_steps: T, transitions that it sees.
      num_classes: K, Gaussians in the mixture.
      latent_size: Z, size of the task variable.
      width_factor: width of its layers, in widths of its input.
    """

    kind: str = "shared_y"
    merge: str = "add"
    window_steps: int = 10
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
      component_constraint: tell the encoder the true base task.
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


@dataclasses.dataclass
class SACConfig:
    """Soft actor-critic on [observation, z].

    Attributes:
      batch_size: transitions in an update, a total over all devices; the ELBO's too.
      learning_rate: of actor, critic and temperature.
      hidden_size: width of the hidden layers.
      num_layers: number of hidden layers.
      discount: of future rewards.
      reward_scale: factor on rewards.
      target_rate: share of the critic that enters its target in a step.
      temperature: "learnt", "conditioned" (on z) or "fixed".
      initial_temperature: its start, or its value if fixed.
      target_entropy_factor: entropy to keep, in nats per action dimension, negated.
    """

    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden_size: int = 300
    num_layers: int = 3
    discount: float = 0.99
    reward_scale: float = 1.0
    target_rate: float = 0.005
    temperature: str = "learnt"
    initial_temperature: float = 1.0
    target_entropy_factor: float = 1.0


@dataclasses.dataclass
class TrainConfig:
    """What an epoch does after collecting.

    Attributes:
      num_epochs: epochs of the run.
      schedule: "fused" (each update trains the model and the policy on the same
        transitions) or "alternating" (the original's: first the model, with
        validation and early stopping, then the policy).
      num_updates: policy updates in an epoch; with "fused" model updates too.
      num_model_steps: with "alternating", model updates in an epoch at most.
      validation_interval: with "alternating", model steps from one validation to
        the next; with "fused", the memory of the loss weights in updates.
      validation_fold: one in so many transitions is for validation.
      early_stopping_steps: model steps without a better validation before it stops.
      precision: of matrix products in updates: "highest" (float32) or "default" (what
        the device does fastest: TF32 on recent NVIDIA GPUs, bfloat16 on TPUs, float32
        on CPUs). Physics and acting are always at the highest.
    """

    num_epochs: int = 500
    schedule: str = "fused"
    num_updates: int = 2000
    num_model_steps: int = 5000
    validation_interval: int = 50
    validation_fold: int = 5
    early_stopping_steps: int = 500
    precision: str = "highest"


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
      interval: epochs from one checkpoint to the next; the last epoch always has one.
      keep: number of latest checkpoints to keep; the best one is kept as well.
      replay: save the replay too, which `--resume` needs to continue the same run.
    """

    interval: int = 10
    keep: int = 2
    replay: bool = True


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

    def validate(self, num_devices: int) -> None:
        """Checks every rule.

        Raises:
          ConfigError: lists each broken rule with the field, its value and the rule.
        """
        problems = type_problems(self)
        if not problems:
            problems = [
                *self._choice_problems(),
                *self._range_problems(),
                *self._device_problems(num_devices),
                *self._replay_problems(),
                *self._env_problems(),
            ]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def replay_length(self) -> int:
        """L, transitions kept per environment: whole episodes, no more than needed."""
        rollout = self.rollout
        episodes = self.replay.capacity // (rollout.num_envs * rollout.num_steps)
        needed = rollout.num_initial + self.train.num_epochs
        return min(episodes, needed) * rollout.num_steps

    def _choice_problems(self) -> list[str]:
        choices = {
            "encoder.kind": ENCODERS,
            "encoder.merge": MERGES,
            "elbo.prior": ("fixed", "learnt"),
            "sac.temperature": ("learnt", "conditioned", "fixed"),
            "train.schedule": ("fused", "alternating"),
            "train.precision": ("highest", "default"),
        }
        return [
            f"{field}={value!r} must be one of {', '.join(allowed)}"
            + nearest(value, allowed)
            for field, allowed in choices.items()
            if (value := get_field(self, field)) not in allowed
        ]

    def _range_problems(self) -> list[str]:
        return [
            f"{field}={get_field(self, field)} must be {rule}"
            for rule, (holds, fields) in _RANGES.items()
            for field in fields
            if not holds(get_field(self, field))
        ]

    def _device_problems(self, num_devices: int) -> list[str]:
        return [
            f"{field}={value} must be a multiple of the {num_devices} devices"
            for field in ("rollout.num_envs", "sac.batch_size")
            if (value := get_field(self, field)) % num_devices
        ]

    def _replay_problems(self) -> list[str]:
        collect = self.rollout.num_envs * self.rollout.num_steps
        if collect > 0 and self.replay.capacity < collect:
            return [
                f"replay.capacity={self.replay.capacity} must hold at least one"
                f" collect, rollout.num_envs * rollout.num_steps = {collect}"
            ]
        fold, length = self.train.validation_fold, self.rollout.num_steps
        if self.train.schedule == "alternating" and 0 < length < fold:
            return [
                f"train.validation_fold={fold} must not exceed"
                f" rollout.num_steps={length}"
            ]
        return []

    def _env_problems(self) -> list[str]:
        problems = [
            f"env.{part}.{problem}"
            for part in TABLES
            for problem in getattr(getattr(self.env, part), "validate", list)()
        ]
        if problems or self.elbo.state_size < 1:
            return problems
        try:
            env = self.env.make()
        except ValueError as error:
            return [f"env.task does not suit env.robot: {error}"]
        obs_size = env.obs_size
        if self.elbo.state_size > obs_size:
            problems.append(
                f"elbo.state_size={self.elbo.state_size} must not exceed the"
                f" {obs_size} entries of an observation"
            )
        classes = self.encoder.num_classes
        bases = getattr(env.distribution, "num_base_tasks", 1)
        if self.elbo.component_constraint and classes < bases:
            problems.append(
                f"encoder.num_classes={classes} must be at least {bases}, the number of"
                " base tasks, with elbo.component_constraint"
            )
        return problems


_RANGES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "at least 1": (
        lambda value: value >= 1,
        (
            "num_seeds",
            "env.num_train_tasks",
            "env.num_test_tasks",
            "rollout.num_envs",
            "rollout.num_steps",
            "replay.capacity",
            "encoder.window_steps",
            "encoder.num_classes",
            "encoder.latent_size",
            "elbo.state_size",
            "sac.batch_size",
            "sac.hidden_size",
            "sac.num_layers",
            "train.num_epochs",
            "train.num_updates",
            "train.num_model_steps",
            "train.validation_interval",
            "train.early_stopping_steps",
            "evaluation.interval",
            "evaluation.num_episodes",
            "checkpoint.interval",
            "checkpoint.keep",
        ),
    ),
    "at least 2": (lambda value: value >= 2, ("train.validation_fold",)),
    "0 or more": (
        lambda value: value >= 0,
        ("seed", "rollout.num_initial", "elbo.kl_z_weight", "elbo.kl_y_weight"),
    ),
    "above 0": (
        lambda value: value > 0,
        (
            "encoder.width_factor",
            "elbo.learning_rate",
            "elbo.decoder_width_factor",
            "elbo.prior_std",
            "sac.learning_rate",
            "sac.reward_scale",
            "sac.initial_temperature",
        ),
    ),
    "between 0 and 1": (lambda value: 0 <= value <= 1, ("sac.discount",)),
    "above 0 and at most 1": (lambda value: 0 < value <= 1, ("sac.target_rate",)),
    "not empty": (bool, ("name", "output_dir")),
}
"""Rule -> its test and the fields that it holds for."""


def get_field(config: Any, path: str) -> Any:
    """Returns the value at a dotted path.

    Raises:
      ConfigError: there is no such field; names the nearest one.
    """
    value = config
    for name in path.split("."):
        if not dataclasses.is_dataclass(value) or name not in _field_names(value):
            known = field_paths(config)
            raise ConfigError(f"unknown field {path}{nearest(path, known)}")
        value = getattr(value, name)
    return value


def field_paths(config: Any, prefix: str = "") -> list[str]:
    """Returns the dotted paths of all fields, in order, without the branches."""
    paths = []
    for name in _field_names(config):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            paths += field_paths(value, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def field_docs(config: Any, prefix: str = "") -> dict[str, str]:
    """Returns dotted path -> what the field means, from the classes' docstrings."""
    docs = {}
    text = inspect.getdoc(type(config)) or ""
    entries = re.findall(r"^  (\w+): ((?:.|\n    )*)", text, re.MULTILINE)
    own = {name: " ".join(words.split()) for name, words in entries}
    for name in _field_names(config):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            docs |= field_docs(value, f"{prefix}{name}.")
        else:
            docs[prefix + name] = own.get(name, "")
    return docs


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as plain data; objects of an environment get a name."""
    result = {}
    for name in _field_names(config):
        value = getattr(config, name)
        if name in TABLES and isinstance(config, EnvConfig):
            result[name] = {"name": _name_of(value, TABLES[name]), **to_dict(value)}
        else:
            result[name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return result


def from_dict(data: dict[str, Any], kind: type[Kind] = Config) -> Kind:
    """Makes a configuration from what `to_dict` returned; missing fields get defaults.

    Args:
      data: the fields by name.
      kind: class of the configuration.

    Raises:
      ConfigError: an unknown field or name, or a value of the wrong type.
    """
    return _fill(kind(), data, "")


def save(config: Any, path: pathlib.Path) -> None:
    """Writes a configuration as JSON."""
    path.write_text(json.dumps(to_dict(config), indent=2) + "\n")


def load(path: pathlib.Path, kind: type[Kind] = Config) -> Kind:
    """Reads what `save` wrote of a configuration of this class.

    Raises:
      ConfigError: no such file, not JSON, or not a configuration.
    """
    return from_dict(read_json(path), kind)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      ConfigError: no such file, or it holds none.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return data


def named(part: str, name: str) -> Any:
    """Returns the robot, task distribution or schedule of a name, with its defaults.

    A name with a colon is `module:Class`, which must be importable.

    Raises:
      ConfigError: unknown name; names the nearest known one.
    """
    table = TABLES[part]
    if name in table:
        return table[name]()
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"env.{part}={name!r} cannot be imported") from error
    raise ConfigError(
        f"env.{part}={name!r} must be one of {', '.join(table)}{nearest(name, table)}"
    )


def _fill(config: Any, data: dict[str, Any], prefix: str) -> Any:
    for name, value in data.items():
        path = prefix + name
        if name not in _field_names(config):
            known = [prefix + field for field in _field_names(config)]
            raise ConfigError(f"unknown field {path}{nearest(path, known)}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}={value!r} must be an object")
            if isinstance(config, EnvConfig):
                value = dict(value)
                current = named(name, str(value.pop("name", "")))
            value = _fill(current, value, path + ".")
        elif isinstance(value, list):
            value = tuple(value)
        setattr(config, name, value)
    return config


def type_problems(config: Any, prefix: str = "") -> list[str]:
    """Returns a complaint for each field whose value is not of its type."""
    problems = []
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            problems += type_problems(value, path + ".")
            continue
        expected = _plain_type(field.type)
        if expected is float and type(value) is int:
            value = float(value)
            setattr(config, field.name, value)
        if expected in (int, float, str, bool, tuple) and type(value) is not expected:
            article = "an" if expected is int else "a"
            problems.append(f"{path}={value!r} must be {article} {expected.__name__}")
        elif expected not in (int, float, str, bool, tuple):
            problems.append(f"{path}={value!r} must be an object of its kind")
    return problems


def _plain_type(annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    return annotation if origin in (None, types.UnionType) else origin


def _field_names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _name_of(value: Any, table: dict[str, Any]) -> str:
    for name, kind in table.items():
        if type(value) is kind:
            return name
    return f"{type(value).__module__}:{type(value).__qualname__}"


def nearest(name: Any, known: Any) -> str:
    """Returns a hint at the known name that is most like `name`, if one is."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""
