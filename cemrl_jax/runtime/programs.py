"""Programs: compiled ahead of time, timed, never compiled again."""

import time
from typing import Any

import jax


class Program:
    """A step compiled ahead of time, so that it can never compile again.

    Attributes:
      compile_seconds: how long that took.
    """

    def __init__(self, function: Any, *args: Any) -> None:
        """Compiles a function, jitted or of `spmd`, for arguments like these."""
        start = time.perf_counter()
        self._compiled = function.lower(*args).compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, *args: Any) -> tuple[Any, float]:
        """Returns the result, finished, and the seconds that it took."""
        start = time.perf_counter()
        result = jax.block_until_ready(self._compiled(*args))
        return result, time.perf_counter() - start
