"""What benchmark rows look like to a person: tables, comparisons, plots."""

import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from cemrl_jax.benchmark import predictions
from cemrl_jax.benchmark.counts import KINDS
from cemrl_jax.config import ConfigError

Row = dict[str, Any]

KEY = (
    *("measure", "preset", "num_devices", "num_envs", "batch_size", "num_steps"),
    *("target", "phase"),
)
"""Rows of two files belong together if these agree and the networks do."""

NETWORKS = ("encoder", "window_steps", "parameters")

ROLLOUT = {
    "env steps/s": ("env_steps_per_second", ",.0f"),
    "physics steps/s": ("physics_steps_per_second", ",.0f"),
    "physics alone, env steps/s": ("limit_env_steps_per_second", ",.0f"),
    "share of physics": ("rollout_share_of_physics", ".0%"),
}
UPDATE = {
    "fused updates/s": ("updates_per_second", ",.1f"),
    "samples/s": ("samples_per_second", ",.0f"),
    "model steps/s": ("model_steps_per_second", ",.1f"),
    "policy steps/s": ("policy_steps_per_second", ",.1f"),
    "embed points/s": ("embed_points_per_second", ",.0f"),
    "share of arithmetic": ("update_share_of_arithmetic", ".1%"),
    "share of bandwidth": ("update_share_of_bandwidth", ".1%"),
}
LIMITS = {
    "matrix product, GFLOP/s": ("limit_matmul_flops_per_second", 1e-9),
    "at highest precision": ("limit_matmul_highest_flops_per_second", 1e-9),
    "copy, GB/s": ("limit_copy_bytes_per_second", 1e-9),
    "empty dispatch, us": ("empty_dispatch_seconds", 1e6),
    "small kernel, us": ("limit_kernel_seconds", 1e6),
    "step of a loop of unknown length, us": ("limit_unknown_loop_step_seconds", 1e6),
}
STARTUP = {
    "cold start, s": ("startup_cold_seconds", ",.1f"),
    "warm start, s": ("startup_warm_seconds", ",.1f"),
}
METRICS = (
    LIMITS
    | {
        name: (field, 1)
        for group in (ROLLOUT, UPDATE, STARTUP)
        for name, (field, _) in group.items()
    }
    | {
        name: (field, 1)
        for name, (field, form) in predictions.COLUMNS.items()
        if name not in predictions.NOT_COMPARED
    }
    | {f"kernels: {kind}": (f"kernels_by_kind/{kind}", 1) for kind in KINDS}
    | {
        "kernels around the steps": ("kernels_around", 1),
        "reads by the host": ("host_reads", 1),
        "replay, bytes a transition": ("replay_bytes_per_transition", 1),
        "replay on the device, MB": ("replay_padded_bytes", 1e-6),
        "copied of the replay, MB": ("replay_copy_bytes", 1e-6),
        "memory at its peak, MB": ("peak_memory_bytes", 1e-6),
    }
)
"""What a comparison shows: label -> field of a row and the unit's factor."""

