"""Figures of what the agent believes: z and classes against the true tasks."""

from typing import Any

import numpy as np

from cemrl_jax.analysis import describe, style
from cemrl_jax.analysis.figures import Part, Table
from cemrl_jax.analysis.recordings import Study
from cemrl_jax.evaluation import statistics
from cemrl_jax.evaluation.record import Recording
from cemrl_jax.evaluation.statistics import class_accuracy, confusion, r_squared

MOST_LATENTS = 4
"""Dimensions of z that get a panel of their own; of more there is a PCA."""
MANY = 6
"""Base tasks whose names fit side by side below an axis."""


def parts(study: Study) -> list[Part]:
    """Returns the figures of one run."""
    made = [scatter(study), components(study), classes(study), reading(study)]
    return [part for part in made if part is not None]


def settled(study: Study, recording: Recording) -> np.ndarray:
    """Returns which steps `[E, L]` have a window full of the task in force."""
    changed, alive = np.asarray(recording.changed), np.asarray(recording.alive)
    return statistics.settled(changed, alive, study.config.encoder.window_steps)


def task_values(study: Study, recording: Recording) -> list[describe.Parameter]:
    """Returns the numbers that tell tasks apart, for each step `[E * L]`.

    Tasks that are not in the pool, which only directions make, count by their spec.
    """
    pool = describe.parameters(study.env, study.tasks["test"])
    number = np.asarray(recording.number).ravel()
    tasks = recording.transitions.task
    spec = np.asarray(tasks.spec).reshape(number.size, -1)
    own = np.asarray(study.tasks["test"].spec).reshape(-1, spec.shape[1])
    varying = [column for column in range(spec.shape[1]) if np.ptp(own[:, column]) > 0]
    result = []
    for place, parameter in enumerate(pool):
        if place < len(varying):
            values = spec[:, varying[place]]
        else:
            values = parameter.values[np.maximum(number, 0)]
        result.append(describe.Parameter(parameter.label, values))
    return result


def scatter(study: Study) -> Part:
    """Draws the mean z of each episode with an unchanged task against the task."""
    plt = style.pyplot()
    size = min(study.config.encoder.latent_size, MOST_LATENTS)
    parameter = describe.parameters(study.env, study.tasks["test"])[0]
    pools = [name for name in ("test", "train", "extrapolate") if name in study.tasks]
    figure, grid = plt.subplots(
        1, size, figsize=(min(style.WIDTH, 1 + 3.4 * size), 3.2), squeeze=False
    )
    rows: list[tuple[Any, ...]] = []
    many = len(describe.base_names(study.env)) > 1
    for pool in pools:
        recording = study.groups[f"fixed/{pool}"]
        z, spread = _mean_z(study, recording)
        values = _pool_values(study, pool, parameter.label)
        bases = describe.bases(study.tasks[pool])
        for latent, axes in enumerate(grid[0]):
            _points(axes, pool, values, z[:, latent], spread[:, latent], bases, many)
        rows += [
            (pool, int(base), float(value), *map(float, mean))
            for base, value, mean in zip(bases, values, z)
        ]
    for latent, axes in enumerate(grid[0]):
        name = "z" if study.config.encoder.latent_size == 1 else f"z {latent + 1}"
        axes.set(xlabel=parameter.label, ylabel=name)
        style.name_directions(axes, parameter.label)
    _scatter_legend(figure, grid[0, 0], study, pools, many)
    header = ("pool", "base", parameter.label)
    header += tuple(f"z{latent + 1}" for latent in range(z.shape[1]))
    caption = (
        f"Mean inferred z of an episode against its task ({study.run.label}, epoch"
        f" {study.epoch}); bars: standard deviation over the episode's steps with a"
        " full window. Each point is a task that stays."
    )
    return Part(
        "encodings", "z against the true task", caption, figure, Table(header, rows)
    )


def _pool_values(study: Study, pool: str, label: str) -> np.ndarray:
    """Returns the values `[N]` of the parameter of this label in a pool."""
    for parameter in describe.parameters(study.env, study.tasks[pool]):
        if parameter.label == label:
            return parameter.values
    return np.asarray(study.tasks[pool].spec).reshape(len(study.tasks[pool].kind), -1)[
        :, 0
    ]


