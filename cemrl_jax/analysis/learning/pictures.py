"""Learning curves of many experiments, with the authors'."""

from typing import Any

from cemrl_jax.analysis import curves, style
from cemrl_jax.analysis.learning.experiments import (
    CONTEXTS,
    Experiment,
    metric_of,
    task_of,
    together,
)

LINES = dict(zip(CONTEXTS, ("-", "--", ":"), strict=True))
"""What the policy sees of the task -> how its curve is drawn."""
WORDS = {
    "inferred": "CEMRL in JAX",
    "oracle": "a policy that is told the task",
    "blind": "a policy without z",
}
"""What the policy sees of the task -> label of a curve where a panel has one preset."""
ACROSS = 3
"""Experiments side by side in `overview`."""
SOON = 0.004
"""Hours before which there is only what was not trained."""
COLOURS = (*style.SERIES, style.YELLOW)
"""Of experiments in one panel."""


def overview(experiments: list[Experiment]) -> Any:
    """Returns a figure with two panels for each experiment, those of authors first."""
    plt = style.pyplot()
    groups: dict[str, list[Experiment]] = {}
    for one in sorted(experiments, key=lambda one: one["preset"] is None):
        groups.setdefault(one["name"], []).append(one)
    rows = -(-max(len(groups), 1) // ACROSS)
    size = (1.6 * style.WIDTH, 2 * rows)
    figure, grid = plt.subplots(rows, 2 * ACROSS, figsize=size, squeeze=False)
    pairs = grid.reshape(-1, 2)
    for pair, (name, own) in zip(pairs, groups.items()):
        _pair(pair, name, own, WORDS)
    for axes in pairs[len(groups) :].flat:
        axes.axis("off")
    known: dict[str, Any] = {}
    for axes in grid.flat:
        known |= {label: line for line, label in zip(*_handles(axes))}
    figure.legend(known.values(), known, loc="outside upper center", ncols=len(known))
    return figure


def picture(experiments: list[Experiment]) -> Any:
    """Returns a figure with two panels for each group of `rivals`."""
    plt = style.pyplot()
    groups = rivals(experiments)
    size = (1.4 * style.WIDTH, 2.6 * max(len(groups), 1))
    figure, grid = plt.subplots(max(len(groups), 1), 2, figsize=size, squeeze=False)
    for pair, (title, own) in zip(grid, groups.items()):
        _pair(pair, title, own)
        if _handles(pair[1])[0]:
            pair[1].legend(loc="upper left", bbox_to_anchor=(1, 1.05))
    return figure


def rivals(experiments: list[Experiment]) -> dict[str, list[Experiment]]:
    """Groups experiments that can be compared.

    That is, by the experiment of the original that they are, or by robot and tasks.
    """
    groups: dict[str, list[Experiment]] = {}
    for one in experiments:
        env = one["config"]["env"]
        names = (env["robot"]["name"], task_of(one), *env["task"].get("names", ()))
        title = one["preset"] or ", ".join(names)
        groups.setdefault(title, []).append(one)
    return dict(sorted(groups.items()))


def _pair(
    pair: Any, title: str, own: list[Experiment], words: dict[str, str] | None = None
) -> None:
    """Draws return over steps, and over hours; `words` as in `_panel`."""
    for axes, axis in zip(pair, ("env_steps", "hours")):
        _panel(axes, own, axis, words)
    pair[0].set_title(title, loc="left")
    pair[0].set_ylabel("test return")
    pair[1].sharey(pair[0])


def _handles(axes: Any) -> tuple[list[Any], list[str]]:
    """Returns lines and their labels."""
    return axes.get_legend_handles_labels()


def _panel(
    axes: Any, own: list[Experiment], axis: str, words: dict[str, str] | None
) -> None:
    """Draws runs of experiments and the authors', under their protocol.

    Args:
      axes: where.
      own: the experiments.
      axis: what stands on x.
      words: context -> label of a curve; None for the experiment's name.
    """
    task = task_of(own[0])
    protocol = curves.their_protocol(task)
    authors = curves.authors_of(own[0]["preset"], task, protocol)
    curves.draw_authors(axes, authors, axis)
    names = list(dict.fromkeys(one["name"] for one in own))
    for one in own:
        places, values = together(one, metric_of(protocol), axis)
        if values:
            colour = COLOURS[names.index(one["name"]) % len(COLOURS)]
            context = one["context"]
            told = "" if context == CONTEXTS[0] else f", {context}"
            label = one["name"] + told if words is None else words[context]
            look = (label, colour, LINES[context])
            curves.draw_curve(axes, places, *curves.middle(values), *look)
    if axis == "hours":
        style.log_axis(axes, "hours")
        axes.set_xlim(left=max(axes.get_xlim()[0], SOON))
    else:
        style.count_axis(axes, curves.AXES[axis])
