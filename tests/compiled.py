"""Programs that earlier tests of a module compiled."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from cemrl_jax.commands import train
from cemrl_jax.config import Config
from cemrl_jax.runtime import parallel
from cemrl_jax.training import loop, programs, resume, state

FEW = 4
"""Configurations whose programs are kept: a process can hold only so many."""
_COMPILE, _LOWER = programs.compile_programs, state.lower_init
_TRACE = state.learner_shapes


def share(patch: pytest.MonkeyPatch) -> None:
    """Lets runs of one configuration share what they compile, which takes longest.

    Tracing is most of it, and no cache of JAX keeps what was traced.
    """
    compiled: dict[str, programs.Programs] = {}
    begun: dict[str, Any] = {}
    traced: dict[str, Any] = {}

    def compile_or_share(
        config: Config, numbers: list[int], pools: Any, *rest: Any, **more: Any
    ) -> programs.Programs:
        key = f"{_what_is_compiled(config)} {len(numbers)} {more.get('begins')}"
        make = lambda: _COMPILE(config, numbers, pools, *rest, **more)  # noqa: E731
        ours = _kept(compiled, key, make)
        parts = programs.evaluation_parts(config, numbers, pools)
        evaluate = dataclasses.replace(ours.evaluate, parts=parts)
        return dataclasses.replace(ours, evaluate=evaluate)

    def lower_or_share(config: Config, num_seeds: int) -> Any:
        key = f"{_what_is_compiled(config)} {num_seeds}"
        return _kept(begun, key, lambda: _Lowered(_LOWER(config, num_seeds)))

    def trace_or_share(config: Config) -> Any:
        return _kept(traced, _what_is_compiled(config), lambda: _TRACE(config))

    for module in (loop, train):
        patch.setattr(module, "compile_programs", compile_or_share)
    patch.setattr(state, "lower_init", lower_or_share)
    for module in (state, resume):
        patch.setattr(module, "learner_shapes", trace_or_share)


def _kept(few: dict[str, Any], key: str, make: Callable[[], Any]) -> Any:
    """Returns what is kept under a key, made if it is not; forgets the oldest."""
    if key not in few:
        while len(few) >= FEW:
            few.pop(next(iter(few)))
        few[key] = make()
    return few[key]


class _Lowered:
    """Something lowered, compiled once."""

    def __init__(self, lowered: Any) -> None:
        self._lowered, self._compiled = lowered, {}
        self.as_text = lowered.as_text
        self.compiler_ir, self.out_tree = lowered.compiler_ir, lowered.out_tree

    def compile(self, compiler_options: Any = None) -> Any:
        key = str(compiler_options)
        if key not in self._compiled:
            self._compiled[key] = self._lowered.compile(compiler_options)
        return self._compiled[key]


def _what_is_compiled(config: Config) -> str:
    elsewhere = dataclasses.replace(config, seed=0, name="", output_dir="")
    return f"{elsewhere} {parallel.num_devices()}"
