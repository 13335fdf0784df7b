"""Programs: compiled ahead of time, timed, never compiled again."""

import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax

from cemrl_jax.runtime.program_store import StoredProgram

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


@dataclasses.dataclass(frozen=True)
class Program:
    """A function compiled ahead of time, so that it can never compile again.

    Attributes:
      compiled: what runs.
      compile_seconds: how long it took to compile that, or to load it.
    """

    compiled: Any
    compile_seconds: float

    @classmethod
    def timed(cls, make: Callable[[], Any]) -> Self:
        """Compiles or loads a program by calling a function."""
        start = time.perf_counter()
        compiled = make()
        return cls(compiled, time.perf_counter() - start)

    def __call__(self, *args: Any) -> tuple[Any, float]:
        """Returns the result, finished, and the seconds that it took."""
        start = time.perf_counter()
        result = jax.block_until_ready(self.compiled(*args))
        return result, time.perf_counter() - start

    @property
    def working_bytes(self) -> int:
        """Memory on each device beside the arguments while it runs, bytes.

        Results that take the place of donated arguments do not count.
        """
        stats = self.compiled.memory_analysis()
        if stats is None:  # not every back end says
            return 0
        results = stats.output_size_in_bytes - stats.alias_size_in_bytes
        return stats.temp_size_in_bytes + max(results, 0)


def compile_all(
    lower: Mapping[str, Callable[[], Any]],
    say: Callable[[str], None],
    options: Mapping[str, dict[str, Any]],
    kept: Mapping[str, StoredProgram],
) -> dict[str, Program]:
    """Compiles programs side by side, as many as there are cores, or loads them.

    Args:
      lower: name -> returns the lowered program; called in turn, since tracing is
        Python and gains nothing from threads.
      say: told each name before it is lowered.
      options: compiler options of those that have some. They come first: the others
        may be in the compile cache, and some of these can never be.
      kept: where to look for those that are kept, and to keep them.
    """

    def compile_one(name: str, lowered: Any) -> Program:
        compile_it = kept[name].compile if name in kept else compile_lowered
        return Program.timed(lambda: compile_it(lowered, options.get(name)))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        recalled = pool.map(lambda name: Program.timed(kept[name].recall), kept)
        found = {name: x for name, x in zip(kept, recalled) if x.compiled}
        pending = {}
        for name in sorted(lower, key=lambda name: name not in options):
            if name not in found:
                say(name)
                pending[name] = pool.submit(compile_one, name, lower[name]())
        return {name: found.get(name) or pending[name].result() for name in lower}


def compile_lowered(lowered: Any, options: dict[str, Any] | None) -> Any:
    """Compiles what a function, jitted or of `spmd`, was lowered to."""
    return lowered.compile(compiler_options=options)
