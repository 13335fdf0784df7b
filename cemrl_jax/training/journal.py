"""The experience of a run on disk: a file for each collect, written once.

A collect's transitions never change, so checkpoints name them instead of copying them.
A file is `<collect>.<process>of<processes>.<digest>.npz`: what one process's devices
collected, with the digest of its content in its name. It holds arrays, never pickles.
"""

import dataclasses
import hashlib
import io
import pathlib
import re
from collections.abc import Collection

import jax
import numpy as np

from cemrl_jax.data.types import Transition
from cemrl_jax.runtime import files
from cemrl_jax.training.checkpoint import CheckpointError, require_space

NAME = re.compile(r"(\d{8})\.(\d+)of(\d+)\.([0-9a-f]{16})\.npz")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A file of the journal.

    Attributes:
      path: the file.
      collect: number of the collect, from 0.
      process: which process wrote it.
      num_processes: how many wrote a file for this collect.
      digest: of its content.
    """

    path: pathlib.Path
    collect: int
    process: int
    num_processes: int
    digest: str


class Journal:
    """The files of one run."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Of a folder, which is created when it is first written."""
        self._directory = directory

    def chunks(self) -> list[Chunk]:
        """Returns the files that are there, oldest collect first."""
        if not self._directory.is_dir():
            return []
        found = []
        for path in self._directory.iterdir():
            if parts := NAME.fullmatch(path.name):
                numbers = [int(parts[place]) for place in (1, 2, 3)]
                found.append(Chunk(path, *numbers, digest=parts[4]))
        return sorted(found, key=lambda chunk: (chunk.collect, chunk.process))

    def write(self, collect: int, rows: Transition) -> None:
        """Writes what this process's devices collected.

        Args:
          collect: its number.
          rows: arrays of the host `[E, n, ...]`, by device, then environment.

        Raises:
          CheckpointError: it could not.
        """
        content = _packed(rows)
        process, count = jax.process_index(), jax.process_count()
        name = f"{collect:08d}.{process}of{count}.{_digest(content)}.npz"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            require_space(self._directory, len(content), f"collect {collect}")
            files.write(self._directory / name, content)
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self._directory / name}: {error.strerror or error}"
            ) from error

    def read(self, collect: int, like: Transition) -> Transition:
        """Returns the transitions `[E, n, ...]` of a collect, of all processes.

        Args:
          collect: its number.
          like: one transition, for the structure and the dtypes.

        Raises:
          CheckpointError: a file is missing, is damaged, or holds something else.
        """
        parts = [chunk for chunk in self.chunks() if chunk.collect == collect]
        expected = parts[0].num_processes if parts else 1
        if [part.process for part in parts] != list(range(expected)):
            raise CheckpointError(
                f"{self._directory}/{collect:08d}.*.npz: {len(parts)} of {expected}"
                f" files with the experience of collect {collect} are there"
            )
        rows = [_unpacked(part, like) for part in parts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)

    def keep(self, collects: Collection[int], before: int) -> None:
        """Deletes other collects than these among those numbered below `before`.

        Later ones may be files that another process is just writing.
        """
        for chunk in self.chunks():
            if chunk.collect < before and chunk.collect not in collects:
                chunk.path.unlink(missing_ok=True)

    def sweep(self, start: int) -> None:
        """Deletes what an earlier start left unfinished; no process may be writing.

        Args:
          start: the first collect that no checkpoint counts.
        """
        for partial in self._directory.glob("*.partial"):
            partial.unlink(missing_ok=True)
        for chunk in self.chunks():
            if chunk.collect >= start:
                chunk.path.unlink(missing_ok=True)


def _packed(rows: Transition) -> bytes:
    leaves = jax.tree_util.tree_leaves_with_path(rows)
    buffer = io.BytesIO()
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(chunk: Chunk, like: Transition) -> Transition:
    try:
        content = chunk.path.read_bytes()
        if _digest(content) != chunk.digest:
            raise CheckpointError(f"{chunk.path}: damaged, its checksum does not match")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            leaves, structure = jax.tree_util.tree_flatten_with_path(like)
            found = [arrays[jax.tree_util.keystr(path)] for path, _ in leaves]
    except OSError as error:
        raise CheckpointError(f"{chunk.path}: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{chunk.path} holds other data: {error}") from error
    for (path, leaf), array in zip(leaves, found):
        if array.dtype != leaf.dtype or array.shape[2:] != leaf.shape:
            raise CheckpointError(
                f"{chunk.path} holds {jax.tree_util.keystr(path)} as"
                f" {array.dtype}{list(array.shape[2:])}, and this run has"
                f" {leaf.dtype}{list(leaf.shape)}"
            )
    return structure.unflatten(found)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
