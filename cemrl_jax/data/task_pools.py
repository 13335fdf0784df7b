"""The tasks of a run, as a file: so that a run keeps them, whatever draws them."""

import pathlib

import jax.numpy as jnp
import numpy as np

from cemrl_jax.envs import Task

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
    np.savez(directory / FILE, **arrays)


def load(directory: pathlib.Path) -> dict[str, Task]:
    """Returns what `save` wrote, by name of the pool."""
    with np.load(directory / FILE) as file:
        arrays = {name: jnp.asarray(file[name]) for name in file.files}
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
