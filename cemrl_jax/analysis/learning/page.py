"""The page of what was learnt: tables and pictures of all experiments in a folder."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cemrl_jax.analysis import curves, style
from cemrl_jax.analysis.learning.experiments import (
    CONTEXTS,
    Experiment,
    by_preset,
    dumps,
    hours_of,
    last,
    metric_of,
    reached,
    task_of,
)
from cemrl_jax.analysis.learning.pictures import overview, picture
from cemrl_jax.config import Config
from cemrl_jax.evaluation.statistics import bootstrap_interval, iqm

RESULTS = pathlib.Path("results", "learning")
"""Below the folder of the page: a file per experiment, and the pictures."""
PAGE, PICTURE, TRIED = "learning.md", "learning", "tried"
BEGIN, END = "<!-- made by scripts/analyse.py: begin -->", "<!-- end -->"


def write(
    experiments: list[Experiment], folder: pathlib.Path, presets: Iterable[Config]
) -> None:
    """Writes experiments into files, and page and pictures of all files in the folder.

    Args:
      experiments: new ones; those of the same name and context are replaced.
      folder: of the page, which keeps what stands outside of its marks.
      presets: as they are now.
    """
    results = folder / RESULTS
    results.mkdir(parents=True, exist_ok=True)
    for one in experiments:
        bound = "" if one["context"] == CONTEXTS[0] else f"_{one['context']}"
        path = results / f"{one['name'].replace('-', '_')}{bound}.json"
        path.write_text(dumps(one))
    everything = [json.loads(path.read_text()) for path in results.glob("*.json")]
    everything.sort(key=lambda one: (one["name"], CONTEXTS.index(one["context"])))
    now, _ = shown = by_preset(everything, presets)
    style.save(overview(now), results, PICTURE, ("png",))
    style.save(picture(everything), results, TRIED, ("png",))
    page = folder / PAGE
    text = page.read_text() if page.exists() else f"# Learning\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{BEGIN}\n\n{contents(*shown)}\n{END}"
    page.write_text(before + made + after)


def contents(now: list[Experiment], others: list[Experiment]) -> str:
    """Returns pictures and tables as markdown: of the presets, and of what was tried.

    Args:
      now: experiments that are a preset as it is.
      others: all others, which are folded away.
    """
    folder = RESULTS.as_posix()
    parts = [
        "## The presets as they are",
        f"![Learning curves of the presets]({folder}/{PICTURE}.png)",
        *tables(now),
        "## What else was tried: other settings, and presets as they were",
        "<details><summary>tables and curves</summary>",
        *tables(others),
        f"![All learning curves]({folder}/{TRIED}.png)",
        "</details>",
    ]
    return "\n\n".join(parts) + "\n"


def tables(experiments: list[Experiment]) -> list[str]:
    """Returns a table of returns and one of tasks that change, as markdown."""
    by_name: dict[str, dict[str, Experiment]] = {}
    for one in experiments:
        by_name.setdefault(one["name"], {})[one["context"]] = one
    return [
        _table(
            *("experiment", "authors (hours)", "seeds", "epochs", "return [95 %]"),
            *("worst seed", "hours", "at their level after", "oracle", "blind"),
            rows=[_returns(name, own) for name, own in by_name.items()],
        ),
        _table(
            *("experiment", "changing [95 %]", "oracle", "blind", "z recovers"),
            *("reward recovers", "window", "return lost"),
            *("class accuracy", "task from z"),
            rows=[_changing(name, own) for name, own in by_name.items()],
        ),
    ]


def _table(*header: str, rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _returns(name: str, own: dict[str, Experiment]) -> list[str]:
    """Returns a line about the authors' protocol."""
    one = own.get(CONTEXTS[0]) or next(iter(own.values()))
    protocol = curves.their_protocol(task_of(one))
    metric = metric_of(protocol)
    authors = curves.authors_of(one["preset"], task_of(one), protocol)
    cells = [name, _span_of(authors)]
    if CONTEXTS[0] not in own:
        cells += [""] * 6
    else:
        values = last(one, metric)
        hours = None
        if authors:
            level = np.mean([run["test_return"][-1] for run in authors])
            hours = reached(one, float(level))
        cells += [
            *(_seeds(len(values), len(one["runs"])), _epochs(one), _interval(values)),
            *(_number(values.min()) if len(values) else "", f"{hours_of(one):.2f}"),
            "" if not authors else f"{hours:.2f} h" if hours is not None else "never",
        ]
    return cells + [_bound(own, context, metric) for context in CONTEXTS[1:]]


def _changing(name: str, own: dict[str, Experiment]) -> list[str]:
    """Returns a line about tasks that change, and about inference."""
    metric = metric_of("changing")
    one = own.get(CONTEXTS[0])
    bounds = [_bound(own, context, metric) for context in CONTEXTS[1:]]
    if one is None:
        return [name, "", *bounds, "", "", "", "", "", ""]

    def mean(metric: str, form: str) -> str:
        values = last(one, metric)
        return form.format(values.mean()) if len(values) else ""

    return [
        *(name, _interval(last(one, metric)), *bounds),
        mean("recovery/z_steps", "{:.1f}"),
        mean("recovery/reward_steps", "{:.1f}"),
        str(one["config"]["encoder"]["window_steps"]),
        mean("recovery/lost_return", "{:.1f}"),
        mean("inference/class_accuracy", "{:.1%}"),
        mean("inference/task_r2", "{:.1%}"),
    ]


def _seeds(measured: int, run: int) -> str:
    """Returns how many seeds a number is of, and of how many that were run."""
    return str(run) if measured == run else f"{measured} of {run}"


def _epochs(one: Experiment) -> str:
    """Returns the epochs of the shortest run, and how many were planned."""
    planned = one["config"]["train"]["num_epochs"]
    done = min(run["evaluations"]["epoch"][-1] for run in one["runs"])
    return str(planned) if done == planned else f"{done} of {planned}"


def _bound(own: dict[str, Experiment], context: str, metric: str) -> str:
    return _interval(last(own[context], metric)) if context in own else ""


def _interval(values: np.ndarray) -> str:
    """Returns the IQM over runs, with a bootstrap interval where there are several."""
    if not len(values):
        return ""
    text = _number(float(iqm(values)))
    if len(values) > 1:
        low, high = bootstrap_interval(values, np.random.default_rng(0))
        text += f" [{_number(float(low))}, {_number(float(high))}]"
    return text


def _span_of(authors: list[dict[str, Any]]) -> str:
    if not authors:
        return ""
    returns = [run["test_return"][-1] for run in authors]
    hours = [run["hours"][-1] for run in authors]
    ends = dict.fromkeys([_number(min(returns)), _number(max(returns))])
    spans = dict.fromkeys([f"{min(hours):.0f}", f"{max(hours):.0f}"])
    return f"{' to '.join(ends)} ({' to '.join(spans)} h)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
