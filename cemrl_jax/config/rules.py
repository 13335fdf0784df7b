"""The rules that a configuration must keep."""

import math
from typing import Any

from cemrl_jax.agents.cemrl.bounds import CONTEXTS
from cemrl_jax.agents.cemrl.encoders import ENCODERS, MERGES
from cemrl_jax.config.fields import (
    ConfigError,
    field_paths,
    get_field,
    lookup,
    nearest,
    type_problems,
)
from cemrl_jax.data import packing
from cemrl_jax.data.replay import DECODED
from cemrl_jax.envs import engines
from cemrl_jax.envs.groups import Groups
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.evaluation.cases import metric_names


def problems(config: Any, num_devices: int) -> list[str]:
    """Returns each rule that a `Config` breaks, with the field and its value."""
    return (
        type_problems(config)
        or _finite_problems(config)
        or [
            *_choice_problems(config),
            *_range_problems(config),
            *_packing_problems(config),
            *_device_problems(config, num_devices),
            *_replay_problems(config),
            *_segment_problems(config, num_devices),
            *_decoder_problems(config),
            *_env_problems(config, num_devices),
        ]
    )


def _choice_problems(config: Any) -> list[str]:
    choices = {
        "encoder.merge": MERGES,
        "elbo.decode": DECODED,
        "elbo.prior": ("fixed", "learnt"),
        "sac.context": CONTEXTS,
        "sac.temperature": ("learnt", "conditioned", "fixed"),
        "train.schedule": ("fused", "alternating"),
        "train.precision": ("highest", "default"),
        "checkpoint.metric": ("auto", *metric_names(config.env.schedule)),
    }
    problems = [
        f"{field}={value!r} must be one of {', '.join(allowed)}"
        + nearest(value, allowed)
        for field, allowed in choices.items()
        if (value := get_field(config, field)) not in allowed
    ]
    try:
        lookup("encoder.kind", config.encoder.kind, ENCODERS)
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _finite_problems(config: Any) -> list[str]:
    values = {field: get_field(config, field) for field in field_paths(config)}
    return [
        f"{field}={value} must be finite"
        for field, value in values.items()
        for entry in (value if isinstance(value, tuple) else (value,))
        if isinstance(entry, float) and not math.isfinite(entry)
    ]


def _range_problems(config: Any) -> list[str]:
    return [
        f"{field}={get_field(config, field)} must be {rule}"
        for rule, (holds, fields) in _RANGES.items()
        for field in fields
        if not holds(get_field(config, field))
    ]


def _packing_problems(config: Any) -> list[str]:
    limits = {
        "rollout.num_steps": packing.MAX_STEPS,
        "env.num_train_tasks": packing.MAX_TASKS,
    }
    return [
        f"{field}={value} must be at most {limit}, what the replay has bits for"
        for field, limit in limits.items()
        if (value := get_field(config, field)) > limit
    ]


def _device_problems(config: Any, num_devices: int) -> list[str]:
    return [
        f"{field}={value} must be a multiple of the {num_devices} devices"
        for field in ("rollout.num_envs", "sac.batch_size")
        if (value := get_field(config, field)) % num_devices
    ]


def _replay_problems(config: Any) -> list[str]:
    collect = config.rollout.num_envs * config.rollout.num_steps
    rate = config.train.updates_per_step
    if collect > 0 and rate > 0 and round(rate * collect) < 1:
        return [
            f"train.updates_per_step={rate} gives no update for the {collect} steps of"
            f" an epoch: set it to {1 / collect:.2g} or more, or to 0 for"
            " train.num_updates"
        ]
    by_capacity = config.replay.num_collects == 0
    if by_capacity and collect > 0 and config.replay.capacity < collect:
        return [
            f"replay.capacity={config.replay.capacity} must hold at least one"
            f" collect, rollout.num_envs * rollout.num_steps = {collect}; or set"
            " replay.num_collects"
        ]
    fold, length = config.train.validation_fold, config.rollout.num_steps
    if _validates(config) and 0 < length < fold:
        return [
            f"train.validation_fold={fold} must not exceed rollout.num_steps={length}"
        ]
    steps, interval = (
        config.train.num_world_model_steps,
        config.train.validation_interval,
    )
    if _validates(config) and 1 < steps <= interval:
        return [
            f"train.num_world_model_steps={steps} must be above"
            f" train.validation_interval={interval}: only the first step would be"
            " validated, and the others dropped. Or set train.early_stopping_steps=0"
        ]
    return []


