"""Figures of what happens when the task changes."""

import itertools
from typing import Any

import jax
import numpy as np

from cemrl_jax.analysis import describe, style
from cemrl_jax.analysis.figures import Part, Table
from cemrl_jax.analysis.recordings import Study, spaced
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.evaluation.record import Recording
from cemrl_jax.evaluation.statistics import HOLD, Recovery, recovery

SPAN = (0.5, 4.0)
"""Of the aligned response: windows before and after a change."""


def parts(study: Study) -> list[Part]:
    """Returns the figures of one run."""
    made = [episode(study), aligned(study), intervals(study)]
    return [part for part in made if part is not None]


def episode(study: Study) -> Part:
    """Draws one episode whose task changes."""
    plt = style.pyplot()
    recording = study.groups["shown"]
    end = max(int(np.asarray(recording.alive[0]).sum()), 1)
    seconds = np.arange(end) * study.dt
    many = study.config.encoder.num_classes > 1
    ratios = (1.4, 1, 0.7, 1) if many else (1.4, 1, 1)
    figure, grid = plt.subplots(
        len(ratios),
        1,
        figsize=(style.WIDTH, 1.6 * sum(ratios)),
        sharex=True,
        height_ratios=ratios,
    )
    _task_panel(grid[0], study, recording, end)
    z_panel(grid[1], recording, seconds)
    if many:
        probs = np.asarray(recording.belief.probs[0, :end]).T
        colours = [style.series(number) for number in range(len(probs))]
        labels = [f"class {number}" for number in range(len(probs))]
        grid[2].stackplot(seconds, probs, colors=colours, labels=labels, alpha=0.8)
        grid[2].set(ylabel="class\nprobability", ylim=(0, 1))
        style.legend_above(grid[2], 8)
    reward = np.asarray(recording.transitions.reward[0, :end])
    grid[-1].plot(seconds, reward, color=style.MEANING["reward"], linewidth=1)
    grid[-1].set(ylabel="reward\nper step", xlabel="time, s", xlim=(0, end * study.dt))
    moments = np.flatnonzero(np.asarray(recording.changed[0, :end])) * study.dt
    for axes in grid:
        style.mark_changes(axes, moments)
    caption = (
        f"One test episode of {study.run.label}, epoch {study.epoch}, whose task"
        " changes at the dashed lines; band: scale of z. Return"
        f" {reward.sum():.1f}."
    )
    if end < len(recording.alive[0]):
        caption += f" The robot falls after {end} steps."
    return Part(
        "response",
        "Time response to changes",
        caption,
        figure,
        _episode_table(study, recording, end),
    )


def _task_panel(axes: Any, study: Study, recording: Recording, end: int) -> None:
    label, actual, goal = describe.track(study.env, recording, 0)
    seconds = np.arange(end) * study.dt
    axes.plot(
        seconds,
        actual[:end],
        color=style.MEANING["actual"],
        linewidth=1,
        label="actual",
    )
    if goal is not None:
        axes.step(
            seconds, goal[:end], where="post", color=style.MEANING["goal"], label="goal"
        )
    axes.set_ylabel(label.replace(", ", ",\n"))
    texts = describe.captions(study.env, recording, 0, end)
    room = 12 if len(texts) <= 6 else 0
    for start, text in texts if room else []:
        axes.annotate(
            text,
            (start * study.dt, 1),
            (3, 3),
            fontsize=8,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=style.MEANING["goal"],
        )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.05 * (high - low))
    axes.legend(
        loc="lower right", ncols=2, frameon=True, framealpha=0.85, edgecolor="none"
    )


