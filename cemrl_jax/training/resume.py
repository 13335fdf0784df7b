"""Going on from what a run has saved."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data import replay
from cemrl_jax.data.types import ReplayState, WorkerState
from cemrl_jax.envs import Task
from cemrl_jax.runtime import parallel
from cemrl_jax.training import changes, seeds, storage
from cemrl_jax.training.checkpoint import CheckpointError, Checkpoints
from cemrl_jax.training.run import POSITION, Run, start_run, stored_pools
from cemrl_jax.training.state import State, example_transition, first

LATEST = "latest"


def find_run(name: str, config: Config | None) -> pathlib.Path | None:
    """Returns the folder of the run that `--resume` names.

    Args:
      name: a folder; `latest` for the newest run of a configuration's name and seed in
        its output folder; `FOLDER/latest` for the newest run in a folder.
      config: what `latest` needs.

    Returns:
      The folder; None if `latest` finds none.

    Raises:
      ConfigError: there is none there.
    """
    path = pathlib.Path(name)
    if path.name != LATEST:
        if not (path / "config.json").is_file():
            raise ConfigError(f"--resume={name}: no run there (no config.json)")
        return path
    own = name == LATEST
    if own and config is None:
        raise ConfigError(
            "--resume=latest needs --config, or say --resume=FOLDER/latest"
        )
    folder = path.parent
    if own and config is not None:
        folder = pathlib.Path(config.output_dir, config.name)
    suffix = f"-{config.seed}" if own and config is not None else ""
    runs = sorted(folder.glob(f"*{suffix}/config.json"))
    if not runs and not own:
        raise ConfigError(f"--resume={name}: no run in {folder}")
    return runs[-1].parent if runs else None


def find_group(name: str, config: Config) -> list[pathlib.Path]:
    """Returns the folders of seeds that train together, which `--resume=latest` means.

    Args:
      name: `latest`.
      config: its name, first seed, number of seeds and output folder say which.

    Returns:
      The folders; none if there is no such run.

    Raises:
      ConfigError: the run of a seed is missing.
    """
    first_run = find_run(name, config)
    if first_run is None:
        return []
    started = first_run.name.rpartition("-")[0]
    seeds_ = range(config.seed, config.seed + config.num_seeds)
    folders = [first_run.with_name(f"{started}-{seed}") for seed in seeds_]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"num_seeds={config.num_seeds} with --resume=latest: the newest run"
                f" started {started} and has no {folder}; name the folders instead,"
                " --resume RUN RUN"
            )
    return folders


def is_finished(config: Config, directory: pathlib.Path) -> bool:
    """Returns whether the run in a folder has done all epochs of a configuration."""
    saved = storage.newest(directory)
    if saved is None:
        return False
    return saved.state["begun"] and saved.state["epoch"] >= config.train.num_epochs


def resume_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns the run in a folder as it was saved last.

    With as many devices as before it continues to the last digit. With another number
    the replay is shared out anew and the devices draw other random numbers. A run that
    has not saved anything begins again.

    Raises:
      CheckpointError: what was saved last cannot be read.
      ConfigError: the configuration has a field that the run cannot change.
    """
    changes.check_resume(config_lib.load(directory / "config.json"), config)
    saved = storage.newest(directory)
    if saved is None:
        return start_run(config, directory, stored_pools(config, directory))
    run = _restored(config, directory, saved)
    run.worker = parallel.place(run.worker)
    return run


def resume_together(
    config: Config, directories: Sequence[pathlib.Path]
) -> tuple[list[Run], State | None]:
    """Returns the runs of several seeds where all of them were saved last.

    What a seed has saved after that is deleted: it comes again.

    Args:
      config: of all of them, but for the seed.
      directories: their folders.

    Returns:
      The runs, without their state, and the joint state; None if they begin again,
      because nothing was saved.

    Raises:
      CheckpointError: what was saved cannot be read.
      ConfigError: a field that a run cannot change, or the runs do not fit together.
    """
    stored = [config_lib.load(path / "config.json") for path in directories]
    own = [dataclasses.replace(config, seed=x.seed, num_seeds=1) for x in stored]
    for old, new in zip(stored, own):
        changes.check_resume(old, new)
    points = [storage.saved(path) for path in directories]
    if not any(points):
        pools = [stored_pools(*pair) for pair in zip(own, directories)]
        runs = [Run(c, d, None, None, p) for c, d, p in zip(own, directories, pools)]
        return runs, None
    clock = _last_in_common(directories, points)
    runs = []
    for one, path, found in zip(own, directories, points):
        point = next(point for point in found if point.clock == clock)
        runs.append(_restored(one, path, point))
    if parallel.is_first_process():
        for found in points:
            for point in found:
                if point.clock > clock:
                    point.forget()
    learner = seeds.stack([run.learner for run in runs])
    worker = parallel.place(seeds.join([run.worker for run in runs]))
    for run in runs:
        run.learner = run.worker = None
    return runs, State(learner, worker)


