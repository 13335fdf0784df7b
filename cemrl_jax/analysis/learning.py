"""What was learnt: runs of all experiments as JSON, and from that tables and pictures.

A file per experiment holds every evaluation of every seed, and where it comes from. The
tables and the pictures are made of the files alone, so that anyone can make them again.
Those of the presets as they are now come first, and apart from what else was tried.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import curves, style
from cemrl_jax.analysis.load import RunFiles, compile_seconds, preset_of
from cemrl_jax.config import Config
from cemrl_jax.config.codec import TABLES
from cemrl_jax.evaluation.statistics import bootstrap_interval, iqm
from cemrl_jax.runtime import provenance

RESULTS = pathlib.Path("results", "learning")
"""Below the folder of the page: a file per experiment, and the pictures."""
PAGE, PICTURE, TRIED = "learning.md", "learning", "tried"
BEGIN, END = "<!-- made by scripts/analyse.py: begin -->", "<!-- end -->"
LINES = {"inferred": "-", "oracle": "--", "blind": ":"}
"""What the policy sees of the task -> how its curve is drawn."""
CONTEXTS = (*LINES,)
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
METRICS = ("test/", "train/", "validation/", "recovery/", "inference/")
"""How the columns of progress.csv begin that an evaluation writes."""
START = (
    *("epoch", "revision", "command", "engine", "platform", "device_kind", "host"),
    *("host_cores", "num_devices", "versions", "date"),
)
"""What a file says of each start of a run."""
OWN = ("seed", "num_seeds", "output_dir", "tensorboard", "logging")
"""Fields in which the runs of an experiment always differ."""
ASIDE = ("name", "checkpoint")
"""Fields that say nothing of what is learnt."""

Experiment = dict[str, Any]
"""The content of a file; see `experiment`."""


def collect(runs: list[RunFiles]) -> list[Experiment]:
    """Returns experiments: runs of one name whose policies see the same of the task."""
    groups: dict[tuple[str, str], list[RunFiles]] = {}
    for run in runs:
        context = run.raw.get("sac", {}).get("context", CONTEXTS[0])
        if run.num_rows:
            groups.setdefault((run.name, context), []).append(run)
    return [
        experiment(name, context, sorted(group, key=lambda run: run.seed or 0))
        for (name, context), group in groups.items()
    ]


def experiment(name: str, context: str, runs: list[RunFiles]) -> Experiment:
    """Returns what a file says of runs that differ in their seed.

    Args:
      name: of the runs.
      context: what the policy sees of the task.
      runs: of different seeds.

    Returns:
      `name`, `context`, `preset` (of the authors' experiment, if it is one), `config`
      (of the first run), and `runs`: of each its `seed`, the fields of its
      configuration that are its own (`differs`), `starts`, `compile_seconds` and the
      columns of its evaluations, with the hours of all phases until then.
    """
    config = {key: value for key, value in runs[0].raw.items() if key not in OWN}
    return {
        "name": name,
        "context": context,
        "preset": preset_of(runs[0]),
        "config": config,
        "runs": [_run(run, config) for run in runs],
    }


def _run(run: RunFiles, config: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in run.raw.items() if key not in OWN}
    names = [name for name in run.columns if name.startswith(METRICS)]
    evaluated = [np.isfinite(run.column(name)) for name in names]
    rows = np.flatnonzero(np.any(evaluated, 0)) if names else np.zeros(0, int)
    columns = {name: run.column(name) for name in ("epoch", "env_steps", "updates")}
    columns |= {"hours": run.hours} | {name: run.column(name) for name in names}
    return {
        "seed": run.seed,
        "differs": {key: own[key] for key in own if own[key] != config.get(key)},
        "starts": [
            {key: start.get(key) for key in START}
            for start in provenance.read(run.directory)
        ],
        "compile_seconds": compile_seconds(run),
        "evaluations": {name: _listed(x[rows]) for name, x in columns.items()},
    }


def _listed(values: np.ndarray) -> list[float | None]:
    """Returns numbers for JSON: eight digits, None for NaN."""
    rounded = [float(f"{x:.8g}") if np.isfinite(x) else None for x in values]
    return [int(x) if x is not None and x == int(x) else x for x in rounded]


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


def dumps(one: Experiment) -> str:
    """Returns an experiment as JSON with a column of evaluations on a line."""
    lines = json.dumps(one, indent=1).split("\n")
    text, joined = [], ""
    for line in lines:
        if joined:
            joined += line.strip() + " "
        elif line.endswith(": ["):
            joined = line
        else:
            text.append(line)
        if joined and (line.strip() in ("]", "],") or "{" in line):
            text.append(joined.rstrip())
            joined = ""
    return "\n".join(text) + "\n"


def by_preset(
    experiments: list[Experiment], presets: Iterable[Config]
) -> tuple[list[Experiment], list[Experiment]]:
    """Returns experiments with name and settings of a preset, and all others.

    What the policy sees of the task may differ: bounds are with their preset.
    """
    known = {preset.name: preset for preset in presets}
    found = [one for one in experiments if _is_of(one, known.get(one["name"]))]
    return found, [one for one in experiments if one not in found]


def _is_of(one: Experiment, preset: Config | None) -> bool:
    """Whether an experiment has a preset's settings, as far as they still exist."""
    if preset is None:
        return False
    settings = json.loads(json.dumps(config_lib.to_dict(preset)))
    parts = {name: {"name": settings["env"][name]["name"]} for name in TABLES}
    default = config_lib.to_dict(config_lib.from_dict({"env": parts}))
    settings["sac"]["context"] = one["context"]
    return all(
        _agrees(one["config"].get(field, default[field]), value, default[field])
        for field, value in settings.items()
        if field not in (*OWN, *ASIDE)
    )


def _agrees(own: Any, wanted: Any, default: Any) -> bool:
    """Whether own fields are as wanted; one that was not there yet is the default."""
    if not isinstance(wanted, dict):
        return bool(own == wanted)
    return all(
        _agrees(own.get(field, default[field]), value, default[field])
        for field, value in wanted.items()
    )


# ---------------------------------------------------------------- numbers


def curve(run: dict[str, Any], metric: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y of a run's evaluations, `[N]`, where there is a y."""
    found = run["evaluations"]
    y = np.array(found.get(metric, [None] * len(found["epoch"])), np.float64)
    x = np.array(found[axis], np.float64)
    return x[np.isfinite(y)], y[np.isfinite(y)]


def last(one: Experiment, metric: str) -> np.ndarray:
    """Returns the last value of a metric in each run that has one after learning.

    Some are measured with checkpoints only; what the untrained policy had is no result.
    """
    curves = [curve(run, metric, "updates") for run in one["runs"]]
    return np.array([values[-1] for at, values in curves if len(at) and at[-1] > 0])


def metric_of(protocol: str) -> str:
    """Returns the metric that is reported under a protocol."""
    return f"test/{protocol}_deterministic_return"


def task_of(one: Experiment) -> str:
    """Returns the name of the family of tasks."""
    return str(one["config"]["env"]["task"]["name"])


def hours_of(one: Experiment) -> float:
    """Returns the time of the longest run, compilation of a start included, h."""
    return max(
        (run["evaluations"]["hours"][-1] or 0)
        + sum(run["compile_seconds"].values()) / 3600
        for run in one["runs"]
    )


def reached(one: Experiment, level: float) -> float | None:
    """Returns the hours until the IQM of all runs is at a level, None if it never is.

    The level counts under the authors' protocol.
    """
    metric = metric_of(curves.their_protocol(task_of(one)))
    both = [curve(run, metric, "hours") for run in one["runs"]]
    places, values = curves.merged(both, "hours")
    at = [
        place
        for place, column in zip(places, values)
        if len(column) == len(both) and iqm(column) >= level
    ]
    return float(at[0]) if at else None


# ---------------------------------------------------------------- page


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


# ---------------------------------------------------------------- pictures


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
        both = [curve(run, metric_of(protocol), axis) for run in one["runs"]]
        places, values = curves.merged(both, axis)
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
