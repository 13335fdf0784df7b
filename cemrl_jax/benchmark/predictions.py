"""What rows of compiled programs look like to a person, and what became of them."""

import re
from typing import Any

from cemrl_jax.benchmark.counts import KINDS
from cemrl_jax.config import ConfigError

Row = dict[str, Any]

COLUMNS = {
    "kernels": ("kernels_per_step", ",.0f"),
    "library calls": ("num_library_calls", ",.0f"),
    "dynamic loops": ("dynamic_loops", ",.0f"),
    "collectives": ("collectives", ",.0f"),
    "kB in them": ("collective_kilobytes", ",.0f"),
    "MFLOP": ("megaflops", ",.0f"),
    "MB moved": ("megabytes", ",.1f"),
    "temporary MB": ("temporary_megabytes", ",.0f"),
    "copies of the replay": ("replay_copies", ",.0f"),
    "callbacks": ("callbacks", ",.0f"),
    "compile s": ("phase_compile_seconds", ",.0f"),
    "predicted us": ("predicted_microseconds", ",.0f"),
    "bound by": ("bound_by", ""),
    "room": ("room", ",.1f"),
    "predicted a second": ("predicted_rate", ",.0f"),
    "measured": ("measured_rate", ",.0f"),
    "measured / predicted": ("measured_ratio", ".2f"),
}
"""Of the table of one step: label -> field of `flat` and its format."""
NOT_COMPARED = (*("compile s", "bound by", "room", "measured", "measured / predicted"),)
RATE = r"predicted_.*_per_second"
"""The field of a compiled phase that says how fast it would be."""
PREDICTION = """\
Compiled for the device and counted; nothing was run. Numbers are of one step on one
device, loops multiplied out, those whose length only the device knows up to their
limit. Times are a prediction from data sheets, not a measurement: the largest of
operations / peak, bytes / bandwidth and kernels x launch time, collectives on top."""


def flat(row: Row) -> Row:
    """Returns a row with the numbers within its dicts beside the others.

    Those of a compiled program get the units of its table as well.
    """
    inner = {
        f"{name}/{key}": number
        for name, value in row.items()
        if isinstance(value, dict)
        for key, number in value.items()
    }
    if row["measure"] != "compiled":
        return row | inner
    seconds = row["predicted_step_seconds"]
    alone = {x: seconds[x] for x in ("launches", "bytes", "flops")}
    rate = next(x for x in row if re.fullmatch(RATE, x))
    field = rate.removeprefix("predicted_")
    return (
        {f"kernels_by_kind/{kind}": 0 for kind in KINDS}
        | row
        | inner
        | {
            "num_library_calls": sum(row["library_calls"].values()),
            "collective_kilobytes": row["collective_bytes"] / 1e3,
            "megaflops": sum(row["flops"].values()) / 1e6,
            "megabytes": row["bytes"] / 1e6,
            "temporary_megabytes": row["temporary_bytes"] / 1e6,
            "predicted_microseconds": seconds["seconds"] * 1e6,
            "bound_by": max(alone, key=lambda name: alone[name]),
            "predicted_rate": row[rate],
            "measured_rate": row.get(f"measured_{field}"),
            "measured_ratio": row.get(f"measured_over_predicted_{field}"),
        }
    )


def table(rows: list[Row]) -> str:
    """Returns the table of compiled phases."""
    done = [flat(row) for row in rows]
    columns = {
        name: (field, form)
        for name, (field, form) in COLUMNS.items()
        if any(row[field] is not None for row in done)
    }
    lines = [
        "| target | phase | step | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---:|" * len(columns),
    ]
    for row in done:
        cells = [row["target"], row["phase"], row["step"]]
        cells += [
            "" if row[field] is None else format(row[field], form)
            for field, form in columns.values()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def only_compiled(rows: list[Row]) -> list[Row]:
    """Returns rows of compiled phases as they are.

    Raises:
      ConfigError: one of them is something else.
    """
    if any(row["measure"] != "compiled" for row in rows):
        raise ConfigError("these must be rows of --compile-for alone")
    return rows


def scale(rows: list[Row]) -> str:
    """Returns what becomes of a preset on more and more devices, as markdown.

    A line has what the phases of one target share, the largest of each.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["preset"], row["target"]), []).append(row)
    head = (
        *("preset", "target", "devices", "envs each", "batch each", "MB each"),
        *("all-reduces", "kB", "share of the update", "updates/s", "env steps/s"),
        *("environments that fit", "transitions that fit"),
    )
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for (preset, target), group in groups.items():
        cells = [preset, target, *_scale(group)]
        lines.append("| " + " | ".join(cells) + " |")
    return PREDICTION + "\n\n" + "\n".join(lines)


def _scale(phases: list[Row]) -> list[str]:
    """Returns the numbers of one target: of its update, if it has one, and of all."""
    one = phases[0]
    update = next((row for row in phases if row["step"] == "update"), None)
    seconds = update["predicted_step_seconds"] if update else {}
    of_all = lambda field: [row[field] for row in phases if field in row]  # noqa: E731
    numbers = {
        "devices": one["num_devices"],
        "envs": one["num_envs"] // one["num_devices"],
        "batch": one["batch_size"] // one["num_devices"],
        "memory": max(of_all("peak_memory_bytes")) / 1e6,
        "all-reduces": update and update["collectives"],
        "kB": update and update["collective_bytes"] / 1e3,
        "share": update and 100 * seconds["collectives"] / seconds["seconds"],
        "updates": max(of_all("predicted_updates_per_second"), default=None),
        "env steps": max(of_all("predicted_env_steps_per_second"), default=None),
        "envs fit": min(of_all("fitting_envs"), default=None),
        "replay fits": min(of_all("fitting_transitions")),
    }
    texts = {name: "" if x is None else f"{x:,.0f}" for name, x in numbers.items()}
    texts["share"] += " %" if texts["share"] else ""
    return list(texts.values())


def with_measured(predicted: list[Row], measured: list[Row]) -> list[Row]:
    """Returns predictions with what was measured, and measured / predicted, beside.

    Rows belong together if preset, number of devices and what decides a rate do: the
    number of environments of env steps, else the batch size.

    Raises:
      ConfigError: no prediction has a measurement, or a row is none.
    """
    joined = []
    for row in only_compiled(predicted):
        rate = next(x for x in row if re.fullmatch(RATE, x))
        field = rate.removeprefix("predicted_")
        size = "num_envs" if row["phase"] == "collect" else "batch_size"
        same = ("preset", "num_devices", size)
        found = [
            other
            for other in measured
            if field in other and all(row[name] == other[name] for name in same)
        ]
        if found:
            last = found[-1]
            row = row | {
                f"measured_{field}": last[field],
                f"measured_over_predicted_{field}": last[field] / row[rate],
                "measured_on": f"{last['device_kind']}, revision {last['revision']}",
            }
        joined.append(row)
    if not any("measured_on" in row for row in joined):
        raise ConfigError("no row of the second file has the sizes of one of the first")
    return joined
