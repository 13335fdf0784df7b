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
from cemrl_jax.runtime import parallel
from cemrl_jax.training import changes, seeds, storage
from cemrl_jax.training.checkpoint import CheckpointError, Checkpoints
from cemrl_jax.training.run import POSITION, Run, start_run, stored_pools
from cemrl_jax.training.state import (
    State,
    example_transition,
    first,
    initial_worker,
    learner_shapes,
)

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
    if own and config is not None:
        return max(_runs_of(config), default=None)
    runs = sorted(path.parent.glob("*/config.json"))
    if not runs:
        raise ConfigError(f"--resume={name}: no run in {path.parent}")
    return runs[-1].parent


def _runs_of(config: Config) -> list[pathlib.Path]:
    """Returns the folders of the runs of a name and a seed, oldest first."""
    folder = pathlib.Path(config.output_dir, config.name)
    found = folder.glob(f"*-{config.seed}/config.json")
    return sorted(path.parent for path in found)


def find_group(config: Config) -> list[pathlib.Path]:
    """Returns the folders of seeds that train together, which `--resume=latest` means.

    A start that was killed while it made its folders does not count: it has saved
    nothing.

    Args:
      config: its name, first seed, number of seeds and output folder say which.

    Returns:
      The folders; none if there is no such run.

    Raises:
      ConfigError: the run of a seed is missing.
    """
    for first_run in reversed(_runs_of(config)):
        started = first_run.name.rpartition("-")[0]
        seeds_ = range(config.seed, config.seed + config.num_seeds)
        folders = [first_run.with_name(f"{started}-{seed}") for seed in seeds_]
        missing = [x for x in folders if not (x / "config.json").is_file()]
        if not missing:
            return folders
        if not all(storage.is_empty(folder) for folder in folders):
            raise ConfigError(
                f"num_seeds={config.num_seeds} with --resume=latest: the newest run"
                f" started {started} and has no {missing[0]}; name the folders instead,"
                " --resume RUN RUN"
            )
        print(f"{first_run} is passed over: it saved nothing, and has no {missing[0]}")
    return []


def is_finished(config: Config, directory: pathlib.Path) -> bool:
    """Returns whether the run in a folder has done all epochs of a configuration."""
    saved = storage.newest(directory)
    if saved is None:
        return False
    return saved.state["begun"] and saved.state["epoch"] >= config.train.num_epochs


@dataclasses.dataclass(frozen=True)
class Reopened:
    """Runs that go on together: where they stand is known, their state is not read.

    Attributes:
      runs: without their state, where all of them were saved last.
      points: what each saved there; none if nothing was saved and they begin again.
      later: what some saved after that, which comes again.
    """

    runs: list[Run]
    points: list[storage.Saved]
    later: list[storage.Saved]

    def restore(self) -> State | None:
        """Returns the joint state that was saved; None if the runs begin again.

        With as many devices as before they continue to the last digit. With another
        number the replay is shared out anew and the devices draw other random numbers.
        What a seed has saved later than the others is deleted.

        Raises:
          CheckpointError: what was saved cannot be read.
        """
        if not self.points:
            return None
        like = learner_shapes(self.runs[0].config)
        learner = seeds.stack([point.learner(like) for point in self.points])
        worker = _worker(self.runs, self.points)
        if parallel.is_first_process():
            for point in self.later:
                point.forget()
        return State(learner, worker)


def reopen(config: Config, directories: Sequence[pathlib.Path]) -> Reopened:
    """Returns the runs of several seeds, or of one, where all of them were saved last.

    Args:
      config: of all of them, but for the seed where there are several.
      directories: their folders.

    Raises:
      CheckpointError: what says where a run stands cannot be read.
      ConfigError: a field that a run cannot change, or the runs do not fit together.
    """
    stored = [config_lib.load(path / "config.json") for path in directories]
    own = [config]
    if len(directories) > 1:
        own = [dataclasses.replace(config, seed=x.seed, num_seeds=1) for x in stored]
    for old, new in zip(stored, own):
        changes.check_resume(old, new)
    runs = [
        Run(one, path, None, None, stored_pools(one, path))
        for one, path in zip(own, directories)
    ]
    if len(directories) == 1:
        newest = storage.newest(directories[0])
        points = [[newest] if newest else []]
    else:
        points = [storage.saved(path) for path in directories]
    if not any(points):
        return Reopened(runs, [], [])
    clock = _last_in_common(directories, points)
    chosen = [next(x for x in found if x.clock == clock) for found in points]
    for run, point in zip(runs, chosen):
        if point.state["ring"] is None:
            raise CheckpointError(
                f"epoch {point.number} in {point.folder} was saved with"
                " checkpoint.replay=False: it holds weights only, use --init-from"
            )
        for name in POSITION:
            setattr(run, name, point.state[name])
    later = [point for found in points for point in found if point.clock > clock]
    return Reopened(runs, chosen, later)


