"""A kept program is the one that was compiled, and only ever of the same code."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers import tiny_config
from jax.experimental.compilation_cache import compilation_cache

from cemrl_jax.commands import command_line
from cemrl_jax.config import EnvConfig
from cemrl_jax.envs.robots import Point
from cemrl_jax.runtime import parallel, program_store
from cemrl_jax.runtime.program_store import ProgramStore, StoredProgram, open_store
from cemrl_jax.training import programs, state
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.programs import descriptions


@pytest.fixture
def store(tmp_path) -> ProgramStore:
    return ProgramStore(tmp_path / "programs", b"today".ljust(32), b"mine".ljust(32))


def stored(store: ProgramStore, description: str, num_args: int = 1) -> StoredProgram:
    return StoredProgram(store, description, (jnp.zeros(3),) * num_args, {})


class Lowered:
    """Something lowered, compiled without JAX's cache, and how often it was."""

    def __init__(self, step: Any = lambda x: jnp.sin(x) + 1, num_args: int = 1) -> None:
        arguments = (jnp.zeros(3),) * num_args
        self._lowered, self.count = jax.jit(step).lower(*arguments), 0
        self.as_text = self._lowered.as_text
        self.compiler_ir = self._lowered.compiler_ir
        self.out_tree = self._lowered.out_tree

    def compile(self, compiler_options: Any) -> Any:
        self.count += 1
        with uncached():
            return self._lowered.compile(compiler_options)


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


def test_a_kept_program_computes_what_it_did(store):
    program = stored(store, "sines of three")
    assert program.recall() is None
    compiled = program.compile(Lowered(), None)
    loaded = program.recall()
    assert loaded is not None
    np.testing.assert_array_equal(loaded(jnp.arange(3.0)), compiled(jnp.arange(3.0)))


def test_what_is_recalled_is_what_was_described(store):
    stored(store, "sines of three").compile(Lowered(), None)
    assert stored(store, "sines of four").recall() is None


def test_other_code_recalls_nothing_and_loads_what_it_lowers_to(store):
    program = stored(store, "of three")
    program.compile(Lowered(), None)
    later = dataclasses.replace(store, sources=b"other".ljust(32))
    newer = dataclasses.replace(program, store=later)
    assert newer.recall() is None
    same, other = Lowered(), Lowered(lambda x: x * 2)
    newer.compile(same, None)
    assert same.count == 0
    newer.compile(same, {"xla_llvm_disable_expensive_passes": True})
    assert same.count == 1
    newer.compile(other, None)
    assert other.count == 1
    recalled = newer.recall()
    assert recalled is not None
    assert recalled(jnp.ones(3)).tolist() == [2, 2, 2]
    assert program.recall() is None


class One(struct.PyTreeNode):
    x: jax.Array


class Other(struct.PyTreeNode):
    x: jax.Array


def test_what_it_returns_is_of_the_class_that_the_code_says(store):
    program = stored(store, "of three")
    for kind in (One, Other):
        program.compile(Lowered(lambda x, kind=kind: kind(x=x + 1)), None)
        recalled = program.recall()
        assert recalled is not None
        assert isinstance(recalled(jnp.ones(3)), kind)


def test_what_it_needs_is_told_apart_where_the_text_is_the_same(store):
    program = stored(store, "of three", num_args=2)
    for which in (0, 1):
        lowered = Lowered(lambda *args, which=which: args[which] + 1, num_args=2)
        program.compile(lowered, None)
        recalled = program.recall()
        assert recalled is not None
        assert recalled(jnp.zeros(3), jnp.ones(3)).tolist() == [which + 1] * 3


def test_other_versions_neither_recall_nor_load(store):
    program, lowered = stored(store, "of three"), Lowered()
    program.compile(lowered, None)
    later = dataclasses.replace(store, surroundings=b"tomorrow".ljust(32))
    newer = dataclasses.replace(program, store=later)
    assert newer.recall() is None
    newer.compile(lowered, None)
    assert lowered.count == 2


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: x[:-1] + b"!", bytes])
@pytest.mark.parametrize("which", ["note-*", "[0-9a-f]*"])
def test_a_damaged_file_is_as_if_there_were_none(store, which, damage):
    program, lowered = stored(store, "of three"), Lowered()
    program.compile(lowered, None)
    (path,) = store.folder.glob(which)
    content = path.read_bytes()
    path.write_bytes(damage(content)[: len(content)] if damage is not bytes else b"")
    assert program.recall() is None
    program.compile(lowered, None)
    assert lowered.count == (2 if which != "note-*" else 1)
    assert program.recall() is not None


def test_what_came_from_the_compile_cache_is_not_kept(store):
    program = stored(store, "of three")
    for _ in range(2):  # JAX has it in its cache from the first on
        shutil.rmtree(store.folder, ignore_errors=True)
        lowered = jax.jit(lambda x: x * 3 + 7).lower(jnp.zeros(3))
        program.compile(lowered, None)
    assert program.recall() is None
    program.compile(Lowered(lambda x: x * 3 + 7), None)
    assert program.recall() is not None


def test_what_cannot_be_kept_runs_all_the_same(store, tmp_path):
    def call_python(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), jnp.float32), x)

    program = stored(store, "calls Python")
    assert program.compile(Lowered(call_python), None)(jnp.zeros(3)).tolist() == [0] * 3
    assert not store.folder.exists()
    (tmp_path / "file").touch()
    nowhere = dataclasses.replace(store, folder=tmp_path / "file" / "programs")
    program = stored(nowhere, "of three")
    assert program.compile(Lowered(), None)(jnp.zeros(3)).tolist() == [1] * 3


