"""Checkpoints: orbax, asynchronous, the last ones and the best."""

import contextlib
import hashlib
import json
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

from cemrl_jax.config import ConfigError

FORMAT = 2
"""Of what `save` writes; 1 held the replay in each checkpoint."""
METRIC = "value"
"""Name under which orbax stores what the best checkpoint is best at."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message says which and why."""


class Checkpoints:
    """Checkpoints of a learner and of where its run is, by number.

    The learner is saved without a device axis and so restores on any number of
    devices. Use as a context, which waits for what is still being written.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        keep: int = 1,
        read_only: bool = False,
        keep_best: bool = True,
    ) -> None:
        """Opens a folder.

        Args:
          directory: the folder; created when it is first written.
          keep: number of latest checkpoints to keep, the best one apart.
          read_only: never write.
          keep_best: keep the best one.

        Raises:
          CheckpointError: `read_only` and there is no checkpoint.
        """
        self._directory = directory.absolute()
        if read_only and not self._directory.is_dir():
            raise CheckpointError(f"no checkpoints in {directory}")
        policies: list[Any] = [LatestN(keep)]
        if keep_best:
            policies.append(BestN(get_metric_fn=_value, n=1))
        with _explained(f"cannot open {directory}"), _quiet_if(read_only):
            options = ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                best_fn=_value,
                create=not read_only,
                read_only=read_only,
                multiprocessing_options=_alone() if read_only else _together(),
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        best = self._manager.best_step()
        metrics: Any = None if best is None else self._manager.metrics(best)
        self._best_value = _value(metrics or {})
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
        """Returns the number of the newest checkpoint."""
        return self._existing(self._manager.latest_step())

    def best(self) -> int:
        """Returns the number of the checkpoint with the highest value."""
        return self._existing(self._manager.best_step())

    def is_best(self, value: float) -> bool:
        """Returns whether no checkpoint has a value as high as this."""
        return value > self._best_value

    def epochs(self) -> list[int]:
        """Returns the numbers that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def find(self, name: str) -> int:
        """Returns the epoch of the checkpoint called "best", "latest" or a number.

        Raises:
          ConfigError: there is none of this name; says which there are.
        """
        if name in ("best", "latest"):
            return self.best() if name == "best" else self.latest()
        epochs = self.epochs()
        if not name.isdigit() or int(name) not in epochs:
            known = ", ".join(map(str, epochs))
            raise ConfigError(
                f"--checkpoint={name} must be best, latest or one of {known}"
            )
        return int(name)

    def save(
        self,
        epoch: int,
        learner: Any,
        state: dict[str, Any],
        value: float,
    ) -> None:
        """Writes a checkpoint in the background.

        Args:
          epoch: names it.
          learner: what is learnt.
          state: what else the run needs to know, as JSON has it.
          value: of the run's `checkpoint.metric`; the best checkpoint has the highest.

        Raises:
          CheckpointError: this or an earlier one could not be written, or it is not
            newer than what is there.
        """
        require_space(self._directory, _num_bytes(learner), f"epoch {epoch}")
        state = {"format": FORMAT, "learner": _digest_of(learner), **state}
        state["checksum"] = _checksum(state)
        items: dict[str, Any] = {
            "learner": ocp.args.StandardSave(learner),  # pyright: ignore[reportCallIssue]
            "state": ocp.args.JsonSave(state),  # pyright: ignore[reportCallIssue]
        }
        with _explained(f"cannot save epoch {epoch} to {self._directory}"):
            begun = self._manager.save(
                epoch,
                args=ocp.args.Composite(**items),
                metrics={METRIC: value},
            )
        if not begun:
            raise CheckpointError(
                f"cannot save epoch {epoch} to {self._directory}: it holds epoch"
                f" {self.latest()}, and what is saved must be newer"
            )
        self._best_value = max(self._best_value, value)

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          CheckpointError: something could not be.
        """
        with _explained(f"cannot write to {self._directory}"):
            self._manager.wait_until_finished()

    def state(self, epoch: int) -> dict[str, Any]:
        """Returns what was saved beside the learner.

        Raises:
          CheckpointError: it is damaged, or an earlier version of the program wrote it.
        """
        if self._is_old(epoch):
            raise CheckpointError(
                f"epoch {epoch} in {self._directory} was saved by an earlier version:"
                " the run cannot go on, but --init-from takes its weights"
            )
        item = ocp.args.Composite(state=ocp.args.JsonRestore())
        state = self._restore(epoch, item)["state"]
        if not isinstance(state, dict) or state.get("checksum") != _checksum(state):
            raise self._damaged(epoch, "state")
        return state

    def learner(self, epoch: int, like: Any) -> Any:
        """Returns a learner on one device.

        Args:
          epoch: which checkpoint.
          like: shapes and dtypes of a learner of the run's configuration.

        Raises:
          CheckpointError: it is damaged, or of other shapes.
        """
        target = ocp.args.StandardRestore(_on_one_device(like, jax.local_devices()[0]))  # pyright: ignore[reportCallIssue]
        learner = self._restore(epoch, ocp.args.Composite(learner=target))["learner"]
        if self._is_old(epoch):
            return learner
        if self.state(epoch)["learner"] != _digest_of(learner):
            raise self._damaged(epoch, "learner")
        return learner

    def _is_old(self, epoch: int) -> bool:
        """Whether a version wrote it that had no checksums."""
        return (self._directory / str(epoch) / "counters").is_dir()

    def _restore(self, epoch: int, args: ocp.args.Composite) -> Any:
        with (
            _explained(
                f"cannot read epoch {epoch} in {self._directory}", self._way_out(epoch)
            ),
            _quiet_if(True),
        ):
            return self._manager.restore(epoch, args=args)

    def _damaged(self, epoch: int, part: str) -> CheckpointError:
        return CheckpointError(
            f"cannot read epoch {epoch} in {self._directory}: {part} is damaged, its"
            f" checksum does not match{self._way_out(epoch)}"
        )

    def _way_out(self, epoch: int) -> str:
        older = [other for other in self.epochs() if other < epoch]
        if not older:
            return ""
        return f"; remove {self._directory / str(epoch)} to go on from {older[-1]}"

    def _existing(self, epoch: int | None) -> int:
        if epoch is None:
            raise CheckpointError(f"no checkpoint in {self._directory}")
        return epoch


def _value(metrics: Any) -> float:
    """Returns what the best checkpoint is best at; a damaged file makes none best."""
    return metrics.get(METRIC, float("-inf"))


def require_space(directory: pathlib.Path, size: int, what: str) -> None:
    """Checks that a disk has room for so many bytes.

    Raises:
      CheckpointError: it has not.
    """
    free = shutil.disk_usage(directory).free
    if free < size:
        raise CheckpointError(
            f"cannot save {what} to {directory}: it takes up to"
            f" {size / 2**20:.1f} MiB and the disk has {free / 2**20:.1f} MiB free;"
            " make room or set checkpoint.replay=False"
        )


def _num_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _digest_of(learner: Any) -> str:
    """Returns a digest of a learner's leaves, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(learner):
        own = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        digest.update(np.ascontiguousarray(own).tobytes())
    return digest.hexdigest()


def _checksum(state: dict[str, Any]) -> str:
    """Returns a digest of a state, apart from its checksum."""
    own = {name: value for name, value in state.items() if name != "checksum"}
    text = json.dumps(own, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextlib.contextmanager
def _explained(what: str, way_out: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # orbax raises many kinds, also from its threads
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{what}: {reason}{way_out}") from error


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


def _on_one_device(tree: Any, device: Any) -> Any:
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )
