"""Trained agents in a few hundred kB: configuration, tasks, weights."""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.config import ConfigError
from cemrl_jax.data import task_pools
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.run import stored_pools
from cemrl_jax.training.state import learner_shapes
from cemrl_jax.training.storage import CHECKPOINTS

FILE = "weights.npz"
"""The leaves that acting needs, by their path in a `LearnerState`; and `epoch`."""


def is_packed(directory: pathlib.Path) -> bool:
    """Returns whether a folder holds packed weights in place of checkpoints."""
    return (directory / FILE).exists()


def pack(run: pathlib.Path, target: pathlib.Path, checkpoint: str = "best") -> int:
    """Writes what is needed to act, to analyse and to fine-tune into a new folder.

    Optimisers, target critic and replay stay behind.

    Args:
      run: folder of the run.
      target: the new folder.
      checkpoint: "best", "latest" or an epoch.

    Returns:
      The size of the folder, bytes.
    """
    config = config_lib.load(run / "config.json")
    with Checkpoints(run / CHECKPOINTS, read_only=True) as saved:
        epoch = saved.find(checkpoint)
        learner = saved.learner(epoch, learner_shapes(config))
    target.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: np.asarray(x) for name, x in _leaves(learner).items() if _kept(name)
    }
    arrays["epoch"] = np.asarray(epoch)
    np.savez_compressed(target / FILE, **arrays)  # pyright: ignore[reportArgumentType]
    config_lib.save(config, target / "config.json")
    task_pools.save(stored_pools(config, run), target)
    for name in ("progress.csv", "run.json", "compile.json"):
        if (run / name).exists():
            shutil.copy(run / name, target / name)
    return sum(path.stat().st_size for path in target.iterdir())


def epoch(directory: pathlib.Path) -> int:
    """Returns the epoch of the packed weights."""
    with np.load(directory / FILE) as file:
        return int(file["epoch"])


def learner(directory: pathlib.Path, like: LearnerState) -> LearnerState:
    """Returns a learner with packed weights; what was not packed is zero.

    Args:
      directory: the folder that `pack` wrote.
      like: shapes and dtypes of a learner of its configuration.

    Raises:
      ConfigError: the weights are of other networks.
    """
    with np.load(directory / FILE) as file:
        arrays = {name: file[name] for name in file.files}

    def fill(path: Any, leaf: Any) -> Any:
        name = _name(path)
        if name not in arrays:
            return np.zeros(leaf.shape, leaf.dtype)
        if arrays[name].shape != leaf.shape:
            raise ConfigError(
                f"{directory / FILE}: {name} has shape {arrays[name].shape} and the"
                f" configuration asks for {leaf.shape}"
            )
        return arrays[name].astype(leaf.dtype)

    filled = jax.tree_util.tree_map_with_path(fill, like)
    return jax.tree.map(jax.numpy.asarray, filled)


def _leaves(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(path: Any) -> str:
    return "".join(str(part) for part in path).lstrip(".")


def _kept(name: str) -> bool:
    return "opt_state" not in name and not name.startswith("target_critic")
