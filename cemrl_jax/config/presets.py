"""The presets for training: what each one is, and what the authors' runs of it got."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from cemrl_jax.config import Config, to_dict

AUTHOR_RUNS = "author_runs.json"
"""In the folder of the presets: preset -> the authors' logged runs of its experiment.

A run has `env_steps` it had done at its end, the `hours` it took, and the last
`test_return` that it logged. Some were stopped before the epochs that were planned.
"""
COLUMNS = (
    *("preset", "robot", "tasks", "schedule"),
    *("runs", "M steps", "hours", "test return"),
)
FOLDER = pathlib.Path(__file__).parent.parent / "configs"


def author_runs() -> dict[str, list[dict[str, float]]]:
    """Returns preset -> the authors' runs of it, oldest first."""
    return json.loads((FOLDER / AUTHOR_RUNS).read_text())


def describe(presets: dict[str, Config]) -> str:
    """Returns a table of presets, one a line.

    Args:
      presets: name -> configuration.
    """
    runs = author_runs()
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name, config in presets.items():
        env: dict[str, Any] = to_dict(config)["env"]
        parts = [env[part]["name"] for part in ("robot", "task", "schedule")]
        rows.append((name, *parts, *summary(runs.get(name, []))))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    ]
    left = sum(widths[:4]) + 2 * 4
    return "\n".join([" " * left + "the authors' runs, at their end:", *lines])


def summary(runs: Sequence[dict[str, float]]) -> tuple[str, str, str, str]:
    """Returns the number of runs, and their steps, hours and returns as text."""
    return (
        str(len(runs)) if runs else "",
        _span([run["env_steps"] / 1e6 for run in runs], "{:.2g}".format),
        _span([run["hours"] for run in runs], "{:.2g}".format),
        _span([run["test_return"] for run in runs], "{:.0f}".format),
    )


def _span(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Returns the smallest and the largest value as text, or the only one."""
    if not values:
        return ""
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low}..{high}"
