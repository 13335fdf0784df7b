"""The rules that a configuration must keep."""

from typing import Any

from cemrl_jax.agents.cemrl.encoders import ENCODERS, MERGES
from cemrl_jax.config.fields import get_field, nearest, type_problems
from cemrl_jax.envs import engines
from cemrl_jax.evaluation.cases import metric_names


def problems(config: Any, num_devices: int) -> list[str]:
    """Returns each rule that a `Config` breaks, with the field and its value."""
    return type_problems(config) or [
        *_choice_problems(config),
        *_range_problems(config),
        *_device_problems(config, num_devices),
        *_replay_problems(config),
        *_env_problems(config),
    ]


def _choice_problems(config: Any) -> list[str]:
    choices = {
        "encoder.kind": ENCODERS,
        "encoder.merge": MERGES,
        "elbo.prior": ("fixed", "learnt"),
        "sac.temperature": ("learnt", "conditioned", "fixed"),
        "train.schedule": ("fused", "alternating"),
        "train.precision": ("highest", "default"),
        "checkpoint.metric": ("auto", *metric_names(config.env.schedule)),
    }
    return [
        f"{field}={value!r} must be one of {', '.join(allowed)}"
        + nearest(value, allowed)
        for field, allowed in choices.items()
        if (value := get_field(config, field)) not in allowed
    ]


def _range_problems(config: Any) -> list[str]:
    return [
        f"{field}={get_field(config, field)} must be {rule}"
        for rule, (holds, fields) in _RANGES.items()
        for field in fields
        if not holds(get_field(config, field))
    ]


def _device_problems(config: Any, num_devices: int) -> list[str]:
    return [
        f"{field}={value} must be a multiple of the {num_devices} devices"
        for field in ("rollout.num_envs", "sac.batch_size")
        if (value := get_field(config, field)) % num_devices
    ]


def _replay_problems(config: Any) -> list[str]:
    collect = config.rollout.num_envs * config.rollout.num_steps
    if collect > 0 and config.replay.capacity < collect:
        return [
            f"replay.capacity={config.replay.capacity} must hold at least one"
            f" collect, rollout.num_envs * rollout.num_steps = {collect}"
        ]
    fold, length = config.train.validation_fold, config.rollout.num_steps
    if config.train.schedule == "alternating" and 0 < length < fold:
        return [
            f"train.validation_fold={fold} must not exceed rollout.num_steps={length}"
        ]
    return []


def _env_problems(config: Any) -> list[str]:
    problems = [
        f"env.{part}.{problem}"
        for part in ("robot", "task", "schedule")
        for problem in getattr(getattr(config.env, part), "validate", list)()
    ]
    try:
        engines.resolve(config.env.engine)
    except ValueError as error:
        problems.append(f"env.{error}")
    if problems or config.elbo.state_size < 1:
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
    classes = config.encoder.num_classes
    bases = getattr(env.distribution, "num_base_tasks", 1)
    if config.elbo.component_constraint and classes < bases:
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
            "train.num_world_model_steps",
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
        (
            "seed",
            "rollout.num_initial",
            "elbo.kl_z_weight",
            "elbo.kl_y_weight",
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
    "above 0 and at most 1": (lambda value: 0 < value <= 1, ("sac.target_rate",)),
    "not empty": (bool, ("name", "output_dir", "logging.project")),
}
"""Rule -> its test and the fields that it holds for."""
