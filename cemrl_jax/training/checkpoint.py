"""Checkpoints: orbax, asynchronous, the last ones and the best."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.data.types import WorkerState

METRIC = "value"
"""Name under which orbax stores what the best checkpoint is best at."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message says which and why."""


class Checkpoints:
    """The checkpoints of one run, by epoch.

    The learner is saved without a device axis and so restores on any number of
    devices. Use as a context, which waits for what is still being written.
    """

    def __init__(
        self, directory: pathlib.Path, keep: int = 1, read_only: bool = False
    ) -> None:
        """Opens a folder.

        Args:
          directory: the folder; created when it is first written.
          keep: number of latest checkpoints to keep, the best one apart.
          read_only: never write.

        Raises:
          CheckpointError: `read_only` and there is no checkpoint.
        """
        self._directory = directory.absolute()
        if read_only and not self._directory.is_dir():
            raise CheckpointError(f"no checkpoints in {directory}")
        policy = AnyPreservationPolicy(
            [
                LatestN(keep),
                BestN(get_metric_fn=lambda metrics: metrics[METRIC], n=1),
            ]
        )
        with _explained(f"cannot open {directory}"), _quiet_if(read_only):
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=lambda metrics: metrics[METRIC],
                create=not read_only,
                read_only=read_only,
                multiprocessing_options=_alone() if read_only else _together(),
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        best = self._manager.best_step()
        metrics: Any = None if best is None else self._manager.metrics(best)
        self._best_value = metrics[METRIC] if metrics else float("-inf")
        if read_only and self._manager.latest_step() is None:
            raise CheckpointError(f"no complete checkpoint in {directory}")

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for what is being written; an earlier failure is not covered up."""
        try:
            with _explained(f"cannot write to {self._directory}"):
                self._manager.close()
        except CheckpointError:
            if exception[0] is None:
                raise

    def latest(self) -> int:
        """Returns the epoch of the newest checkpoint."""
        return self._existing(self._manager.latest_step())

    def best(self) -> int:
        """Returns the epoch of the checkpoint with the highest value."""
        return self._existing(self._manager.best_step())

    def is_best(self, value: float) -> bool:
        """Returns whether no checkpoint has a value as high as this."""
        return value > self._best_value

    def epochs(self) -> list[int]:
        """Returns the epochs that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        epoch: int,
        learner: LearnerState,
        worker: WorkerState | None,
        counters: dict[str, int],
        value: float,
    ) -> None:
        """Writes a checkpoint in the background.

        Args:
          epoch: names it.
          learner: what is learnt.
          worker: `[D, ...]`, or None to save weights that cannot be resumed from.
          counters: what else the run needs to know.
          value: of the run's `checkpoint.metric`; the best checkpoint has the highest.

        Raises:
          CheckpointError: this or an earlier one could not be written.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((learner, worker)))
        free = shutil.disk_usage(self._directory).free
        if free < size:
            raise CheckpointError(
                f"cannot save epoch {epoch} to {self._directory}: it takes up to"
                f" {size / 2**20:.1f} MiB and the disk has {free / 2**20:.1f} MiB free;"
                f" make room or set checkpoint.replay=False"
            )
        items: dict[str, Any] = {
            "learner": ocp.args.StandardSave(learner),  # pyright: ignore[reportCallIssue]
            "counters": ocp.args.JsonSave(counters),  # pyright: ignore[reportCallIssue]
        }
        if worker is not None:
            items["worker"] = ocp.args.StandardSave(_plain_key(worker))  # pyright: ignore[reportCallIssue]
        with _explained(f"cannot save epoch {epoch} to {self._directory}"):
            self._manager.save(
                epoch,
                args=ocp.args.Composite(**items),
                metrics={METRIC: value},
            )
        self._best_value = max(self._best_value, value)

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          CheckpointError: something could not be.
        """
        with _explained(f"cannot write to {self._directory}"):
            self._manager.wait_until_finished()

    def counters(self, epoch: int) -> dict[str, int]:
        """Returns what was saved as counters."""
        item = ocp.args.Composite(counters=ocp.args.JsonRestore())
        return self._restore(epoch, item)["counters"]

    def learner(self, epoch: int, like: LearnerState) -> LearnerState:
        """Returns a learner on one device.

        Args:
          epoch: which checkpoint.
          like: shapes and dtypes of a learner of the run's configuration.
        """
        target = ocp.args.StandardRestore(_on_one_device(like, jax.local_devices()[0]))  # pyright: ignore[reportCallIssue]
        return self._restore(epoch, ocp.args.Composite(learner=target))["learner"]

    def worker(self, epoch: int, like: WorkerState) -> WorkerState:
        """Returns workers as arrays of the host, `[D, ...]` as they were saved.

        Args:
          epoch: which checkpoint.
          like: shapes and dtypes, with the number of devices of the saving run.

        Raises:
          CheckpointError: the run saved no replay.
        """
        with _quiet_if(True):
            saved = self._manager.item_metadata(epoch)
        if "worker" not in saved:
            raise CheckpointError(
                f"epoch {epoch} in {self._directory} was saved with"
                " checkpoint.replay=False: it holds weights only, use --init-from"
            )
        like = jax.eval_shape(_plain_key, like)
        host = jax.local_devices(backend="cpu")[0]
        target = ocp.args.StandardRestore(_on_one_device(like, host))  # pyright: ignore[reportCallIssue]
        saved = self._restore(epoch, ocp.args.Composite(worker=target))["worker"]
        saved = jax.tree.map(np.asarray, saved)
        return saved.replace(key=jax.random.wrap_key_data(saved.key))

    def _restore(self, epoch: int, args: ocp.args.Composite) -> Any:
        with (
            _explained(f"cannot read epoch {epoch} in {self._directory}"),
            _quiet_if(True),
        ):
            return self._manager.restore(epoch, args=args)

    def _existing(self, epoch: int | None) -> int:
        if epoch is None:
            raise CheckpointError(f"no checkpoint in {self._directory}")
        return epoch


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # orbax raises many kinds, also from its threads
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{what}: {reason}") from error


@contextlib.contextmanager
def _quiet_if(reading: bool) -> Iterator[None]:
    """Keeps orbax from warning that it only reads, and only a part."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR if reading else before)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _together() -> ocp.options.MultiprocessingOptions:
    """All processes write one checkpoint, each what its devices hold."""
    return ocp.options.MultiprocessingOptions()


def _alone() -> ocp.options.MultiprocessingOptions:
    """Each process reads for itself, without waiting for others if there are any."""
    number = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=number,
        active_processes={number},
        barrier_sync_key_prefix=f"process_{number}",
    )


def _plain_key(worker: WorkerState) -> WorkerState:
    return worker.replace(key=jax.random.key_data(worker.key))


def _on_one_device(tree: Any, device: Any) -> Any:
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )
