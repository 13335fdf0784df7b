"""Entries that a killed process left half written do not slow every later start."""

import os
import subprocess
import sys
import zlib

import pytest
from helpers import ROOT

from cemrl_jax.runtime import compile_cache

WHOLE = zlib.compress(bytes(range(256)))
SCRIPT = """
import sys
import jax
from cemrl_jax.runtime import compile_cache
compile_cache.use(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
assert jax.jit(lambda x: x + 1)(1) == 2
print("hit" if "/jax/compilation_cache/cache_hits" in events else "miss")
"""


def test_an_entry_cut_short_is_written_again(tmp_path):
    def start():
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Error reading" not in result.stderr
        return result.stdout.strip()

    assert start() == "miss"
    for entry in tmp_path.glob("*-cache"):
        os.truncate(entry, entry.stat().st_size - 1)
    assert [start(), start()] == ["miss", "hit"]


@pytest.mark.parametrize(
    ("content", "stays"),
    [
        (WHOLE, True),
        (WHOLE[:-1], False),
        (WHOLE[:1], False),
        (b"", False),
        (bytes(len(WHOLE)), False),
        (compile_cache.ZSTD + b"anything", True),
    ],
)
def test_what_cannot_be_unpacked_is_removed(tmp_path, content, stays):
    entry, other = tmp_path / "jit_f-1-cache", tmp_path / "jit_f-1-atime"
    entry.write_bytes(content)
    other.write_bytes(b"of JAX's own")
    compile_cache.remove_broken(tmp_path)
    assert entry.exists() == stays
    assert other.exists()


def test_entries_are_looked_at_when_they_are_new(tmp_path):
    old, new = tmp_path / "old-cache", tmp_path / "new-cache"
    old.write_bytes(WHOLE)
    compile_cache.remove_broken(tmp_path)
    seen = (tmp_path / compile_cache.CHECKED).stat().st_mtime_ns
    old.write_bytes(b"never looked at again")
    os.utime(old, ns=(seen - 1, seen - 1))
    new.write_bytes(WHOLE[:-1])
    compile_cache.remove_broken(tmp_path)
    assert old.exists()
    assert not new.exists()


def test_a_folder_that_does_not_exist_is_left_to_jax(tmp_path):
    compile_cache.remove_broken(tmp_path / "none")
    assert not any(tmp_path.iterdir())