def _mean_z(study: Study, recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and spread `[E, Z]` of z over the steps that are settled."""
    mask = settled(study, recording)
    mask = np.where(mask.any(1, keepdims=True), mask, np.asarray(recording.alive))
    z = np.where(mask[..., None], np.asarray(recording.belief.z), np.nan)
    return np.nanmean(z, 1), np.nanstd(z, 1)


def _points(
    axes: Any,
    pool: str,
    values: np.ndarray,
    z: np.ndarray,
    spread: np.ndarray,
    bases: np.ndarray,
    by_base: bool,
) -> None:
    marker = style.MARKERS[pool]
    kinds: list[int] = np.unique(bases).tolist() if by_base else [0]
    for base in kinds:
        chosen = bases == base if by_base else slice(None)
        axes.errorbar(
            values[chosen],
            z[chosen],
            spread[chosen],
            fmt=marker,
            markersize=4.5,
            elinewidth=0.8,
            color=style.series(base) if by_base else style.MEANING[pool],
            alpha=0.85,
        )


def _scatter_legend(
    figure: Any, axes: Any, study: Study, pools: list[str], many: bool
) -> None:
    for pool in pools:
        colour = style.GREY if many else style.MEANING[pool]
        axes.plot([], [], style.MARKERS[pool], color=colour, label=pool)
    for number, name in enumerate(describe.base_names(study.env) if many else []):
        axes.plot([], [], "s", color=style.series(number), label=name)
    style.legend_over(figure)


def components(study: Study) -> Part | None:
    """Draws the first two principal components of z where Z > 2."""
    if study.config.encoder.latent_size <= 2:
        return None
    plt = style.pyplot()
    recording = study.groups["fixed/test"]
    mask = settled(study, recording).ravel()
    z = np.asarray(recording.belief.z).reshape(len(mask), -1)[mask]
    if len(z) < 3:
        return None
    centred = z - z.mean(0)
    _, scale, axes_of = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_of[:2].T
    share = np.square(scale) / max(np.square(scale).sum(), 1e-12)
    parameter = task_values(study, recording)[0]
    base = np.asarray(recording.transitions.task.base).ravel()[mask]
    spread = len(np.unique(parameter.values[mask])) > 2
    figure, grid = plt.subplots(
        1, 1 + spread, figsize=(style.WIDTH / (1 if spread else 2), 3.4), squeeze=False
    )
    keep = np.linspace(0, len(flat) - 1, min(len(flat), 2000)).astype(int)
    for number, name in enumerate(describe.base_names(study.env)):
        chosen = keep[base[keep] == number]
        if not len(chosen):
            continue
        grid[0, 0].plot(
            *flat[chosen].T, ".", color=style.series(number), label=name, markersize=3
        )
    style.legend_over(figure)
    if spread:
        values = parameter.values[mask][keep]
        drawn = grid[0, 1].scatter(*flat[keep].T, c=values, s=5, cmap="viridis")
        figure.colorbar(drawn, ax=grid[0, 1], label=parameter.label)
    for panel in grid[0]:
        panel.set(
            xlabel=f"component 1 ({share[0]:.0%} of the variance)",
            ylabel=f"component 2 ({share[1]:.0%})",
        )
    caption = (
        "Principal components of z in test episodes, by base task and by parameter."
    )
    return Part("encodings_pca", "Principal components of z", caption, figure)


def classes(study: Study) -> Part | None:
    """Draws class probabilities by task and the confusion with base tasks."""
    num_classes = study.config.encoder.num_classes
    if num_classes < 2:
        return None
    plt = style.pyplot()
    recording = study.groups["changing"]
    mask = settled(study, recording)
    every_base = np.asarray(recording.transitions.task.base)
    there, base = np.unique(every_base, return_inverse=True)
    base = base.reshape(every_base.shape)[mask]
    known = describe.base_names(study.env)
    names = _fill(known, max(len(known), there.max() + 1))
    names = [names[number] for number in there]
    inferred = np.asarray(recording.belief.inferred)[mask]
    counts = confusion(inferred, base, num_classes, len(names))
    height = 3 if len(names) <= MANY else 4.5
    figure, grid = plt.subplots(1, 2, figsize=(style.WIDTH, height))
    _confusion(grid[0], counts, names)
    probs = np.asarray(recording.belief.probs)[mask]
    width, bottom = 0.7, np.zeros(counts.shape[1])
    for number in range(num_classes):
        mean = [
            probs[base == b, number].mean() if (base == b).any() else 0
            for b in range(counts.shape[1])
        ]
        grid[1].bar(
            range(counts.shape[1]),
            mean,
            width,
            bottom,
            color=style.series(number),
            label=f"class {number}",
        )
        bottom += mean
    grid[1].set(ylabel="mean class probability", ylim=(0, 1))
    _name_bases(grid[1], names)
    style.legend_over(figure, 8)
    accuracy = class_accuracy(counts)
    caption = (
        f"Inferred class against true base task in {counts.sum()} steps whose window is"
        f" full of one task. Accuracy {accuracy:.1%}, with each class standing for the"
        " base task that it meets most often."
    )
    header = ("inferred class", *names)
    rows = [(number, *map(int, row)) for number, row in enumerate(counts)]
    return Part("classes", "Classes", caption, figure, Table(header, rows))


def _fill(names: list[str], count: int) -> list[str]:
    return [*names, *(f"base task {n}" for n in range(len(names), count))][:count]


def _name_bases(axes: Any, names: list[str]) -> None:
    """Writes names of base tasks below an axis, upright where they are many."""
    rotation = 0 if len(names) <= MANY else 90
    axes.set_xticks(range(len(names)), names, rotation=rotation)


def _confusion(axes: Any, counts: np.ndarray, names: list[str]) -> None:
    share = counts / np.maximum(counts.sum(0), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(
            column,
            row,
            f"{share[row, column]:.0%}",
            ha="center",
            va="center",
            color=colour,
            fontsize=9 if counts.shape[1] <= MANY else 6,
        )
    _name_bases(axes, names)
    axes.set_yticks(range(counts.shape[0]), [f"class {n}" for n in range(len(counts))])
    axes.set(xlabel="true base task", ylabel="inferred")
    axes.grid(False)


def readability(study: Study, recording: Recording) -> dict[str, float]:
    """Returns how well tasks can be read from z: R^2 by parameter, class accuracy.

    R^2 is of tasks that the map was not fitted on, see `r_squared`.
    """
    mask = settled(study, recording).ravel()
    z = np.asarray(recording.belief.z).reshape(len(mask), -1)[mask]
    parameters = task_values(study, recording)
    columns = np.stack([parameter.values[mask] for parameter in parameters], -1)
    result = {
        f"R² of {parameter.label}": float(share)
        for parameter, share in zip(parameters[:3], r_squared(z, columns))
    }
    names, num_classes = (
        describe.base_names(study.env),
        study.config.encoder.num_classes,
    )
    if num_classes > 1 and len(names) > 1:
        base = np.asarray(recording.transitions.task.base).ravel()[mask]
        inferred = np.asarray(recording.belief.inferred).ravel()[mask]
        counts = confusion(inferred, base, num_classes, max(len(names), base.max() + 1))
        result["class accuracy"] = class_accuracy(counts)
    return {name: value for name, value in result.items() if np.isfinite(value)}


def reading(study: Study) -> Part | None:
    """Draws how well tasks can be read from z at each checkpoint that is left."""
    values = {
        epoch: readability(study, groups["fixed/test"])
        for epoch, groups in study.earlier.items()
    }
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    if not names:
        return None
    plt = style.pyplot()
    figure, axes = plt.subplots(figsize=(style.WIDTH / 2, 2.6))
    epochs = sorted(values)
    for number, name in enumerate(names):
        line = [values[epoch].get(name, np.nan) for epoch in epochs]
        axes.plot(epochs, line, "o-", color=style.series(number), label=name)
    axes.set(xlabel="epoch of the checkpoint", ylabel="R$^2$ or accuracy")
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
    axes.set_xticks(epochs)
    style.legend_above(axes, 1)
    rows = [
        (epoch, name, values[epoch].get(name, "")) for epoch in epochs for name in names
    ]
    caption = (
        "How well a linear map of z gives tasks that it was not fitted on (below 0:"
        " less well than the tasks' mean does), and a class the base task, in test"
        f" episodes: at the {len(epochs)} checkpoints that the run kept"
        " (checkpoint.keep and the best)."
    )
    table = Table(("epoch", "what", "value"), rows)
    return Part(
        "reading",
        "How well the task can be read from z",
        caption,
        figure,
        table,
        shown=True,
    )
