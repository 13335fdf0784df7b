"""How much memory the host has left."""

import pathlib

_CGROUPS = (
    # limit, use, and the name of what can be reclaimed of the use
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "inactive_file"),
)


def host_bytes(
    meminfo: pathlib.Path = pathlib.Path("/proc/meminfo"),
    cgroup: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> int | None:
    """Returns what this process can still get: of the host, and of its cgroup.

    `MemAvailable` counts caches that can be dropped, unlike `MemFree`.
    """
    found = []
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    for limit, use, reclaimable in _CGROUPS:
        left = _cgroup_bytes(cgroup / limit, cgroup / use, reclaimable)
        if left is not None:
            found.append(left)
    return min(found, default=None)


def _cgroup_bytes(
    limit: pathlib.Path, use: pathlib.Path, reclaimable: str
) -> int | None:
    """Returns what a control group has left; None without one or without a limit."""
    try:
        bound, used = limit.read_text().strip(), int(use.read_text())
        statistics = (use.parent / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not bound.isdigit():
        return None
    caches = [int(x.split()[1]) for x in statistics if x.split()[0] == reclaimable]
    return max(int(bound) - used + sum(caches[:1]), 0)