ORIGINAL = {
    "a reconstruction step": ("model_steps_per_second", 1 / 73.39e-3),
    "the same in segments of 8 windows": (
        "model_segments_updates_per_second",
        1 / 73.39e-3,
    ),
    "a policy step": ("policy_steps_per_second", 1 / 26.96e-3),
    "relabelling a transition": ("embed_points_per_second", 4752.0),
    "an environment step": ("env_steps_per_second", 1166.0),
}
"""Best rates of the original with 2 threads on 2 cores of an AMD EPYC, per second.

Its rollout is one environment with stochastic actions; relabelling had 1 thread.
"""
ORIGINAL_SIZES = {
    "robot": "HalfCheetah",
    "window_steps": 10,
    "batch_size": 256,
    "encoder_width_factor": 10.0,
    "hidden_size": 300,
    "num_layers": 3,
}


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads a result file.

    Raises:
      ConfigError: there is none, or a line of it is no row.
    """
    try:
        lines = path.read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not a file of JSON lines: {error}") from error
    if not rows or not all(isinstance(row, dict) and "measure" in row for row in rows):
        raise ConfigError(f"{path} holds no rows of a benchmark")
    return rows


def device(row: Row) -> str:
    """Names the device of a row."""
    if row["platform"] == "cpu":
        return f"{row['host']}, {row['host_cores']} cores"
    return row["device_kind"]


# ---------------------------------------------------------------- comparison


def compare(old: list[Row], new: list[Row]) -> str:
    """Returns two results side by side, with the ratio of the second to the first.

    Raises:
      ConfigError: no row of one is like a row of the other.
    """
    old, new = (list(map(predictions.flat, rows)) for rows in (old, new))
    others = {_key(row): row for row in new}
    pairs = [(row, others[_key(row)]) for row in old if _key(row) in others]
    if not pairs:
        raise ConfigError("no row of the first file has the sizes of one of the second")
    lines: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    for row, other in pairs:
        cells = []
        for name, (field, unit) in METRICS.items():
            if field not in row or field not in other:
                continue
            values = (row[field], other[field])
            once = (field, row.get("phase"), *values)
            if once not in seen:  # stands in several rows of a sweep: show it once
                cells.append(
                    [name, *(_number(v * unit) for v in values), _ratio(*values)]
                )
            seen.add(once)
        lines += ["", _title(row), *_columns(["", "A", "B", "B / A"], cells)]
    left = len(old) + len(new) - 2 * len(pairs)
    if left:
        lines += ["", f"{left} rows are in one file only"]
    a, b = pairs[0]
    head = [
        f"{x}: {device(r)}, revision {r['revision']}, {r['date']}"
        for x, r in zip("AB", (a, b))
    ]
    return "\n".join(head + lines)


def _key(row: Row) -> str:
    return json.dumps([row.get(name) for name in (*KEY, *NETWORKS)])


def _title(row: Row) -> str:
    if row["measure"] == "startup":
        return f"{row['preset']}: start-up"
    if row["measure"] == "compiled":
        return (
            f"{row['preset']}: one {row['step']} of {row['phase']} on {row['target']}"
        )
    return (
        f"{row['preset']}: {row['num_envs']:,} environments, batches of"
        f" {row['batch_size']:,}, {row['num_devices']} x {row['device_kind']}"
    )


def _number(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def _ratio(old: float, new: float) -> str:
    return f"{new / old:.2f}" if old else "-"


def _columns(head: Sequence[str], cells: list[list[str]]) -> list[str]:
    """Returns lines with the first column to the left and the others to the right."""
    rows = [list(head), *cells]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:])),
            ]
        )
        for row in rows
    ]


# ---------------------------------------------------------------- tables


def table(rows: list[Row]) -> str:
    """Returns the rows as markdown, one section per device, preset and engine."""
    sections: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        engine = row.get("engine", "mjx")  # rows of before there was a choice
        subject = row["preset"] + (f", physics by {engine}" if engine else "")
        sections.setdefault((device(row), subject), []).append(row)
    parts = [_section(*subject, part) for subject, part in sections.items()]
    if any(row["measure"] == "compiled" for row in rows):
        parts = [predictions.PREDICTION, *parts]
    return "\n\n".join(parts)


def _section(name: str, preset: str, rows: list[Row]) -> str:
    first, versions = rows[0], rows[0]["versions"]
    revisions = ", ".join(dict.fromkeys(row["revision"] for row in rows))
    head = (
        f"### {name}: {preset}\n\n{first['date'][:10]}, revision {revisions}, jax"
        f" {versions['jax']}, mujoco-mjx {versions['mujoco-mjx']}, Python"
        f" {versions['python']}"
    )
    parts = [head]
    swept = [row for row in rows if row["measure"] == "sweep"]
    if swept:
        parts.append(_limits(swept[-1]))
        parts.append(
            _markdown({"devices": "num_devices", "envs": "num_envs"}, ROLLOUT, swept)
        )
        parts.append(
            _markdown({"devices": "num_devices", "batch": "batch_size"}, UPDATE, swept)
        )
        parts += [against for against in [_against_original(swept)] if against]
    compiled = [row for row in rows if row["measure"] == "compiled"]
    parts += [predictions.table(compiled)] if compiled else []
    starts = [row for row in rows if row["measure"] == "startup"]
    parts += [
        "Time to the end of the first epoch:"
        f" {row['startup_cold_seconds']:.1f} s with an empty compile cache,"
        f" {row['startup_warm_seconds']:.1f} s with a full one."
        for row in starts[-1:]
    ]
    return "\n\n".join(parts)


def _limits(row: Row) -> str:
    numbers = [
        f"{name} {_number(row[field] * unit)}"
        for name, (field, unit) in LIMITS.items()
        if field in row  # rows of before it was measured
    ]
    return "Limits of one device: " + "; ".join(numbers) + "."


def _markdown(
    key: dict[str, str], columns: dict[str, tuple[str, str]], rows: list[Row]
) -> str:
    """Returns a markdown table with the latest row of each key."""
    latest = {tuple(row[field] for field in key.values()): row for row in rows}
    lines = [
        "| " + " | ".join([*key, *columns]) + " |",
        "|" + "---:|" * (len(key) + len(columns)),
    ]
    for values, row in sorted(latest.items()):
        cells = [f"{value:,}" for value in values]
        cells += [format(row[field], form) for field, form in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against_original(rows: list[Row]) -> str | None:
    """Returns the rates over the original's, where the sizes are the original's."""
    rows = [
        row
        for row in rows
        if all(row[name] == size for name, size in ORIGINAL_SIZES.items())
    ]
    if not rows:
        return None
    lines = ["| | original, ms | here, ms | times as fast |", "|---|---:|---:|---:|"]
    for name, (field, rate) in ORIGINAL.items():
        for row in rows if field == "env_steps_per_second" else rows[-1:]:
            if field not in row:  # segments are measured since 2026-11-24
                continue
            label = name
            if field == "env_steps_per_second":
                label += f", {row['num_envs']:,} side by side"
            speed = row[field] / rate
            lines.append(
                f"| {label} | {1e3 / rate:,.3f} | {1e3 / row[field]:,.3f} |"
                f" {speed:,.1f} |"
            )
    return "Against the original (2 threads, 2 cores, the same sizes):\n\n" + "\n".join(
        lines
    )


# ---------------------------------------------------------------- plots

_BLUE, _ORANGE, _GREEN, _PINK, _GREY = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "0.45"),
)
"""Told apart by people who see few colours (Okabe and Ito)."""

Curves = dict[str, tuple[str, str]]
"""Label -> field of the rows and colour."""

UPDATES: Curves = {
    "fused update": ("updates_per_second", _BLUE),
    "model step alone": ("model_steps_per_second", _ORANGE),
    "policy step alone": ("policy_steps_per_second", _GREEN),
}


def plot(rows: list[Row], stem: pathlib.Path) -> list[pathlib.Path]:
    """Draws throughput and shares of the limits; returns the files.

    Raises:
      ConfigError: nothing to draw, or matplotlib is missing.
    """
    rows = [row for row in rows if row["measure"] == "sweep"]
    if not rows:
        raise ConfigError("only start-up rows: nothing to plot")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib: pip install -e '.[analysis]'"
        ) from error
    mpl.use("agg")
    drawings = {"throughput": _throughput, "limits": _limit_shares}
    files = []
    for name, draw in drawings.items():
        files.append(stem.with_name(f"{stem.name}_{name}.png"))
        _figure(rows, draw, files[-1])
    return files


def _figure(
    rows: list[Row], draw: Callable[[Any, list[Row]], None], file: pathlib.Path
) -> None:
    """Draws panels under a line that says where the rows come from."""
    import matplotlib.pyplot as plt

    num_panels = 3 if draw is _throughput else 2
    figure, axes = plt.subplots(
        1, num_panels, figsize=(4.8 * num_panels, 5), layout="constrained"
    )
    row = rows[-1]
    figure.suptitle(
        f"{row['preset']} on {device(row)}   ({row['date'][:10]}, {row['revision']})",
        fontsize=11,
    )
    draw(axes, rows)
    for axis in axes:
        axis.grid(which="major", alpha=0.35)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
        )
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _throughput(axes: Any, rows: list[Row]) -> None:
    """Rates against environments and against the batch size."""
    curves: Curves = {
        "rollout": ("env_steps_per_second", _BLUE),
        "physics alone (the limit)": ("limit_env_steps_per_second", _GREY),
    }
    _lines(axes[0], rows, "num_envs", curves)
    axes[0].set_ylabel("environment steps / s")
    _lines(axes[1], rows, "batch_size", UPDATES)
    axes[1].set_ylabel("updates / s")
    samples = [
        row | {field: row[field] * row["batch_size"] for field, _ in UPDATES.values()}
        for row in rows
    ]
    _lines(axes[2], samples, "batch_size", UPDATES)
    axes[2].set_ylabel("samples / s (updates x batch size)")
    for axis in axes:
        _log_scale(axis)


def _limit_shares(axes: Any, rows: list[Row]) -> None:
    """Shares of the limits, in percent."""
    shares = [
        {name: 100 * v if "share" in name else v for name, v in row.items()}
        for row in rows
    ]
    _lines(
        axes[0], shares, "num_envs", {"rollout": ("rollout_share_of_physics", _BLUE)}
    )
    axes[0].set_ylabel("share of the physics' rate (%)")
    curves: Curves = {
        "fused update, arithmetic": ("update_share_of_arithmetic", _BLUE),
        "fused update, bandwidth": ("update_share_of_bandwidth", _PINK),
        "model step, arithmetic": ("model_share_of_arithmetic", _ORANGE),
        "policy step, arithmetic": ("policy_share_of_arithmetic", _GREEN),
    }
    _lines(axes[1], shares, "batch_size", curves)
    axes[1].set_ylabel("share of the measured limit (%)")
    for axis in axes:
        axis.axhline(100, color="0.5", linewidth=1, linestyle=":")
        axis.set_ylim(0, max(105, 1.05 * axis.get_ylim()[1]))


def _lines(axis: Any, rows: list[Row], x: str, curves: Curves) -> None:
    """Draws fields against `x`, one curve for each field and number of devices."""
    counts = sorted({row["num_devices"] for row in rows})
    for label, (field, color) in curves.items():
        for count, style in zip(counts, ("o-", "s--", "^-.", "D:") * len(counts)):
            points = {row[x]: row[field] for row in rows if row["num_devices"] == count}
            where = f", {count} device" + "s" * (count > 1)
            name = label if len(counts) == 1 else label + where
            axis.plot(*zip(*sorted(points.items())), style, color=color, label=name)
    ticks = sorted({row[x] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(
        {"num_envs": "environments", "batch_size": "batch size (transitions)"}[x]
    )


def _log_scale(axis: Any) -> None:
    """Makes the y-axis logarithmic, with labels such as 20 k at 1, 2 and 5."""
    from matplotlib import ticker

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ticker.EngFormatter())
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
