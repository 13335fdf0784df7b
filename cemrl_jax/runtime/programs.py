"""Programs: compiled ahead of time, timed, never compiled again."""

import concurrent.futures
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

QUICKLY = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
}
"""Compiler options for programs that spend their time outside of compiled code."""
ONCE = QUICKLY | {"xla_backend_optimization_level": 0}
"""Compiler options of a CPU for programs that run once, for less than a second."""
FEW_PIECES = QUICKLY | {"xla_cpu_use_fusion_emitters": False}
"""Compiler options of a CPU for programs with thousands of pieces of code, so many that
the memory mappings of a process, 65,530 on Linux, would not be enough for them."""


class Program:
    """A function compiled ahead of time, so that it can never compile again.

    Attributes:
      compile_seconds: how long that took.
    """

    def __init__(self, lowered: Any, options: dict[str, Any] | None = None) -> None:
        """Compiles what a function, jitted or of `spmd`, was lowered to."""
        start = time.perf_counter()
        self._compiled = lowered.compile(compiler_options=options)
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, *args: Any) -> tuple[Any, float]:
        """Returns the result, finished, and the seconds that it took."""
        start = time.perf_counter()
        result = jax.block_until_ready(self._compiled(*args))
        return result, time.perf_counter() - start

    @property
    def working_bytes(self) -> int:
        """Memory on each device beside the arguments while it runs, bytes.

        Results that take the place of donated arguments do not count.
        """
        stats = self._compiled.memory_analysis()
        if stats is None:  # not every back end says
            return 0
        results = stats.output_size_in_bytes - stats.alias_size_in_bytes
        return stats.temp_size_in_bytes + max(results, 0)


def compile_all(
    lower: Mapping[str, Callable[[], Any]],
    say: Callable[[str], None],
    options: Mapping[str, dict[str, Any]],
) -> dict[str, Program]:
    """Compiles programs side by side, as many as there are cores.

    Args:
      lower: name -> returns the lowered program; called in turn, since tracing is
        Python and gains nothing from threads.
      say: told each name before it is lowered.
      options: compiler options of those that have some. They come first: the others
        may be in the compile cache, and some of these can never be.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {}
        for name in sorted(lower, key=lambda name: name not in options):
            say(name)
            pending[name] = pool.submit(Program, lower[name](), options.get(name))
        return {name: pending[name].result() for name in lower}
