"""Which fields a run may change when it goes on or hands on its weights."""

import fnmatch
from typing import Any

import jax

from cemrl_jax import config as config_lib
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.training import state

MAY_CHANGE = (
    "output_dir",
    "tensorboard",
    "replay.capacity",
    "replay.num_collects",
    "elbo.learning_rate",
    "sac.learning_rate",
    "train.num_epochs",
    "train.num_updates",
    "train.updates_per_step",
    "train.num_world_model_steps",
    "train.early_stopping_steps",
    "train.precision",
    "train.max_hours",
    "evaluation.*",
    "checkpoint.*",
    "logging.*",
)
"""Fields that `--resume` may give another value: what is stored stays meaningful."""

SHAPES = (
    "env.robot.*",
    "env.task.*",
    "encoder.kind",
    "encoder.obs_size",
    "encoder.window_steps",
    "encoder.num_classes",
    "encoder.latent_size",
    "encoder.width_factor",
    "elbo.decoder_width_factor",
    "elbo.state_size",
    "elbo.prior",
    "sac.context",
    "sac.hidden_size",
    "sac.num_layers",
    "sac.critic_layer_norm",
    "sac.normalize_obs",
    "sac.temperature",
)
"""Fields that decide the networks' shapes, or what they see."""


def check_resume(stored: Config, given: Config) -> None:
    """Checks that a run may go on with another configuration.

    Raises:
      ConfigError: names each field that must stay, its value stored and given.
    """
    problems = [
        f"{field}={new} must stay {old}"
        for field, (old, new) in differences(stored, given).items()
        if not _matches(field, MAY_CHANGE)
    ]
    if problems:
        raise ConfigError(
            "\n".join(problems)
            + "\nA run can go on with other values of "
            + ", ".join(MAY_CHANGE)
            + " only; start another with --config and --init-from"
        )


def check_weights(stored: Config, given: Config) -> None:
    """Checks that networks of one configuration take the weights of another.

    Raises:
      ConfigError: names each field that decides their shapes, or what they see, and
        differs.
    """
    if _form(stored) == _form(given):
        return
    problems = [
        f"{field}={new} must be {old}, as in the run whose weights --init-from takes"
        for field, (old, new) in differences(stored, given).items()
        if _matches(field, SHAPES)
    ]
    raise ConfigError(
        "\n".join(problems) or "--init-from: that run's networks have other shapes"
    )


def differences(stored: Config, given: Config) -> dict[str, tuple[Any, Any]]:
    """Returns each field that differs, with its values; None where there is none."""
    old, new = (_flat(config_lib.to_dict(config)) for config in (stored, given))
    return {
        field.removesuffix(".name") if field.startswith("env.") else field: (
            old.get(field),
            new.get(field),
        )
        for field in new | old
        if old.get(field) != new.get(field)
    }


def _matches(field: str, patterns: tuple[str, ...]) -> bool:
    return any(
        fnmatch.fnmatch(field, pattern) or field == pattern.removesuffix(".*")
        for pattern in patterns
    )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields = {}
    for name, value in data.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


def _form(config: Config) -> Any:
    leaves, structure = jax.tree.flatten(state.learner_shapes(config))
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
    return structure, shapes, config.sac.normalize_obs
