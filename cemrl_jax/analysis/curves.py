"""Figures of how training went: returns, time, losses."""

from typing import Any

import numpy as np

from cemrl_jax.analysis import style
from cemrl_jax.analysis.figures import Part, Table
from cemrl_jax.analysis.load import (
    RunFiles,
    author_curves,
    compile_seconds,
    preset_of,
)
from cemrl_jax.evaluation.evaluate import CASES
from cemrl_jax.evaluation.statistics import FEW, bootstrap_interval, iqm

AXES = {"env_steps": "environment steps", "updates": "updates", "hours": "hours"}
"""What stands on the x-axis -> its label."""
PROTOCOLS = {"fixed": "task stays", "changing": "task changes"}
DIRECTIONS = ("direction", "flipping")
"""Tasks that change in the authors' evaluations; all others stay."""


def parts(runs: list[RunFiles]) -> list[Part]:
    """Returns the figures of a group of runs that differ in their seed."""
    made = [learning(runs), cases(runs), time(runs), losses(runs)]
    return [part for part in made if part is not None]


def x_values(run: RunFiles, axis: str) -> np.ndarray:
    """Returns what stands on an x-axis, `[rows]`."""
    return run.hours if axis == "hours" else run.column(axis)


def common(
    runs: list[RunFiles], metric: str, axis: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns places on an x-axis and the runs' values at each, one list of places.

    The places are where the runs were evaluated; hours, which differ between runs, are
    interpolated until the slowest run ends. There a run that ended sooner but went as
    far in epochs keeps its last value. One that was stopped early has no value after
    its end.
    """
    found = [(run, *run.evaluations(metric)) for run in runs]
    return merged(
        [(x_values(run, axis)[rows], values) for run, rows, values in found],
        [run.column("epoch")[rows] for run, rows, _ in found],
        axis,
    )


def merged(
    curves: list[tuple[np.ndarray, np.ndarray]], epochs: list[np.ndarray], axis: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns places on an x-axis and the values of curves there, see `common`.

    Args:
      curves: x and y of each, `[N]`; where x is not finite they have no point.
      epochs: of each `[N]`.
      axis: what x is.
    """
    finite = [np.isfinite(x) for x, _ in curves]
    curves = [(x[on], y[on]) for (x, y), on in zip(curves, finite) if on.any()]
    if not curves:
        return np.zeros(0), []
    places = np.unique(np.concatenate([x for x, _ in curves]))
    after = [np.nan] * len(curves)
    if axis == "hours" and len(curves) > 1:
        latest, most = max(x[-1] for x, _ in curves), max(len(x) for x, _ in curves)
        places = np.linspace(0, latest, most)
        ends = [epoch[on][-1] for epoch, on in zip(epochs, finite) if on.any()]
        whole = [end == max(ends) for end in ends]
        after = [y[-1] if done else np.nan for (_, y), done in zip(curves, whole)]
    stacked = np.array(
        [
            np.interp(places, x, y, left=np.nan, right=end)
            for (x, y), end in zip(curves, after)
        ]
    )
    at = [column[np.isfinite(column)] for column in stacked.T]
    keep = [number for number, column in enumerate(at) if len(column)]
    return places[keep], [at[number] for number in keep]


def middle(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the IQM at each place and its interval, see `bootstrap_interval`."""
    rng = np.random.default_rng(0)
    ends = [
        bootstrap_interval(column, rng, resamples=1000)
        if len(column) > 1
        else (column[0], column[0])
        for column in values
    ]
    low, high = np.array(ends, np.float64).reshape(-1, 2).T
    return np.array([iqm(column) for column in values]), low, high


def learning(runs: list[RunFiles]) -> Part | None:
    """Draws the test return against steps, updates and hours, with the authors'."""
    plt = style.pyplot()
    figure, grid = plt.subplots(2, 3, figsize=(style.WIDTH, 5), sharey="row")
    rows: list[tuple[Any, ...]] = []
    preset = preset_of(runs[0])
    for line, (protocol, words) in enumerate(PROTOCOLS.items()):
        metric = f"test/{protocol}_deterministic_return"
        task = runs[0].raw.get("env", {}).get("task", {}).get("name")
        authors = authors_of(preset, task, protocol)
        for axes, (axis, label) in zip(grid[line], AXES.items()):
            draw_authors(axes, authors, axis)
            places, values = common(runs, metric, axis)
            if values:
                centre, low, high = middle(values)
                ours = "CEMRL in JAX"
                ours += f", IQM of {len(runs)}" if len(runs) > 1 else ""
                draw_curve(axes, places, centre, low, high, ours)
                _fit(axes, places, authors, axis)
                counts = [len(column) for column in values]
                rows += [
                    (protocol, axis, *map(float, row))
                    for row in zip(places, centre, low, high, counts)
                ]
            style.count_axis(axes, label)
        grid[line, 0].set_ylabel(f"test return\n{words}")
    if not rows:
        plt.close(figure)
        return None
    style.legend_above(grid[0, 0], 3)
    header = ("protocol", "x_axis", "x", "iqm", "low", "high", "runs")
    return Part(
        "learning_curves",
        "Learning curves",
        _learning_caption(runs, preset),
        figure,
        Table(header, rows),
    )


def _learning_caption(runs: list[RunFiles], preset: str | None) -> str:
    text = (
        "Mean return of test episodes, deterministic actions, under both protocols."
        f" Interquartile mean over {len(runs)} run{'s' * (len(runs) > 1)}"
    )
    if len(runs) > 1:
        text += " with a 95 % bootstrap interval over runs"
    if 1 < len(runs) <= FEW:
        text += (
            f"; of {len(runs)} runs that is the range from lowest to highest, which"
            " holds the true mean less often than 95 % says"
        )
    text += ". Hours are those of phases, without compilation."
    if preset is None:
        return text + " The authors logged no runs of this experiment."
    return text + (
        f" Grey: the authors' runs of {preset}, in the row of the protocol that they"
        " logged. Where their runs are longer than these the axis ends with these and"
        " a dotted line is the mean of their last returns."
    )


def their_protocol(task: str | None) -> str:
    """Returns under which protocol the authors evaluated a family of tasks."""
    return "changing" if task in DIRECTIONS else "fixed"


def authors_of(
    preset: str | None, task: str | None, protocol: str
) -> list[dict[str, Any]]:
    """Returns the authors' runs of a preset if this protocol was theirs."""
    if preset is None or protocol != their_protocol(task):
        return []
    return author_curves()[preset]


def draw_authors(axes: Any, authors: list[dict[str, Any]], axis: str) -> None:
    """Draws the authors' runs, and the mean of their last returns."""
    for number, run in enumerate(authors if axis != "updates" else []):
        axes.plot(
            run[axis],
            run["test_return"],
            color=style.MEANING["authors"],
            linewidth=0.9,
            alpha=0.8,
            label="authors" if number == 0 else None,
        )
    if authors:
        last = np.mean([run["test_return"][-1] for run in authors])
        axes.axhline(last, color=style.MEANING["authors"], linewidth=1, linestyle=":")


def draw_curve(
    axes: Any,
    x: np.ndarray,
    centre: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    label: str,
    colour: str = style.MEANING["ours"],
    line: str = "-",
) -> None:
    """Draws a curve `[N]` and its interval."""
    marker = "o" if len(x) < 15 else None
    own = {"color": colour, "linestyle": line, "marker": marker, "markersize": 3}
    axes.plot(x, centre, label=label, **own)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _fit(
    axes: Any, places: np.ndarray, authors: list[dict[str, Any]], axis: str
) -> None:
    """Ends the axis with our runs where the authors' would squeeze them."""
    theirs = max((run[axis][-1] for run in authors if axis != "updates"), default=0)
    if len(places) > 1 and theirs > 2.5 * places[-1] > 0:
        axes.set_xlim(-0.02 * places[-1], 1.05 * places[-1])


def cases(runs: list[RunFiles]) -> Part | None:
    """Draws every case that training evaluates, and the return while collecting."""
    plt = style.pyplot()
    figure, grid = plt.subplots(1, 2, figsize=(style.WIDTH, 3), sharey=True)
    drawn = False
    for axes, (protocol, words) in zip(grid, PROTOCOLS.items()):
        for case in (case for case in CASES if case.protocol == protocol):
            places, values = common(runs, case.metric, "env_steps")
            if values:
                drawn = True
                axes.plot(
                    places,
                    middle(values)[0],
                    color=style.MEANING[case.pool],
                    linestyle="-" if case.mode == "deterministic" else "--",
                    label=f"{case.pool}, {case.mode}",
                )
        places, values = common(runs, "collect/return", "env_steps")
        if values and protocol == "changing":
            style_of = {"color": style.GREY, "linewidth": 0.9}
            axes.plot(places, middle(values)[0], label="while collecting", **style_of)
        style.legend_above(axes, 2)
        style.count_axis(axes, AXES["env_steps"])
        axes.text(0.99, 0.03, words, ha="right", transform=axes.transAxes)
    grid[0].set_ylabel("return")
    if not drawn:
        plt.close(figure)
        return None
    caption = (
        "Interquartile means over runs of every case: test and train tasks, the"
        " policy's mean (deterministic) and its draws (stochastic). Collecting always"
        " draws actions and follows the schedule."
    )
    return Part("cases", "All protocols", caption, figure)


def time(runs: list[RunFiles]) -> Part | None:
    """Draws seconds of phases per epoch and rates."""
    run = runs[0]
    phases = [name for name in run.columns if name.startswith("seconds/")]
    if not phases or run.num_rows < 1:
        return None
    plt = style.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.8))
    base, epochs = np.zeros(run.num_rows), run.column("epoch")
    totals = []
    for number, name in enumerate(phases):
        seconds = np.nan_to_num(run.column(name))
        label, colour = name.removeprefix("seconds/"), style.series(number)
        left.bar(epochs, seconds, 1.0, base, color=colour, label=label, linewidth=0)
        base += seconds
        totals.append((label, float(seconds.sum()), "s in total"))
    left.set(xlabel="epoch", ylabel="s per epoch")
    style.legend_above(left, 5)
    _rates(right, run, totals)
    compiled = compile_seconds(run)
    totals += [(f"compiling {name}", s, "s, once") for name, s in compiled.items()]
    caption = f"Where time goes in {run.label}: seconds of each epoch, and rates. "
    caption += (
        f"Compiling took {sum(compiled.values()):.1f} s before that."
        if compiled
        else "How long compiling took is not written in this run."
    )
    table = Table(("phase", "value", "unit"), totals)
    return Part("time", "Where time goes", caption, figure, table, shown=True)


