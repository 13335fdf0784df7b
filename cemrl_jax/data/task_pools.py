"""The tasks of a run, as a file: so that a run keeps them, whatever draws them."""

import io
import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np

from cemrl_jax.config import ConfigError
from cemrl_jax.envs import Task
from cemrl_jax.runtime import files

PARTS = ("kind", "base", "spec", "number")
FILE = "tasks.npz"
"""Arrays `<pool>/<part>` and `<pool>/overrides/<field>`, all `[N, ...]`."""


def save(pools: dict[str, Task], directory: pathlib.Path) -> None:
    """Writes pools of tasks `[N]` into the folder of a run."""
    arrays = {}
    for name, tasks in pools.items():
        leaves = {part: getattr(tasks, part) for part in PARTS}
        leaves |= {
            f"overrides/{field}": value for field, value in tasks.overrides.items()
        }
        arrays |= {f"{name}/{leaf}": np.asarray(x) for leaf, x in leaves.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    files.write(directory / FILE, buffer.getvalue())


def load(directory: pathlib.Path) -> dict[str, Task]:
    """Returns what `save` wrote, by name of the pool.

    Raises:
      ConfigError: the file is damaged.
    """
    path = directory / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: jnp.asarray(file[name]) for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return {
        name: Task(
            **{part: arrays[f"{name}/{part}"] for part in PARTS},
            overrides={
                path.split("/")[2]: value
                for path, value in arrays.items()
                if path.startswith(f"{name}/overrides/")
            },
        )
        for name in dict.fromkeys(path.split("/")[0] for path in arrays)
    }
