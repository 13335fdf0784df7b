"""What was learnt, as JSON: all runs of an experiment, and what they come to."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import curves
from cemrl_jax.analysis.load import OWN, RunFiles, compile_seconds, preset_of
from cemrl_jax.config import Config
from cemrl_jax.config.codec import TABLES
from cemrl_jax.evaluation.statistics import iqm
from cemrl_jax.runtime import provenance

CONTEXTS = ("inferred", "oracle", "blind")
"""What the policy sees of the task: z, and its bounds."""
METRICS = ("test/", "train/", "validation/", "recovery/", "inference/")
"""How the columns of progress.csv begin that an evaluation writes."""
START = (
    *("epoch", "revision", "command", "engine", "platform", "device_kind", "host"),
    *("host_cores", "num_devices", "versions", "date"),
)
"""What a file says of each start of a run."""
ASIDE = ("name", "checkpoint")
"""Fields that say nothing of what is learnt."""

Experiment = dict[str, Any]
"""The content of a file; see `experiment`."""


def collect(runs: list[RunFiles]) -> list[Experiment]:
    """Returns experiments: runs of one name and the same settings, of a seed each.

    Runs of one name that differ in more than their seed are not pooled, nor is a seed
    that was run again: they are experiments of their own, with a number behind the
    name. Those that began first have none.
    """
    groups: dict[tuple[str, str], list[list[RunFiles]]] = {}
    for run in sorted((run for run in runs if run.num_rows), key=_begin):
        context = run.raw.get("sac", {}).get("context", CONTEXTS[0])
        same = groups.setdefault((run.name, context), [])
        fitting = [group for group in same if _fits(run, group)]
        if fitting:
            fitting[0].append(run)
        else:
            same.append([run])
    taken = {name for name, _ in groups}
    return [
        experiment(name, context, sorted(group, key=lambda run: run.seed or 0))
        for (own, context), same in groups.items()
        for name, group in zip(_names(own, taken), same)
    ]


def _begin(run: RunFiles) -> str:
    """Returns the date of a run's first start, as far as it is known."""
    starts = provenance.read(run.directory)
    return str(starts[0].get("date", "")) if starts else ""


def _fits(run: RunFiles, group: list[RunFiles]) -> bool:
    """Whether a run has the settings of a group and a seed that is not there."""
    seeds = {other.seed for other in group}
    return run.seed not in seeds and settings(run.raw) == settings(group[0].raw)


def _names(name: str, taken: set[str]) -> Iterator[str]:
    """Returns a name, then with numbers from 2 on, without those of other runs."""
    yield name
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    yield from (other for other in numbered if other not in taken)


def settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Returns what a run's results depend on, but for its seed.

    A field that was not there yet has its default.
    """
    own = {key: value for key, value in raw.items() if key not in (*OWN, *ASIDE)}
    try:
        parts = {name: {"name": raw["env"][name]["name"]} for name in TABLES}
        default = _plain(config_lib.from_dict({"env": parts}))
    except Exception:  # of classes of one's own, which may be gone
        return own
    filled = _filled(own, default)
    return {key: filled[key] for key in filled if key not in (*OWN, *ASIDE)}


def _plain(config: Config) -> dict[str, Any]:
    """Returns a configuration as it is read from a file."""
    return json.loads(json.dumps(config_lib.to_dict(config)))


def _filled(own: Any, default: Any) -> Any:
    """Returns own fields, and the default of those that are not there."""
    if not isinstance(own, dict) or not isinstance(default, dict):
        return own
    return default | {key: _filled(own[key], default.get(key)) for key in own}


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

    What the policy sees of the task may differ: bounds are with their preset. So does
    the number that `collect` may have put behind the name.
    """
    known = {preset.name: preset for preset in presets}

    def preset_for(name: str) -> Config | None:
        return known.get(name, known.get(re.sub(r"-\d+$", "", name)))

    found = [one for one in experiments if _is_of(one, preset_for(one["name"]))]
    return found, [one for one in experiments if one not in found]


def _is_of(one: Experiment, preset: Config | None) -> bool:
    """Whether all runs have a preset's settings, as far as these still exist."""
    if preset is None:
        return False
    wanted = settings(_plain(preset))
    wanted["sac"]["context"] = one["context"]
    configs = [one["config"] | run["differs"] for run in one["runs"]]
    return all(_agrees(settings(config), wanted) for config in configs)


def _agrees(own: Any, wanted: Any) -> bool:
    """Whether own fields are as wanted; others may be there."""
    if not isinstance(own, dict) or not isinstance(wanted, dict):
        return bool(own == wanted)
    return all(
        field in own and _agrees(own[field], value) for field, value in wanted.items()
    )


# ---------------------------------------------------------------- numbers


def curve(run: dict[str, Any], metric: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y of a run's evaluations, `[N]`, where there is a y."""
    found = run["evaluations"]
    y = np.array(found.get(metric, [None] * len(found["epoch"])), np.float64)
    x = np.array(found[axis], np.float64)
    return x[np.isfinite(y)], y[np.isfinite(y)]


def together(
    one: Experiment, metric: str, axis: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns places on an x-axis and the runs' values there, see `curves.common`."""
    both = [curve(run, metric, axis) for run in one["runs"]]
    epochs = [curve(run, metric, "epoch")[0] for run in one["runs"]]
    return curves.merged(both, epochs, axis)


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
    at = [
        place
        for place, column in zip(*together(one, metric, "hours"))
        if len(column) == len(one["runs"]) and iqm(column) >= level
    ]
    return float(at[0]) if at else None
