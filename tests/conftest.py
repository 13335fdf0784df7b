"""Eight virtual devices, a compile cache, and programs that compile in haste."""

import gc
import os
import pathlib
from collections.abc import Iterator
from typing import NoReturn

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest
from compiled import share
from jax.experimental.compilation_cache import compilation_cache

from cemrl_jax.runtime import compile_cache

MANY_PIECES = 10_000
"""A process may hold 65,530, and each program takes dozens; beyond that loading one is
a segmentation fault."""
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()


@pytest.fixture(scope="session", autouse=True)
def kept_programs() -> Iterator[None]:
    """Keeps what is compiled, for the next tests."""
    with compile_cache.own_copy(_CACHE / "cemrl_jax_tests", days=7) as folder:
        compile_cache.use_own(folder)
        compilation_cache.reset_cache()  # it may have been asked for already
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Programs that run once or twice need no optimisation; those of slow tests do."""
    in_haste = item.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", in_haste)


@pytest.fixture(autouse=True)
def exit_with_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that leaves at once must not take the tests with it."""

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)


@pytest.fixture(scope="module", autouse=True)
def programs_of_module() -> Iterator[None]:
    """Shares what a module's runs compile; unloads all when they become many."""
    with pytest.MonkeyPatch.context() as patch:
        share(patch)
        yield
    gc.collect()
    if pieces_of_memory() > MANY_PIECES:
        jax.clear_caches()
        gc.collect()


def pieces_of_memory() -> int:
    """Returns how many the process holds, or that they are many where Linux is not."""
    try:
        return pathlib.Path("/proc/self/maps").read_text().count("\n")
    except OSError:
        return MANY_PIECES + 1


@pytest.fixture
def own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that change what is compiled: nothing is shared with others."""
    share(monkeypatch)