def _rates(axes: Any, run: RunFiles, totals: list[tuple[Any, ...]]) -> None:
    names = {
        "speed/env_steps_per_second": ("environment steps", style.BLUE),
        "speed/updates_per_second": ("updates", style.ORANGE),
    }
    for name, (label, colour) in names.items():
        values = run.column(name)
        if np.isfinite(values).any():
            axes.plot(run.column("epoch"), values, ".-", color=colour, label=label)
            totals.append((label, float(np.nanmedian(values)), "per s, median"))
    axes.set(xlabel="epoch", ylabel="per second", yscale="log")
    style.powers(axes)
    style.legend_above(axes, 2)


LOSSES = {
    "ELBO's loss": ("elbo/loss",),
    "prediction": ("elbo/state_error", "elbo/reward_error", "elbo/state_weight"),
    "KL divergence": ("elbo/kl_z", "elbo/kl_y"),
    "scale of the posterior": ("elbo/posterior_std",),
    "critic's loss": ("sac/critic_loss",),
    "actor's loss": ("sac/actor_loss",),
    "values": ("sac/value", "sac/target"),
    "entropy and temperature": ("sac/entropy", "sac/temperature"),
    "falls, broken and lost": (
        "collect/falls",
        "collect/broken",
        "collect/lost",
        "train/skipped",
    ),
}
"""Panel -> columns of progress.csv; those that a run does not have are left out."""


