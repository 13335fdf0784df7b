"""Fields of nested configurations: paths, docs, types."""

import dataclasses
import difflib
import importlib
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot run; the message says what to change."""


def get_field(config: Any, path: str) -> Any:
    """Returns the value at a dotted path.

    Raises:
      ConfigError: there is no such field; names the nearest one, or all of its group.
    """
    value = config
    for name in path.split("."):
        if not dataclasses.is_dataclass(value):
            raise unknown(path, field_paths(config), [])
        if name not in field_names(value):
            raise unknown(path, field_paths(config), field_names(value))
        value = getattr(value, name)
    return value


def lookup(field: str, name: str, table: Mapping[str, Any]) -> Any:
    """Returns what a name in a field stands for: in a table, or `module:attribute`.

    Raises:
      ConfigError: unknown name, with the nearest known one; or it cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(
            f"{field}={name!r} must be one of {', '.join(table)}{nearest(name, table)}"
        )
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's program
        raise ConfigError(
            f"{field}={name!r} cannot be imported, which needs its file's folder on"
            f" PYTHONPATH: {type(error).__name__}: {error}"
        ) from error


def field_paths(config: Any, prefix: str = "") -> list[str]:
    """Returns the dotted paths of all fields, in order, without the branches."""
    paths = []
    for name in field_names(config):
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
    for name in field_names(config):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            docs |= field_docs(value, f"{prefix}{name}.")
        else:
            docs[prefix + name] = own.get(name, "")
    return docs


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
        elif expected is tuple:
            problems += _entry_problems(config, field, path)
    return problems


def _entry_problems(config: Any, field: dataclasses.Field, path: str) -> list[str]:
    """Returns a complaint for each entry of a tuple that is not of its type."""
    wanted, value = typing.get_args(field.type)[:1], getattr(config, field.name)
    if wanted == (float,) and any(type(entry) is int for entry in value):
        value = tuple(float(x) if type(x) is int else x for x in value)
        setattr(config, field.name, value)
    return [
        f"{path}={value!r} must hold {kind.__name__} only, not {entry!r}"
        for kind in wanted
        for entry in value
        if kind in (int, float, str, bool) and type(entry) is not kind
    ]


def _plain_type(annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    return annotation if origin in (None, types.UnionType) else origin


def field_names(config: Any) -> list[str]:
    """Returns the names of a configuration's own fields, in order."""
    return [field.name for field in dataclasses.fields(config)]


def unknown(path: str, known: Sequence[str], group: Sequence[str]) -> ConfigError:
    """Returns the error of a path that leads to no field.

    Args:
      path: the path.
      known: paths that it may have meant.
      group: names of the fields beside which it looks for one.
    """
    hint = nearest(path, known)
    if group and not hint:
        hint = f"; known there: {', '.join(group)}"
    return ConfigError(f"unknown field {path}{hint}")


def nearest(name: Any, known: Any) -> str:
    """Returns a hint at the known name that is most like `name`, if one is."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""