def _segment_problems(config: Any, num_devices: int) -> list[str]:
    windows, batch = config.elbo.windows_per_segment, config.sac.batch_size
    if windows <= 1:
        return []
    field = f"elbo.windows_per_segment={windows}"
    problems = []
    if config.encoder.kind == "trajectory":
        problems.append(
            f"{field} must be 1 with encoder.kind='trajectory', which has nothing that"
            " windows could share: it does not embed single transitions"
        )
    if windows > config.rollout.num_steps > 0:
        problems.append(
            f"{field} must not exceed rollout.num_steps={config.rollout.num_steps}"
        )
    if batch % (num_devices * windows) and not batch % num_devices:
        problems.append(
            f"{field} must divide the {batch // num_devices} transitions that"
            f" sac.batch_size={batch} gives each device"
        )
    return problems


def _decoder_problems(config: Any) -> list[str]:
    schedule = config.env.schedule
    if config.elbo.decode != "task" or isinstance(schedule, Stationary):
        return []
    return [
        "elbo.decode='task' must be 'current' or 'episode' with env.schedule="
        f"{schedule}: it finds episodes by the task that they begin with, so tasks must"
        " stay"
    ]


def warnings(config: Any) -> list[str]:
    """Returns what was set in a valid `Config` although it has no effect."""
    default = type(config)()
    return [
        f"{field}={value!r} has no effect because {reason}"
        for holds, reason, fields in _IDLE
        if holds(config)
        for field in fields
        if (value := get_field(config, field)) != get_field(default, field)
    ]


def _validates(config: Any) -> bool:
    train = config.train
    return train.schedule == "alternating" and train.early_stopping_steps > 0


_IDLE: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
    (
        lambda config: config.elbo.prior == "learnt",
        "elbo.prior='learnt' learns its own",
        ("elbo.prior_std",),
    ),
    (
        lambda config: config.sac.temperature == "conditioned",
        "sac.temperature='conditioned' starts from a network",
        ("sac.initial_temperature",),
    ),
    (
        lambda config: config.sac.temperature == "fixed",
        "sac.temperature='fixed' aims at no entropy",
        ("sac.target_entropy_factor",),
    ),
    (
        lambda config: config.encoder.kind != "shared_y",
        "only encoder.kind='shared_y' merges classes",
        ("encoder.merge",),
    ),
    (
        lambda config: config.train.schedule == "fused",
        "train.schedule='fused' has no phase of its own for the world model",
        ("train.num_world_model_steps", "train.early_stopping_steps"),
    ),
    (
        lambda config: not _validates(config),
        "only train.schedule='alternating' with train.early_stopping_steps above 0"
        " validates",
        ("train.validation_interval", "train.validation_fold"),
    ),
    (
        lambda config: _validates(config),
        "train.schedule='alternating' weighs the errors at each validation",
        ("elbo.loss_weight_memory",),
    ),
    (
        lambda config: (
            config.train.schedule == "alternating"
            or config.elbo.windows_per_segment == 1
        ),
        "its transitions are independent already (it is for train.schedule='fused' with"
        " elbo.windows_per_segment above 1)",
        ("sac.independent_transitions",),
    ),
    (
        lambda config: config.train.updates_per_step > 0,
        "train.updates_per_step is set",
        ("train.num_updates",),
    ),
    (
        lambda config: config.replay.num_collects > 0,
        "replay.num_collects is set",
        ("replay.capacity",),
    ),
)
"""When fields have no effect, why, and which."""


