"""How all figures look: one palette, one meaning for a colour, one set of fonts."""

import io
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from cemrl_jax.config import ConfigError

# Okabe and Ito's palette, which people with any colour vision tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT = "#777777", "#BBBBBB"

SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK)
"""Colours of things that have no meaning of their own: classes, base tasks, runs."""

MEANING = {
    "ours": BLUE,
    "authors": GREY,
    "test": BLUE,
    "train": ORANGE,
    "validation": GREEN,
    "extrapolate": PURPLE,
    "goal": VERMILION,
    "actual": BLACK,
    "z": GREEN,
    "reward": BLUE,
    "change": LIGHT,
}
"""The same colour for the same thing in every figure."""

MARKERS = {"test": "o", "train": "^", "validation": "v", "extrapolate": "s"}
"""Of points by the pool of their task."""

PARAMETERS = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "cemrl",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
WIDTH = 9.0
"""Of a figure, inches."""
FORMATS = ("svg", "png", "pdf")


def pyplot() -> Any:
    """Returns matplotlib.pyplot, drawing to files in this style.

    Raises:
      ConfigError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib: pip install -e '.[analysis]'"
        ) from error
    if "inline" not in mpl.get_backend():  # of a notebook
        mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(PARAMETERS)  # pyright: ignore
    return plt


def series(number: int) -> str:
    """Returns the colour of a thing by its number; from the eighth on lighter ones."""
    turn, place = divmod(number, len(SERIES))
    paleness = (0.0, 0.55, 0.3)[turn % 3]
    channels = [int(SERIES[place][at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(c + (255 - c) * paleness):02X}" for c in channels)


def save(figure: Any, folder: pathlib.Path, name: str, kinds: tuple[str, ...]) -> None:
    """Writes a figure in file formats."""
    for kind in kinds:
        extra = {"dpi": 160} if kind == "png" else {"metadata": _no_date(kind)}
        _write(figure, folder / f"{name}.{kind}", **extra)


def svg(figure: Any) -> bytes:
    """Returns a figure as an SVG file."""
    buffer = io.BytesIO()
    _write(figure, buffer, format="svg", metadata=_no_date("svg"))
    return buffer.getvalue()


def _write(figure: Any, target: Any, **options: Any) -> None:
    """Writes a figure; one too small for its labels keeps the default places."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.savefig(target, **options)


def _no_date(kind: str) -> dict[str, None]:
    """Metadata without a date: the same figure is the same file."""
    return {"CreationDate": None} if kind == "pdf" else {"Date": None}


def mark_changes(axis: Any, times: Any) -> None:
    """Draws a vertical line at each moment at which the task changes."""
    for time in times:
        axis.axvline(time, color=MEANING["change"], linewidth=1, linestyle="--")


def legend_above(axis: Any, columns: int = 4, narrow: bool = False) -> None:
    """Puts the legend, if there is one, above the axes, where it covers nothing.

    A narrow one is for small axes: it does not ask for room beside them.
    """
    if not axis.get_legend_handles_labels()[1]:
        return
    tight = {"handlelength": 1.0, "handletextpad": 0.4, "columnspacing": 0.9}
    legend = axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        **(tight if narrow else {}),
    )
    legend.set_in_layout(not narrow)


def legend_over(figure: Any, columns: int = 6) -> None:
    """Puts one legend of all panels, if there is one, above a figure."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found = dict(zip(labels, handles)) | found
    if found:
        place = {"loc": "outside upper left", "ncols": columns}
        figure.legend(found.values(), found.keys(), **place)


def count_axis(axis: Any, label: str) -> None:
    """Labels an x-axis of counts or hours with short numbers that do not collide."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5))
    if label == "hours":
        longest = axis.get_xlim()[1]
        unit, factor = ("hours", 1) if longest > 1 else ("minutes", 60)
        if longest * 60 < 1:
            unit, factor = "seconds", 3600
        step = 1 if unit == "hours" else 1 / factor
        axis.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value * factor:.3g}")
        )
        axis.xaxis.set_major_locator(_Nice(step))
        label = unit
    else:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_xlabel(label)


def log_axis(axis: Any, label: str) -> None:
    """Makes an x-axis logarithmic, with plain numbers at 1, 2 and 5 times powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set(xscale="log", xlabel=label)
    low, high = axis.get_xlim()
    few = high < 100 * low
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _Nice(unit: float) -> Any:  # noqa: N802  makes a locator
    """Returns a locator of round numbers in a unit of so many hours."""
    from matplotlib.ticker import MaxNLocator

    class Locator(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            return np.asarray(super().tick_values(vmin / unit, vmax / unit)) * unit

    return Locator(5)


def name_directions(axis: Any, label: str) -> None:
    """Writes words at the two directions, if that is what the x-axis shows."""
    if label.startswith("direction"):
        axis.set_xticks([-1, 1], ["backward", "forward"])
        axis.set(xlim=(-1.7, 1.7), xlabel="direction")


def powers(axis: Any, form: Callable[[float], str] | None = None) -> None:
    """Labels a logarithmic y-axis at 1, 2 and 5 times powers of ten, 20000 as 20k.

    Args:
      axis: the axes.
      form: writes a number instead.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    written = EngFormatter(sep="")
    axis.yaxis.set_major_formatter((lambda x, _: form(x)) if form else written)
    axis.yaxis.set_minor_formatter(NullFormatter())
