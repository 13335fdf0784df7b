"""Turns weights of the original PyTorch CEMRL into a run that can be evaluated."""

import pathlib
import shutil
import tempfile
import zipfile

import jax
import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import task_pools
from cemrl_jax.original.weights import from_torch, import_weights, unused
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.run import make_pools

EXAMPLES = """\
examples:
  python scripts/import_weights.py --config=configs/cheetah_stationary_vel.py \\
      --weights=original.npz --run=output/original
  python scripts/evaluate.py --run=output/original

The configuration must describe the networks that the weights belong to. The arrays have
the names of the original's state dictionaries (encoder/shared_encoder.fc0.weight, ...)
or those of cemrl_jax/original/weights.py (encoder/shared/fc0/kernel, ...). A folder
holds an .npy file for each array, in subfolders as in its name, or .npz files.
stats_observations_mean, stats_observations_std and the same of actions, rewards and
next_observations set the normalizer.

"""


def main() -> None:
    """Reads the command line and imports."""
    epilog = EXAMPLES + command_line.OVERRIDES
    parser = command_line.parser("Imports weights of the original.", epilog)
    parser.add_argument(
        "--config", metavar="FILE", help="a preset in configs/ or a saved config.json"
    )
    parser.add_argument(
        "--weights", metavar="PATH", required=True, help="an .npz file or a folder"
    )
    parser.add_argument(
        "--run", metavar="RUN", required=True, help="folder to make for the result"
    )
    args, overrides = parser.parse_known_args()
    config = command_line.read_config(args.config, overrides)
    config.validate(1)
    directory = pathlib.Path(args.run)
    if directory.exists():
        raise ConfigError(f"--run={directory} exists already")
    arrays = from_torch(read_arrays(pathlib.Path(args.weights)))
    env = config.env.make()
    agent = agent_for(config, env)
    learner = jax.jit(agent.init)(jax.random.key(config.seed))
    learner = import_weights(agent, learner, arrays)
    write_run(config, learner, directory)
    ignored = ", ".join(sorted({name.split("/")[0] for name in unused(agent, arrays)}))
    print(f"not used by this configuration: {ignored}" if ignored else "all used")
    print(f"run in {directory}")


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file, or of the npz and npy files in a folder.

    Raises:
      ConfigError: there are none, or a file cannot be read.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.np[yz]"))
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        try:
            content = np.load(file)
            if isinstance(content, np.ndarray):
                name = file.relative_to(path).with_suffix("").as_posix()
                arrays[name] = content
            else:
                arrays |= dict(content)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"--weights: cannot read {file}: {error}") from error
    if not arrays:
        raise ConfigError(f"--weights={path} holds no arrays (.npz or .npy)")
    return arrays


def write_run(config: Config, learner: LearnerState, directory: pathlib.Path) -> None:
    """Writes a run of one checkpoint, of epoch 0; the folder appears when complete."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        unfinished = pathlib.Path(folder) / directory.name
        unfinished.mkdir()
        config_lib.save(config, unfinished / "config.json")
        task_pools.save(make_pools(config), unfinished)
        with Checkpoints(unfinished / "checkpoints") as checkpoints:
            state = {"epoch": 0, "begun": True, "clock": 0, "ring": None}
            checkpoints.save(0, learner, state, value=float("-inf"))
            checkpoints.wait()
        shutil.move(unfinished, directory)


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-import-weights`."""
    command_line.run(main)