def z_panel(axes: Any, recording: Recording, seconds: np.ndarray) -> None:
    """Draws z of the first episode with its scale."""
    z = np.asarray(recording.belief.z[0, : len(seconds)])
    std = np.asarray(recording.belief.z_std[0, : len(seconds)])
    for latent in range(min(z.shape[1], 6)):
        colour = style.MEANING["z"] if z.shape[1] == 1 else style.series(latent)
        axes.plot(
            seconds, z[:, latent], color=colour, linewidth=1.2, label=f"z {latent + 1}"
        )
        axes.fill_between(
            seconds,
            z[:, latent] - std[:, latent],
            z[:, latent] + std[:, latent],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axes.set_ylabel("inferred z")
    if z.shape[1] > 1:
        style.legend_above(axes, 6)


def _episode_table(study: Study, recording: Recording, end: int) -> Table:
    label, actual, goal = describe.track(study.env, recording, 0)
    z = np.asarray(recording.belief.z[0])
    header = ("step", "task", label, "goal", "reward")
    header += tuple(f"z{n + 1}" for n in range(z.shape[1]))
    goal = np.full(len(actual), np.nan) if goal is None else goal
    rows = [
        (
            step,
            int(recording.number[0, step]),
            float(actual[step]),
            float(goal[step]),
            float(recording.transitions.reward[0, step]),
            *map(float, z[step]),
        )
        for step in range(end)
    ]
    return Table(header, rows)


def changes(study: Study) -> tuple[str, Recording]:
    """Returns episodes with changes: by the run's schedule, else planned ones."""
    recording = study.groups["changing"]
    if np.asarray(recording.changed).any():
        return "changes by the schedule", recording
    planned = [name for name in study.groups if name.startswith("every/")]
    if not planned:
        return "no changes", recording
    name = max(planned, key=lambda text: int(text.split("/")[1]))
    return f"changes planned every {name.split('/')[1]} steps", study.groups[name]


def recovered(recording: Recording) -> Recovery:
    """Returns recovery after the changes of episodes."""
    return recovery(
        np.asarray(recording.belief.z),
        np.asarray(recording.transitions.reward),
        np.asarray(recording.changed),
        np.asarray(recording.alive),
    )


def aligned(study: Study) -> Part | None:
    """Draws the mean response, with all changes at the same moment."""
    origin, recording = changes(study)
    result = recovered(recording)
    if not len(result.z_steps):
        return None
    plt = style.pyplot()
    window = study.config.encoder.window_steps
    before, after = max(int(SPAN[0] * window), 3), int(SPAN[1] * window) + HOLD
    distance, reward = _align(recording, before, after)
    if not len(distance):
        return None
    figure, grid = plt.subplots(1, 3, figsize=(style.WIDTH, 2.8))
    steps = np.arange(-before, after)
    series = (
        (
            distance,
            "z",
            "distance of z from its final value,\nin distances at the change",
        ),
        (reward, "reward", "reward per step"),
    )
    for axes, (values, meaning, label) in zip(grid, series):
        seen = np.isfinite(values).any(0)
        low, centre, high = np.nanquantile(values[:, seen], (0.25, 0.5, 0.75), axis=0)
        colour = style.MEANING[meaning]
        axes.plot(steps[seen], centre, color=colour)
        axes.fill_between(steps[seen], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.axvline(0, color=style.MEANING["change"], linestyle="--")
        axes.axvline(window, color=style.MEANING["change"], linestyle=":")
        axes.set(xlabel="steps after the change", ylabel=label)
    grid[0].set_ylim(0, min(max(grid[0].get_ylim()[1], 1.1), 2))
    _histogram(grid[2], result, window)
    metrics = result.metrics()
    caption = (
        f"{len(result.z_steps)} changes in test episodes ({origin}); median and"
        f" quartiles. Dashed: the change; dotted: the window of {window} steps holds"
        " the new task alone. Medians: z within 10 % of its final value after"
        f" {metrics['recovery/z_steps']:.0f} steps, reward within 10 % of its level"
        f" after {metrics['recovery/reward_steps']:.0f}; mean return lost to a change"
        f" {metrics['recovery/lost_return']:.2f}."
    )
    return Part(
        "recovery", "Recovery after a change", caption, figure, _recovery_table(result)
    )


def _align(
    recording: Recording, before: int, after: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns z's relative distance and the reward around changes, `[C, steps]`."""
    changed, alive = np.asarray(recording.changed), np.asarray(recording.alive)
    z, reward = np.asarray(recording.belief.z), np.asarray(recording.transitions.reward)
    length = changed.shape[1]
    distances, rewards = [], []
    for number in range(len(changed)):
        starts = [*np.flatnonzero(changed[number]).tolist(), length]
        for start, end in itertools.pairwise(starts):
            if start < 1 or end - start < 2 * HOLD or not alive[number, end - 1]:
                continue
            final = z[number, start + 3 * (end - start) // 4 : end].mean(0)
            scale = np.linalg.norm(z[number, start] - final)
            row = np.full((2, before + after), np.nan)
            first, last = max(start - before, 0), min(start + after, end)
            place = slice(first - start + before, last - start + before)
            far = np.linalg.norm(z[number, first:last] - final, axis=-1)
            row[0, place] = far / max(scale, 1e-9)
            row[1, place] = reward[number, first:last]
            distances.append(row[0])
            rewards.append(row[1])
    kept = [np.isfinite(row).any() for row in distances]
    columns = np.array(distances)[kept], np.array(rewards)[kept]
    return columns if len(kept) else (np.zeros((0, 1)), np.zeros((0, 1)))


def _histogram(axes: Any, result: Recovery, window: int) -> None:
    top = max(
        np.quantile(np.concatenate([result.z_steps, result.reward_steps]), 0.98), 2
    )
    bins = np.linspace(0, top, 16)
    for values, meaning, label in (
        (result.z_steps, "z", "z"),
        (result.reward_steps, "reward", "reward"),
    ):
        axes.hist(
            np.minimum(values, top),
            bins,
            histtype="step",
            linewidth=1.6,
            color=style.MEANING[meaning],
            label=label,
        )
    axes.axvline(window, color=style.MEANING["change"], linestyle=":")
    axes.set(xlabel="steps to recover", ylabel="changes")
    axes.yaxis.get_major_locator().set_params(integer=True)
    style.legend_above(axes, 2)


def _recovery_table(result: Recovery) -> Table:
    rows = list(
        zip(
            map(int, result.z_steps),
            map(int, result.reward_steps),
            map(float, result.lost_return),
        )
    )
    return Table(("z_steps", "reward_steps", "lost_return"), rows)


def intervals(study: Study) -> Part | None:
    """Draws return and recovery of the same policy under other change intervals."""
    names = [name for name in study.groups if name.startswith("every/")]
    if not names:
        return None
    rows: list[tuple[Any, ...]] = [
        (int(name.split("/")[1]), *_under(study.groups[name]))
        for name in sorted(names, key=lambda text: int(text.split("/")[1]))
    ]
    still = _under(staying(study, names[0]))
    rows.append(("never", *still))
    if not isinstance(study.env.schedule, Stationary):
        rows.append(("the schedule", *_under(study.groups["changing"])))
    plt = style.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.8))
    steps = [row[0] for row in rows if isinstance(row[0], int)]
    returns = np.array([row[1] for row in rows[: len(steps)]])
    left.plot(steps, returns, "o-", color=style.MEANING["ours"], label="task changes")
    left.axhline(still[0], color=style.GREY, linestyle=":", label="task stays")
    left.set(xlabel="steps between changes", ylabel="mean reward per step")
    style.legend_above(left, 2)
    for place, meaning in ((2, "z"), (3, "reward")):
        values = [float(row[place] if row[place] != "" else "nan") for row in rows]
        right.plot(
            steps,
            values[: len(steps)],
            "o-",
            color=style.MEANING[meaning],
            label=meaning,
        )
    right.plot(steps, steps, color=style.LIGHT, linestyle="--", label="next change")
    right.set(xlabel="steps between changes", ylabel="median steps to recover")
    style.legend_above(right, 3)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
    header = (
        "steps between changes",
        "reward per step",
        "steps of z",
        "steps of reward",
        "return lost per change",
        "changes",
        "falls",
    )
    caption = (
        "The same policy on test tasks that change more or less often than it was"
        " trained for. Recovery is not defined for tasks that last less than"
        f" {2 * HOLD} steps."
    )
    return Part(
        "change_intervals",
        "Other change intervals",
        caption,
        figure,
        Table(header, rows),
        shown=True,
    )


def staying(study: Study, name: str) -> Recording:
    """Returns episodes in which the tasks stay that another group's begin with.

    Args:
      study: what was recorded.
      name: of the other group, whose tasks are evenly spaced among the test tasks.
    """
    recording = study.groups["fixed/test"]
    chosen = spaced(len(recording.alive), len(study.groups[name].alive))
    return jax.tree.map(lambda leaf: leaf[chosen], recording)


def _under(recording: Recording) -> tuple[Any, ...]:
    """Returns reward per step, recovery of z and reward, loss, changes, falls."""
    alive = np.asarray(recording.alive)
    reward = float(np.asarray(recording.transitions.reward)[alive].mean())
    result = recovered(recording)
    found = result.metrics()
    keys = ("recovery/z_steps", "recovery/reward_steps", "recovery/lost_return")
    falls = int((~alive).any(1).sum())
    return (reward, *(found.get(key, "") for key in keys), len(result.z_steps), falls)
