"""Figures of returns by task."""

from typing import Any

import numpy as np

from cemrl_jax.analysis import describe, style
from cemrl_jax.analysis.figures import Part, Table
from cemrl_jax.analysis.recordings import Study


def parts(studies: list[Study]) -> list[Part]:
    """Returns the scatter of returns over the tasks' parameter, of all runs."""
    plt = style.pyplot()
    shown = describe.parameters(studies[0].env, studies[0].tasks["test"])[:3]
    figure, grid = plt.subplots(
        1,
        len(shown),
        figsize=(min(style.WIDTH, 2 + 3.5 * len(shown)), 3.2),
        sharey=True,
        squeeze=False,
    )
    rows: list[tuple[Any, ...]] = []
    for number, study in enumerate(studies):
        for pool, tasks in study.tasks.items():
            recording = study.groups[f"fixed/{pool}"]
            reward = np.asarray(recording.transitions.reward)
            returns = np.where(np.asarray(recording.alive), reward, 0).sum(1)
            own = {
                parameter.label: parameter.values
                for parameter in describe.parameters(study.env, tasks)
            }
            for axes, parameter in zip(grid[0], shown):
                values = own.get(parameter.label)
                if values is None:
                    continue
                axes.plot(
                    values,
                    returns,
                    style.MARKERS.get(pool, "d"),
                    color=style.MEANING.get(pool, style.GREY),
                    markersize=4,
                    alpha=0.8,
                    label=pool if number == 0 else None,
                )
            bases = describe.bases(tasks)
            first = own.get(shown[0].label, np.full(len(returns), np.nan))
            rows += [
                (study.run.seed, pool, int(base), float(value), float(total))
                for base, value, total in zip(bases, first, returns)
            ]
    for axes, parameter in zip(grid[0], shown):
        axes.set_xlabel(parameter.label)
        style.name_directions(axes, parameter.label)
    grid[0, 0].set_ylabel("return")
    style.legend_over(figure)
    caption = (
        f"One episode of each task of each of {len(studies)} run(s), deterministic, the"
        " task stays; of pools with more tasks evenly spaced ones. Extrapolation is"
        " outside of the range that was trained on."
    )
    header = ("seed", "pool", "base", shown[0].label, "return")
    return [
        Part("returns_by_task", "Returns by task", caption, figure, Table(header, rows))
    ]
