"""Programs that earlier sessions of tests compiled, small ones too."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

WEEK = 7 * 24 * 3600.0


@contextlib.contextmanager
def own_copy(shared: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a process a compile cache of its own that begins as the shared one.

    JAX does not write entries atomically, and a process that reads one while another
    writes it crashes. Here nobody else reads what a process writes until it has ended
    and put whole entries into the shared folder. What is a week old goes.

    Args:
      shared: the folder of all processes; links to its entries are made, not copies.
    """
    shared.mkdir(parents=True, exist_ok=True)
    own = pathlib.Path(tempfile.mkdtemp(prefix="session-", dir=shared))
    for entry in shared.iterdir():
        with contextlib.suppress(OSError):  # gone by now, or links are not supported
            if entry.stat().st_mtime < time.time() - WEEK:
                _remove(entry)
            elif entry.is_file():
                os.link(entry, own / entry.name)
    yield own
    for entry in own.iterdir():
        entry.replace(shared / entry.name)
    shutil.rmtree(own)  # with the links: to replace a file by itself does nothing


def _remove(entry: pathlib.Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink()
