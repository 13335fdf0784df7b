"""What processes compile is there for others, and whole, however they end."""

import os
import shutil
import signal
import subprocess
import sys
import zlib

import jax
import pytest
from helpers import ROOT

from cemrl_jax.runtime import compile_cache

HOLD = """
import sys, pathlib
from cemrl_jax.runtime import compile_cache
with compile_cache.own_copy(pathlib.Path(sys.argv[1])) as own:
    print(own, flush=True)
    sys.stdin.read()
"""
WHOLE = zlib.compress(bytes(range(256)))
SCRIPT = """
import sys
import jax
from cemrl_jax.runtime import compile_cache
compile_cache.use(sys.argv[1])
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


def entries(folder):
    return sorted(path.name for path in folder.glob("*-cache"))


@pytest.fixture
def other(tmp_path):
    """A process that has a copy of its own, and where that is."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_a_process_begins_with_what_others_have_and_leaves_what_it_has(tmp_path, other):
    process, theirs = other
    (theirs / "a-cache").write_bytes(WHOLE)
    (theirs / "b-cache").write_bytes(WHOLE[:-1])  # being written
    with compile_cache.own_copy(tmp_path) as own:
        assert entries(own) == ["a-cache"]
        assert theirs.exists()
        (own / "c-cache").write_bytes(WHOLE)
    assert entries(tmp_path) == ["a-cache", "c-cache"]
    assert not own.exists()
    (theirs / "b-cache").write_bytes(WHOLE)
    process.communicate(timeout=60)
    assert entries(tmp_path) == ["a-cache", "b-cache", "c-cache"]
    assert not theirs.exists()


def test_what_a_killed_process_has_left_is_taken_if_it_is_whole(tmp_path, other):
    process, theirs = other
    (theirs / "a-cache").write_bytes(WHOLE)
    (theirs / "b-cache").write_bytes(WHOLE[:-1])
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    with compile_cache.own_copy(tmp_path) as own:
        assert entries(own) == ["a-cache"]
        assert not theirs.exists()


def test_what_nobody_has_read_for_long_is_removed(tmp_path):
    for name in ("old", "new"):
        (tmp_path / f"{name}-cache").write_bytes(WHOLE)
    long_ago = (tmp_path / "old-cache").stat().st_mtime - 31 * 86_400
    os.utime(tmp_path / "old-cache", (long_ago, long_ago))
    with compile_cache.own_copy(tmp_path) as own:
        assert entries(own) == entries(tmp_path) == ["new-cache"]


def test_a_folder_without_links_is_used_as_it_is(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    (tmp_path / "a-cache").write_bytes(WHOLE)
    monkeypatch.setattr(os, "link", refuse)
    before = dict(jax.config.values)
    compile_cache.use(str(tmp_path))
    after = dict(jax.config.values)
    for name in [name for name in before if after[name] != before[name]]:
        jax.config.update(name, before[name])
    assert after["jax_compilation_cache_dir"] == str(tmp_path)
    assert after["jax_persistent_cache_min_compile_time_secs"] == 1.0
    assert not list(tmp_path.glob("process-*"))


def test_a_folder_that_goes_while_a_process_runs_does_no_harm(tmp_path):
    with compile_cache.own_copy(tmp_path / "cache") as own:
        shutil.rmtree(tmp_path / "cache")
    assert not own.exists()
