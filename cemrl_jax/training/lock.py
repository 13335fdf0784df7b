"""One process at a time writes a run."""

import fcntl
import os
import pathlib
import platform
from typing import Any

from cemrl_jax.config import ConfigError

FILE = "lock"


class Lock:
    """A run's folder is this process's while the context lasts.

    The operating system holds the lock, so it goes with the process, however that ends.
    Of a run on several hosts the first process takes it for all.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Of an existing folder."""
        self._path = directory / FILE

    def __enter__(self) -> "Lock":
        """Takes the lock.

        Raises:
          ConfigError: another process has it; says which.
        """
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ConfigError(
                f"{self._path.parent} is in use by {owner}: wait until it ends or stop"
                " it; two processes must not write one run"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exception: Any) -> None:
        """Gives the lock up; the file stays."""
        self._file.close()
