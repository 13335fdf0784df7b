"""Programs that are run again and again, timed and counted."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cemrl_jax.benchmark import counts, hlo
from cemrl_jax.data.rollout import BREAKDOWN
from cemrl_jax.runtime import parallel

Row = dict[str, Any]
Seconds = dict[str, list[float]]
"""Program -> seconds of each repeat."""


class Program:
    """A phase compiled ahead of time that runs again and again on its own results.

    Attributes:
      compile_seconds: tracing and compiling.
      memory_bytes: what the compiler says that a device needs, arguments included.
      num_kernels: see `count_kernels`.
    """

    def __init__(self, step: Callable[..., Any], learner: Any, worker: Any) -> None:
        """Compiles `step(learner, worker) -> (learner, worker, metrics)`."""
        self._state = jax.tree.map(jnp.copy, (learner, worker))
        start = time.perf_counter()
        self._compiled = parallel.spmd(step).lower(*self._state).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self._compiled.memory_analysis()
        self.memory_bytes = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
        self.num_kernels = count_kernels(self._compiled.as_text() or "")

    def run(self) -> float:
        """Runs the phase once; returns the seconds until it has finished.

        Raises:
          FloatingPointError: it computed something that is not finite.
        """
        start = time.perf_counter()
        *self._state, metrics = jax.block_until_ready(self._compiled(*self._state))
        seconds = time.perf_counter() - start
        bad = [
            name
            for name, value in metrics.items()
            if not name.startswith(BREAKDOWN) and not jnp.isfinite(value)
        ]
        if bad:
            raise FloatingPointError(f"{', '.join(bad)} is not finite")
        return seconds

    @property
    def worker(self) -> Any:
        """The worker as the last run left it."""
        return self._state[1]


def repeat(runs: dict[str, Callable[[], float]], num_repeats: int) -> Seconds:
    """Times each run `num_repeats` times after a warm-up, one after the other in turn.

    Taking turns lets a noisy machine disturb all of them alike.
    """
    for run in runs.values():
        run()
    rounds = [{name: run() for name, run in runs.items()} for _ in range(num_repeats)]
    return {name: [seconds[name] for seconds in rounds] for name in runs}


def timings(programs: dict[str, Program], num_repeats: int) -> Row:
    """Times programs in turns; returns what is said of each, by its name.

    `spread` is the distance between the slowest and the fastest run, in medians.
    """
    runs = {name: program.run for name, program in programs.items()}
    times = repeat(runs, num_repeats)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "compile_seconds": {
            n: program.compile_seconds for n, program in programs.items()
        },
        "seconds": medians,
        "spread": {n: (max(s) - min(s)) / medians[n] for n, s in times.items()},
        "program_memory_bytes": {
            n: program.memory_bytes for n, program in programs.items()
        },
        "kernels": {n: program.num_kernels for n, program in programs.items()},
    }


def median_seconds(function: Callable[..., Any], x: Any, num_repeats: int) -> float:
    """Times a compiled `x = function(x)`, after a warm-up."""
    seconds = []
    for _ in range(num_repeats + 1):
        start = time.perf_counter()
        x = jax.block_until_ready(function(x))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def count_kernels(program: str) -> int:
    """Counts what a step of a compiled program's largest loop launches.

    Args:
      program: HLO after optimisation; loops within the step are multiplied out.
    """
    loops = counts.Counter(hlo.parse(program)).count().loops
    return max((int(counts.num_kernels(loop.once)) for loop in loops), default=0)


def num_bytes(tree: Any) -> int:
    """Returns the size of all arrays of a tree, bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
