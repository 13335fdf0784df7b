"""Where results come from: code, versions, device, host, command."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

from cemrl_jax.runtime import files

FILE = "run.json"
"""In a run's folder: `{"starts": [...]}`, one entry for each start of the run."""
ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGES = (
    "jax",
    "jaxlib",
    "mujoco",
    "mujoco-mjx",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Returns on which device and host, and with which versions, this runs."""
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "host": processor(),
        "host_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "revision": revision(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "compile_cache": bool(jax.config.values["jax_compilation_cache_dir"]),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def processor() -> str:
    """Returns the name of the processor."""
    return of_processor("model name") or platform.processor() or platform.machine()


def of_processor(field: str) -> str:
    """Returns what Linux says of the first processor, or nothing."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line.partition(":")[2] for line in lines if line.startswith(field)]
    return found[0].strip() if found else ""


def revision() -> str:
    """Returns the git revision, with a plus sign if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.check_output(
            [*git, "rev-parse", "--short", "HEAD"], text=True, stderr=subprocess.DEVNULL
        )
        clean = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if clean.returncode else "")


def start(epoch: int, engine: str | None = None) -> dict[str, Any]:
    """Returns what is recorded of one start of a run.

    Args:
      epoch: epochs that the run had done.
      engine: the physics that was chosen, if it is known.
    """
    return {
        "epoch": epoch,
        "command": shlex.join(sys.argv),
        "folder": str(pathlib.Path.cwd()),
        "hostname": platform.node(),
        "process": os.getpid(),
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "engine": engine,
        **environment(),
    }


def record(directory: pathlib.Path, entry: dict[str, Any]) -> None:
    """Appends a start to the record in a run's folder."""
    starts = [*read(directory), entry]
    text = json.dumps({"starts": starts}, indent=2) + "\n"
    files.write(directory / FILE, text.encode())


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the starts of a run, oldest first; none if it has no such record."""
    try:
        return json.loads((directory / FILE).read_text())["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
