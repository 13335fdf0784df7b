"""The folder in which JAX keeps compiled programs for the next start."""

import atexit
import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import IO

import jax

CHECKED = "cemrl_checked"
"""File whose time says when the entries of a folder were last looked at."""
ENTRIES = "*-cache"
"""What JAX calls its entries."""
LOCK = "lock"
OWN = "process-"
"""How the folder of a process begins."""
ZSTD = b"\x28\xb5\x2f\xfd"
"""How an entry begins where JAX has Zstandard (Python 3.14) and does not use zlib."""


def use(folder: str) -> None:
    """Makes JAX keep compiled programs in a folder, unless it is "off".

    On CPU devices this process has a copy of its own, see `own_copy`, and small
    programs are kept too: together they take as long as loading the large ones.
    On accelerators XLA's autotuner keeps its results there as well, and the folder's
    name is part of what an entry is found by, so all processes use the same: only
    programs that take a second, since the more are written the more often one is read
    while it is.

    Args:
      folder: on this machine, or an address of a bucket.
    """
    if folder == "off":
        return
    if "://" not in folder:
        with contextlib.suppress(OSError):  # JAX says what it cannot read or write
            remove_broken(pathlib.Path(folder))
            if jax.default_backend() == "cpu":
                stack = contextlib.ExitStack()
                use_own(stack.enter_context(own_copy(pathlib.Path(folder))))
                atexit.register(stack.close)
                return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def use_own(folder: pathlib.Path) -> None:
    """Makes JAX keep all programs in a folder that no other process writes."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # Else an entry's key would depend on where the folder is.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


@contextlib.contextmanager
def own_copy(shared: pathlib.Path, days: float = 30.0) -> Iterator[pathlib.Path]:
    """Gives a process a compile cache of its own that begins as the shared one.

    JAX does not write entries atomically, and a process that reads one while another
    writes it crashes. Here nobody else writes where a process reads. It begins with
    all whole entries that others have by then, of processes that were killed too, and
    its own are for all when it ends.

    Args:
      shared: the folder of all processes; links to its entries are made, not copies.
      days: entries that nobody has read for so long are removed.

    Raises:
      OSError: the folder cannot be written, or knows neither links nor locks.
    """
    shared.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(shared):
            own = pathlib.Path(tempfile.mkdtemp(prefix=OWN, dir=shared))
            stack.callback(shutil.rmtree, own, ignore_errors=True)
            stack.enter_context(_locked(own))
            for other in shared.glob(OWN + "*"):
                if other != own:
                    _give(other, shared)
                    _remove_left_behind(other)
            for entry in shared.glob(ENTRIES):
                times = entry.stat()
                if max(times.st_atime, times.st_mtime) < time.time() - 86_400 * days:
                    entry.unlink()
                else:
                    os.link(entry, own / entry.name)
        yield own
        with contextlib.suppress(OSError), _locked(shared):  # the folder may be gone
            _give(own, shared)
            stack.close()  # while nobody looks into it


def _locked(folder: pathlib.Path, wait: bool = True) -> IO[str]:
    """Returns the open lock of a folder, which is this process's until it is closed.

    Raises:
      BlockingIOError: another process has it, and this one should not wait.
    """
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        file.close()
        raise
    return file


def _give(own: pathlib.Path, shared: pathlib.Path) -> None:
    """Links the whole entries of a process's folder that the shared one lacks."""
    for entry in own.glob(ENTRIES):
        place = shared / entry.name
        if not place.exists() and _is_whole(entry.read_bytes()):
            os.link(entry, place)


def _remove_left_behind(other: pathlib.Path) -> None:
    """Removes the folder of a process that was killed."""
    with contextlib.suppress(BlockingIOError), _locked(other, wait=False):
        shutil.rmtree(other)


def remove_broken(folder: pathlib.Path) -> None:
    """Removes the entries of a folder that a killed process has left half written.

    JAX would warn of them and compile, and never replace them. Looks at those written
    since the last time. One that is being written goes too, which costs no more than
    to compile it once more.
    """
    if not folder.is_dir():
        return
    marker = folder / CHECKED
    since = marker.stat().st_mtime_ns if marker.exists() else 0
    now = folder / f"{CHECKED}.{os.getpid()}"
    now.touch()  # before looking: what is written from here on is for the next time
    for entry in folder.glob(ENTRIES):
        if entry.stat().st_mtime_ns >= since and not _is_whole(entry.read_bytes()):
            entry.unlink(missing_ok=True)
    now.replace(marker)


def _is_whole(entry: bytes) -> bool:
    """Returns whether an entry can be unpacked; one of Zstandard is not tried."""
    if entry.startswith(ZSTD):
        return True
    try:
        zlib.decompress(entry)
    except zlib.error:
        return False
    return True
