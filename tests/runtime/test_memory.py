import pathlib

import pytest

from cemrl_jax.runtime.memory import host_bytes


@pytest.fixture
def meminfo(tmp_path) -> pathlib.Path:
    path = tmp_path / "meminfo"
    path.write_text(
        "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable: 4000 kB\nCached: 1 kB\n"
    )
    return path


def group(folder: pathlib.Path, limit: str, used: int, caches: int) -> pathlib.Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {caches}\n")
    return folder


def test_caches_that_can_be_dropped_are_available(meminfo, tmp_path):
    assert host_bytes(meminfo, tmp_path / "none") == 4000 * 1024


def test_a_cgroup_with_less_counts(meminfo, tmp_path):
    own = group(tmp_path / "cgroup", "1000000", 600_000, 100_000)
    assert host_bytes(meminfo, own) == 500_000


def test_a_cgroup_without_a_limit_does_not_count(meminfo, tmp_path):
    own = group(tmp_path / "cgroup", "max", 600_000, 100_000)
    assert host_bytes(meminfo, own) == 4000 * 1024


def test_a_full_cgroup_has_nothing_left(meminfo, tmp_path):
    own = group(tmp_path / "cgroup", "1000", 2000, 10)
    assert host_bytes(meminfo, own) == 0