def _env_problems(config: Any, num_devices: int) -> list[str]:
    problems = [
        f"env.{part}.{problem}"
        for part in ("robot", "task", "schedule")
        for problem in getattr(getattr(config.env, part), "validate", list)()
    ]
    try:
        engines.resolve(config.env.engine)
    except ValueError as error:
        problems.append(f"env.{error}")
    if problems or config.elbo.state_size < 1 or config.encoder.latent_size < 1:
        return problems
    try:
        env = config.env.make()
    except ValueError as error:
        return [f"env.task does not suit env.robot: {error}"]
    obs_size = env.obs_size
    if config.elbo.state_size > obs_size:
        problems.append(
            f"elbo.state_size={config.elbo.state_size} must not exceed the"
            f" {obs_size} entries of an observation"
        )
    seen = config.encoder.obs_size
    if seen and not config.elbo.state_size <= seen <= obs_size:
        problems.append(
            f"encoder.obs_size={seen} must be 0, or from elbo.state_size="
            f"{config.elbo.state_size} to the {obs_size} entries of an observation"
        )
    classes = config.encoder.num_classes
    bases = getattr(env.distribution, "num_base_tasks", 1)
    bases = getattr(env.distribution, "num_train_bases", bases)
    if config.elbo.component_constraint and classes < bases:
        problems.append(
            f"encoder.num_classes={classes} must be at least {bases}, the number of"
            " base tasks, with elbo.component_constraint"
        )
    if isinstance(env, Groups):
        problems += _group_problems(config, env, num_devices)
    return problems + _width_problems(config, seen or obs_size, env.action_size)


def _group_problems(config: Any, env: Groups, num_devices: int) -> list[str]:
    """Returns what keeps tasks of several models from their places."""
    num_bases, others = env.num_bases, env.elsewhere
    factors = {
        "env.num_train_tasks": 1,
        "env.num_test_tasks": num_devices,
        "rollout.num_envs": num_devices,
    }
    problems = [
        f"{field}={value} must be a multiple of {num_bases * factor}, the"
        f" {num_bases} tasks of several models on each device"
        for field, factor in factors.items()
        if (value := get_field(config, field)) % (num_bases * factor)
    ]
    if others is not None and config.env.num_test_tasks % others.num_bases:
        problems.append(
            f"env.num_test_tasks={config.env.num_test_tasks} must be a multiple of"
            f" {others.num_bases}, the other tasks to be tested on"
        )
    if config.evaluation.num_episodes != 1:
        problems.append(
            f"evaluation.num_episodes={config.evaluation.num_episodes} must be 1 with"
            " tasks of several models"
        )
    return problems


def _width_problems(config: Any, seen_size: int, action_size: int) -> list[str]:
    encoder = config.encoder
    at_once = encoder.window_steps if encoder.kind == "trajectory" else 1
    inputs = {
        "encoder.width_factor": at_once * (2 * seen_size + action_size + 1),
        "elbo.decoder_width_factor": seen_size + action_size + encoder.latent_size,
    }
    return [
        f"{field}={factor} leaves no unit of a layer: it must be at least"
        f" {1 / size:.2g}, one over the {size} inputs"
        for field, size in inputs.items()
        if (factor := get_field(config, field)) > 0 and size * factor < 1
    ]


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
            "train.num_world_model_steps",
            "train.validation_interval",
            "elbo.loss_weight_memory",
            "elbo.windows_per_segment",
            "evaluation.interval",
            "evaluation.num_episodes",
            "checkpoint.interval",
            "checkpoint.keep",
        ),
    ),
    "at least 2": (lambda value: value >= 2, ("train.validation_fold",)),
    "0 or more": (
        lambda value: value >= 0,
        (
            "seed",
            "rollout.num_initial",
            "encoder.obs_size",
            "elbo.kl_z_weight",
            "elbo.kl_y_weight",
            "replay.num_collects",
            "train.updates_per_step",
            "train.early_stopping_steps",
            "train.max_hours",
        ),
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
    "above 0 and at most 1": (
        lambda value: 0 < value <= 1,
        ("sac.target_rate", "train.final_learning_rate"),
    ),
    "not empty": (bool, ("name", "output_dir", "logging.project")),
}
"""Rule -> its test and the fields that it holds for."""