def resume_run(config: Config, directory: pathlib.Path) -> Run:
    """Returns the run in a folder as it was saved last, see `reopen` and `restore`.

    A run that has not saved anything begins again.
    """
    reopened = reopen(config, [directory])
    (run,) = reopened.runs
    state = reopened.restore()
    if state is None:
        return start_run(config, directory, run.pools)
    run.learner, run.worker = state.learner, state.worker
    return run


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


def _worker(runs: Sequence[Run], points: Sequence[storage.Saved]) -> WorkerState:
    """Returns the joint worker of runs as it was saved.

    The experience goes to the devices collect by collect, so that beside the replay
    there is never more than one collect in memory.
    """
    config, num_devices = runs[0].config, parallel.num_devices()
    pools = [run.pools["train"] for run in runs]
    worker = initial_worker(config, [run.config.seed for run in runs], pools)
    rings = [storage.Ring(**point.state["ring"]) for point in points]
    places = layout(rings, config.replay_length)
    example = example_transition(config.env.make(), first(pools[0]))
    like, data = jax.eval_shape(lambda: example), worker.replay.data
    for collect, start in places.starts.items():
        rows = [storage.read_collect(run.directory, collect, like) for run in runs]
        parts = [
            jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), one)
            for one in rows
        ]
        chunk = parts[0]
        if len(parts) > 1:
            chunk = jax.tree.map(lambda *x: np.stack(x, 1), *parts)
        data = replay.paste(data, parallel.place(chunk), start)
        jax.block_until_ready(data)  # else waiting chunks pile up
    counts = np.full((2, num_devices), [[places.cursor], [places.size]], np.int32)
    cursor, size = parallel.place(list(counts))
    keys = [_keys(point.state["keys"], num_devices) for point in points]
    key = keys[0] if len(keys) == 1 else jnp.stack(keys, 1)
    return worker.replace(
        replay=ReplayState(data=data, cursor=cursor, size=size),
        key=parallel.place(key),
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where collects go in a ring; counts are per environment.

    Attributes:
      starts: collect -> its first transition.
      cursor: where the next transition goes.
      size: transitions held.
    """

    starts: dict[int, int]
    cursor: int
    size: int


def layout(rings: Sequence[storage.Ring], length: int) -> Layout:
    """Returns the layout of what all rings held in one of a length.

    As it was, if they were as long; in one that is longer or shorter the newest
    collects that fit, from its beginning on.
    """
    ring = rings[0]
    if length == ring.length and all(other == ring for other in rings):
        starts = {number: ring.start(number) for number in ring.numbers}
        return Layout(starts, ring.cursor, ring.held * ring.num_steps)
    held = min(length // ring.num_steps, *(other.held for other in rings))
    newest = range(ring.collects - held, ring.collects)
    starts = {number: place * ring.num_steps for place, number in enumerate(newest)}
    size = held * ring.num_steps
    return Layout(starts, size % length, size)


def _keys(stored: list[list[int]], num_devices: int) -> jax.Array:
    """Returns the devices' keys; others where there were another number of devices."""
    keys = jax.random.wrap_key_data(jnp.array(stored, jnp.uint32))
    same = len(stored) == num_devices
    return keys if same else parallel.split_keys(keys[0], num_devices)


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
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        trained = saved.learner(saved.best(), learner_shapes(config))
    algorithm = make_algorithm(config, config.env.make())
    transfer = lambda learner: algorithm.transfer(learner, trained)  # noqa: E731
    return seeds.for_seeds(transfer, num_seeds)(learner)
