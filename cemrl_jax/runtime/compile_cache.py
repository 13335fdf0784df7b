"""The folder in which JAX keeps compiled programs for the next start."""

import contextlib
import os
import pathlib
import zlib

import jax

CHECKED = "cemrl_checked"
"""File whose time says when the entries of a folder were last looked at."""
ZSTD = b"\x28\xb5\x2f\xfd"
"""How an entry begins where JAX has Zstandard (Python 3.14) and does not use zlib."""


def use(folder: str) -> None:
    """Makes JAX keep compiled programs in a folder, unless it is "off".

    Only those that take a second: JAX does not write them atomically, and a process
    that reads one while another writes it crashes. With many small ones that happens.

    Args:
      folder: on this machine, or an address of a bucket.
    """
    if folder == "off":
        return
    if "://" not in folder:
        with contextlib.suppress(OSError):  # JAX says what it cannot read or write
            remove_broken(pathlib.Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


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
    for entry in folder.glob("*-cache"):
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
