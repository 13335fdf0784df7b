"""Files that are whole or not there: written aside, then renamed."""

import os
import pathlib


def write(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file; whoever reads it sees the old content or all of the new.

    It is on the disk when this returns, not in a buffer.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
