"""What the scripts share: reading configurations and failing politely."""

import argparse
import dataclasses
import faulthandler
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import textwrap
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import jax
from absl import flags
from ml_collections import config_flags

from cemrl_jax import config as config_lib
from cemrl_jax.config import TABLES, Config, ConfigError
from cemrl_jax.original import config as original_config
from cemrl_jax.training.checkpoint import CheckpointError

Kind = TypeVar("Kind")

PRESETS = pathlib.Path(__file__).parent.parent / "configs"
BENCHMARK = "benchmark_"
"""How the names of benchmark presets begin; all others are for training."""
OVERRIDES = (
    """\
overrides:
  --config.a.b=value    replaces a field of the configuration; see the list below.
                        env.robot, env.task and env.schedule take a name and then
                        have fields of their own, which --config=... --help lists
"""
    + "\n".join(
        textwrap.fill(
            ", ".join(table),
            88,
            initial_indent=f"    env.{part:10}",
            subsequent_indent=" " * 18,
        )
        for part, table in TABLES.items()
    )
    + "\n"
)


def parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Returns a parser for a script, with the arguments that all scripts have."""
    result = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument(
        "--compile-cache",
        metavar="DIR",
        default=str(_default_cache()),
        help="folder that keeps compiled programs for the next start, or 'off'"
        " (default: %(default)s)",
    )
    return result


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a script's main function and turns failures into messages.

    Exits with what the function returns, or 0; with 2 for bad input, 1 for what went
    wrong later, 130 for Ctrl-C. A crash of native code says where it was called.
    """
    if sys.stderr and not faulthandler.is_enabled():
        faulthandler.enable()
    code = 0
    try:
        code = main() or 0
    except ConfigError as error:
        code = _complain("error", error, 2)
    except FloatingPointError as error:
        code = _complain("error", error, 1)
    except CheckpointError as error:
        _leave(_complain("error", error, 1))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _leave(_complain("error", f"{where}{error.strerror or error}", 1))
    except KeyboardInterrupt:
        code = _complain("stopped", "by the keyboard", 130)
    sys.stdout.flush()
    sys.exit(code)


def join_processes(distributed: str | None) -> None:
    """Joins the processes of a run on several hosts; must come before JAX is used.

    The first process speaks for all: the others print nothing but errors.

    Args:
      distributed: "auto" to find out from the cluster, or what `--distributed` takes
        as `HOST:PORT,COUNT,NUMBER`; None to stay alone.

    Raises:
      ConfigError: it is neither, or the cluster does not say.
    """
    if distributed is None:
        return
    if distributed == "auto":
        found: dict[str, Any] = {}
    else:
        parts = re.fullmatch(r"(\S+:\d+),(\d+),(\d+)", distributed)
        if not parts or not int(parts[3]) < int(parts[2]):
            raise ConfigError(
                f"--distributed={distributed} must be HOST:PORT,COUNT,NUMBER: address"
                " of the first process, how many there are, and which one this is"
                " (0 to COUNT - 1), or nothing where a cluster says so"
            )
        found = {
            "coordinator_address": parts[1],
            "num_processes": int(parts[2]),
            "process_id": int(parts[3]),
        }
    try:
        jax.distributed.initialize(**found)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"--distributed={distributed}: {error}") from error
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def read_config(
    path: str | None, overrides: Sequence[str], kind: type[Kind] = Config
) -> Kind:
    """Returns the configuration of a preset or JSON file with overrides.

    Args:
      path: a `configs/*.py` or a saved `config.json`.
      overrides: `--config.a.b=value` arguments.
      kind: class of the configuration.

    Raises:
      ConfigError: the file, a field's name or a value is wrong.
    """
    if path is None:
        raise ConfigError(f"--config=FILE is missing; presets: {_preset_names(kind)}")
    return override(load_file(pathlib.Path(path), kind), overrides)


def load_file(path: pathlib.Path, kind: type[Kind] = Config) -> Kind:
    """Returns the configuration of a class in a preset or a JSON file.

    The name of a preset stands for its file, also where there is no checkout. A JSON
    file of the original program is translated; its fields without effect are printed.

    Raises:
      ConfigError: it holds none.
    """
    named = PRESETS / f"{path.name}.py"
    if not path.is_file() and path.name == str(path) and named.is_file():
        path = named
    if not path.is_file():
        known = [f"configs/{preset.name}" for preset in PRESETS.glob("[a-z]*.py")]
        hint = config_lib.nearest(path, known)
        raise ConfigError(
            f"--config={path}: no such file{hint}; presets: {_preset_names(kind)}"
        )
    if path.suffix == ".json":
        data = config_lib.read_json(path)
        if not original_config.is_original(data):
            return config_lib.from_dict(data, kind)
        config, dropped = original_config.convert(data)
        print(f"{path} is a configuration of the original; without effect here:")
        print("\n".join(f"  {key}: {reason}" for key, reason in dropped) or "  nothing")
        return _checked(config, kind, path)
    if path.suffix != ".py":
        raise ConfigError(f"--config={path} must be a .py or a .json file")
    try:
        config = _imported(path).get_config()
    except Exception as error:  # a preset is a user's program
        raise ConfigError(
            f"--config={path} failed: {type(error).__name__}: {error}"
        ) from error
    return _checked(config, kind, path)


