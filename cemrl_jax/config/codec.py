"""Configurations as JSON, and the names of what stands in them."""

import dataclasses
import json
import pathlib
from typing import Any, TypeVar

from cemrl_jax.config.fields import ConfigError, field_names, lookup, unknown
from cemrl_jax.config.schema import Config, EnvConfig
from cemrl_jax.envs import ROBOTS, SCHEDULES, TASKS
from cemrl_jax.runtime import files

Kind = TypeVar("Kind")

TABLES = {"robot": ROBOTS, "task": TASKS, "schedule": SCHEDULES}
"""Field of `EnvConfig` -> names of what can stand there."""


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as plain data; objects of an environment get a name."""
    result = {}
    for name in field_names(config):
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
      ConfigError: an unknown field or name, or a value where fields belong. Types of
        values are for `Config.validate`.
    """
    return _fill(kind(), data, "")


def save(config: Any, path: pathlib.Path) -> None:
    """Writes a configuration as JSON."""
    files.write(path, (json.dumps(to_dict(config), indent=2) + "\n").encode())


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
    return lookup(f"env.{part}", name, TABLES[part])()


def _fill(config: Any, data: dict[str, Any], prefix: str) -> Any:
    for name, value in data.items():
        path = prefix + name
        if name not in field_names(config):
            known = [prefix + field for field in field_names(config)]
            raise unknown(path, known, field_names(config))
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


def _name_of(value: Any, table: dict[str, Any]) -> str:
    for name, kind in table.items():
        if type(value) is kind:
            return name
    return f"{type(value).__module__}:{type(value).__qualname__}"