def test_what_nobody_has_loaded_for_long_is_removed(store):
    steps = {"old": jnp.sin, "recalled": jnp.cos, "new": jnp.tan}
    programs_by_name = {name: stored(store, name) for name in steps}
    for name, step in steps.items():
        programs_by_name[name].compile(Lowered(step), None)
        for path in store.folder.iterdir() if name == "recalled" else ():
            long_ago = path.stat().st_mtime - 31 * 86_400
            os.utime(path, (long_ago, long_ago))
    programs_by_name["recalled"].recall()
    store.remove_old()
    kept = {name: x.recall() is not None for name, x in programs_by_name.items()}
    assert kept == {"old": False, "recalled": True, "new": True}
    assert len(list(store.folder.iterdir())) == 4


def test_a_store_that_others_can_write_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(program_store, "_IMPORTED", float("inf"))
    folder = tmp_path / program_store.FOLDER
    folder.mkdir(mode=0o700)
    assert open_store(str(tmp_path)) is not None
    folder.chmod(0o722)
    assert open_store(str(tmp_path)) is None
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert open_store(str(tmp_path)) is None


def test_there_is_no_store_without_a_folder_of_ones_own(monkeypatch, tmp_path):
    assert open_store("off") is None
    assert open_store("gs://bucket/cache") is None
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert open_store(str(tmp_path)) is None


def made_from(folder: pathlib.Path) -> bytes | None:
    store = open_store(str(folder))
    return store and store.surroundings + store.sources


def test_programs_are_of_code_versions_and_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(program_store, "_IMPORTED", float("inf"))
    monkeypatch.syspath_prepend(tmp_path)
    seen = [made_from(tmp_path)]
    assert seen[0] is not None
    own = tmp_path / "own_robot.py"
    for content in ("MASS = 1", "MASS = 2"):
        own.write_text(content)
        module = types.ModuleType("own_robot")
        module.__file__ = str(own)
        monkeypatch.setitem(sys.modules, "own_robot", module)
        seen.append(made_from(tmp_path))
    (tmp_path / "mujoco-5.0.0.dist-info").mkdir()
    seen.append(made_from(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    seen.append(made_from(tmp_path))
    monkeypatch.setenv("HOME", "/elsewhere")
    assert made_from(tmp_path) == seen[-1]
    with jax.disable_jit(False):  # settings are of the process, not of a moment
        assert made_from(tmp_path) == seen[-1]
    jax.config.update("jax_enable_x64", True)
    seen.append(made_from(tmp_path))
    jax.config.update("jax_enable_x64", False)
    assert len(set(seen)) == len(seen) == 6


def test_programs_are_of_the_code_of_a_preset(monkeypatch, tmp_path):
    monkeypatch.setattr(program_store, "_IMPORTED", float("inf"))
    seen, path = [], tmp_path / "own_preset.py"
    for bonus in (0.0, 1000.0):
        path.write_text(f"from cemrl_jax.configs.debug import get_config\n# {bonus}")
        command_line.load_file(path)
        seen.append(made_from(tmp_path))
    sys.modules.pop("own_preset")
    assert None not in seen
    assert seen[0] != seen[1]


def test_code_that_was_changed_since_it_was_read_keeps_nothing(monkeypatch, tmp_path):
    newest = max(path.stat().st_mtime for path in program_store._sources())
    monkeypatch.setattr(program_store, "_IMPORTED", newest - 1)
    assert open_store(str(tmp_path)) is None
    monkeypatch.setattr(program_store, "_IMPORTED", newest + 1)
    assert open_store(str(tmp_path)) is not None


def test_the_sources_are_all_of_this_package():
    found = {path.name for path in program_store._sources()}
    assert {"program_store.py", "newton.py", "ml10.py", "mujoco_ffi.cc"} <= found


def test_a_run_finds_all_its_programs_and_they_are_the_same(store):
    config = tiny_config()
    pools = [run_lib.make_pools(config)]
    said: list[str] = []
    make = lambda: programs.compile_programs(  # noqa: E731
        config, [0], pools, said.append, begins=True, store=store
    )
    with uncached():
        first, compiled_first = make(), list(said)
    again = make()
    assert sorted(compiled_first) == ["collect", "evaluate", "init", "train"]
    assert said == compiled_first
    results = []
    for ours in (first, again):
        start = state.initial(config, [0], [pools[0]["train"]], ours.init)
        learner, worker = parallel.join(start.learner, start.worker)
        for phase in ours.phases.values():
            (learner, worker, _), _ = phase(learner, worker)
        scores, _ = ours.evaluate(learner, True)
        results.append((jax.device_get(learner), scores))
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert first.peak_bytes == again.peak_bytes


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("mjx", ["collect", "train", "evaluate"]),
        ("mujoco", ["train"]),
        ("mujoco_ffi", ["collect", "train", "evaluate"]),
    ],
)
def test_programs_that_call_python_are_not_described(monkeypatch, engine, names):
    monkeypatch.setattr(EnvConfig, "resolved_engine", engine)
    found = descriptions(tiny_config(), ["collect", "train", "evaluate"], "shapes")
    assert list(found) == names


def test_a_description_has_all_but_names_and_seeds():
    def of(shapes: str = "shapes", **changes: Any) -> str:
        return descriptions(tiny_config(**changes), ["train"], shapes)["train"]

    assert of(seed=3, name="other", output_dir="elsewhere") == of()
    assert of(sac__discount=0.5) != of()
    assert of(env__robot=Point(gain=0.6)) != of()
    assert of("other shapes") != of()