def _imported(path: pathlib.Path) -> types.ModuleType:
    """Imports a preset by the name of its file, or by its path if that name is taken.

    So `module:Class` finds what it defines, and the store of programs its code.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    taken = sys.modules.get(path.stem) or importlib.machinery.PathFinder.find_spec(
        path.stem
    )
    origin = getattr(taken, "__file__", None) or getattr(taken, "origin", None)
    module = importlib.util.module_from_spec(spec)
    own = taken is None or origin == spec.origin
    sys.modules[path.stem if own else str(path)] = module
    spec.loader.exec_module(module)
    return module


def _checked(config: Any, kind: type[Kind], path: pathlib.Path) -> Kind:
    """Returns the configuration if it is of the class."""
    if not isinstance(config, kind):
        raise ConfigError(
            f"--config={path}: get_config() must return a {kind.__name__}, and this is"
            f" a {type(config).__name__}"
        )
    return config


def override(config: Kind, overrides: Sequence[str]) -> Kind:
    """Applies `--config.a.b=value` arguments; types come from the schema.

    Raises:
      ConfigError: an unknown field, or a value of the wrong type.
    """
    rest = []
    for argument in overrides:
        part = re.fullmatch(r"--config\.((?:\w+\.)*env)\.(\w+)=(.*)", argument)
        if part and part[2] in TABLES:
            env = config_lib.get_field(config, part[1])
            setattr(env, part[2], config_lib.named(part[2], part[3]))
        else:
            rest.append(argument)
    for argument in rest:
        name = argument.split("=", 1)[0]
        if name.startswith("--") and not re.match(r"--(no)?config\.", name):
            raise ConfigError(f"unknown argument {argument}; see --help")
        if name.startswith("--"):
            value = config_lib.get_field(config, name.split("config.", 1)[1])
            if dataclasses.is_dataclass(value):
                raise ConfigError(f"{name} is a group; name one of its fields")
    values = flags.FlagValues()
    command = ["train", *rest]
    try:
        holder = config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=values, sys_argv=command
        )
        left = values(command)[1:]
    except (flags.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(_reworded(config, str(error))) from error
    if left:
        raise ConfigError(f"unknown argument {left[0]}; see --help")
    return holder.value


def describe(config: Any) -> str:
    """Returns all fields of a configuration with their values, one a line."""
    lines = []
    for path, text in config_lib.field_docs(config).items():
        lines.append(f"  --config.{path}={config_lib.get_field(config, path)}")
        lines += textwrap.wrap(
            text, 72, initial_indent=" " * 8, subsequent_indent=" " * 8
        )
    return "\n".join(["fields (with their values):", *lines])


def shown(arguments: Sequence[str]) -> Config:
    """Returns the configuration that --help describes: of the preset that is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("-h", "--help", action="store_true")
    args, _ = parser.parse_known_args(arguments)
    return read_config(args.config, []) if args.help and args.config else Config()


def _reworded(config: Any, message: str) -> str:
    """Returns what is wrong in this program's words, where they are known."""
    bad = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    if bad is None:
        return message
    expected = type(config_lib.get_field(config, bad[1])).__name__
    return f"{bad[1]}={bad[2]!r} must be of type {expected}"


def _default_cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return pathlib.Path(base).expanduser() / "cemrl_jax"


def load_presets() -> dict[str, Config]:
    """Returns name -> configuration of every training preset, by name."""
    return {path.stem: load_file(path) for path in _preset_files(Config)}


def _preset_files(kind: type[Any]) -> list[pathlib.Path]:
    """Returns the presets of a kind: for training, or else benchmarks."""
    files = [path for path in PRESETS.glob("[a-z]*.py") if path.name != "base.py"]
    wanted = [
        path for path in files if path.name.startswith(BENCHMARK) != (kind is Config)
    ]
    return sorted(wanted, key=lambda path: path.stem)


def _preset_names(kind: type[Any]) -> str:
    return ", ".join(f"configs/{path.name}" for path in _preset_files(kind))


def _leave(code: int) -> NoReturn:
    """Exits at once: orbax's threads would go on failing and fill the screen."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _complain(kind: str, message: object, code: int) -> int:
    print(f"{kind}: {message}", file=sys.stderr)
    return code