def _last_in_common(
    directories: Sequence[pathlib.Path], points: Sequence[Sequence[storage.Saved]]
) -> int:
    """Returns the last clock at which all runs have saved.

    Raises:
      ConfigError: there is none.
    """
    common = set.intersection(*[{point.clock for point in found} for found in points])
    if common:
        return max(common)
    where = "\n".join(
        f"  {path}: "
        + (", ".join(f"epoch {point.state['epoch']}" for point in found) or "nothing")
        for path, found in zip(directories, points)
    )
    raise ConfigError(
        "--resume: seeds go on together from a point that all of them have saved, and"
        f" there is none; resume them one by one. Saved:\n{where}"
    )


def _restored(config: Config, directory: pathlib.Path, saved: storage.Saved) -> Run:
    """Returns a run with its learner on one device and its worker on the host."""
    if saved.state["ring"] is None:
        raise CheckpointError(
            f"epoch {saved.number} in {saved.folder} was saved with"
            " checkpoint.replay=False: it holds weights only, use --init-from"
        )
    pools = stored_pools(config, directory)
    env = config.env.make()
    like = jax.eval_shape(make_algorithm(config, env).init, jax.random.key(0))
    learner = saved.learner(like)
    ring = storage.Ring(**saved.state["ring"])
    example = example_transition(env, first(pools["train"]))
    data = storage.read_ring(directory, ring, jax.eval_shape(lambda: example))
    num_devices = parallel.num_devices()
    worker = WorkerState(
        replay=_replay(data, ring, num_devices, config.replay_length),
        key=_keys(saved.state["keys"], num_devices),
        tasks=_for_devices(pools["train"], num_devices),
    )
    where = {name: saved.state[name] for name in POSITION}
    return Run(config, directory, learner, worker, pools, **where)


def _replay(
    data: Any, ring: storage.Ring, num_devices: int, length: int
) -> ReplayState:
    """Shares experience `[E, L, ...]` out: `[D, E / D, length, ...]`, on the host."""
    split = jax.tree.map(
        lambda leaf: leaf.reshape(num_devices, -1, *leaf.shape[1:]), data
    )
    state = ReplayState(
        data=split,
        cursor=jnp.full(num_devices, ring.cursor, jnp.int32),
        size=jnp.full(num_devices, ring.held * ring.num_steps, jnp.int32),
    )
    return replay.resize(state, length)


def _keys(stored: list[list[int]], num_devices: int) -> jax.Array:
    """Returns the devices' keys; others where there were another number of devices."""
    keys = jax.random.wrap_key_data(jnp.array(stored, jnp.uint32))
    same = len(stored) == num_devices
    return keys if same else parallel.split_keys(keys[0], num_devices)


def _for_devices(tasks: Task, num_devices: int) -> Task:
    return jax.tree.map(lambda leaf: np.repeat(leaf[None], num_devices, 0), tasks)


def with_weights(
    config: Config, learner: Any, directory: pathlib.Path, num_seeds: int = 1
) -> Any:
    """Returns fresh learners with the best weights of another run.

    Args:
      config: of the learner.
      learner: fresh; with several seeds `[N, ...]`.
      directory: of the other run.
      num_seeds: N.

    Raises:
      CheckpointError: no checkpoint.
      ConfigError: no run, or networks of other shapes.
    """
    changes.check_weights(config_lib.load(directory / "config.json"), config)
    algorithm = make_algorithm(config, config.env.make())
    like = jax.eval_shape(algorithm.init, jax.random.key(0))
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        trained = saved.learner(saved.best(), like)
    transfer = lambda learner: algorithm.transfer(learner, trained)  # noqa: E731
    return seeds.for_seeds(transfer, num_seeds)(learner)