def losses(runs: list[RunFiles]) -> Part | None:
    """Draws what training says of itself, one thin line per run."""
    panels = {
        title: [name for name in names if any(name in run.columns for run in runs)]
        for title, names in LOSSES.items()
    }
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return None
    plt = style.pyplot()
    lines = -(-len(panels) // 3)
    size = (style.WIDTH, 2.3 * lines)
    figure, grid = plt.subplots(lines, 3, figsize=size, squeeze=False, sharex=True)
    for axes, (title, names) in zip(grid.flat, panels.items()):
        for number, name in enumerate(names):
            for count, run in enumerate(runs):
                axes.plot(
                    run.column("env_steps"),
                    run.column(name),
                    color=style.series(number),
                    alpha=1 if len(runs) == 1 else 0.6,
                    linewidth=1,
                    label=name.split("/")[1].replace("_", " ") if not count else None,
                )
        if title == "critic's loss":
            axes.set_yscale("log")
            style.powers(axes, "{:g}".format)
        above = 1.12 if len(names) > 1 else 1.0
        axes.set_title(title, loc="left", color=style.GREY, y=above)
        if len(names) > 1:
            style.legend_above(axes, 3, narrow=True)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes in grid.flat[max(len(panels) - 3, 0) : len(panels)]:
        axes.tick_params(labelbottom=True)
        style.count_axis(axes, AXES["env_steps"])
    absent = [
        name
        for names in LOSSES.values()
        for name in names
        if not any(name in run.columns for run in runs)
    ]
    caption = "What training reports at the end of each epoch, one line per run."
    if absent:
        caption += f" Not reported by these runs: {', '.join(absent)}."
    return Part("losses", "Losses, temperature, values", caption, figure)
