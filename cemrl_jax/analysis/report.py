"""The report: one HTML file that needs nothing else, figures and tables beside it."""

import base64
import dataclasses
import datetime
import html
import pathlib
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from cemrl_jax.analysis import curves, encodings, response, returns, style
from cemrl_jax.analysis.figures import Part, Table
from cemrl_jax.analysis.load import RunFiles, grouped, missing_seeds
from cemrl_jax.analysis.recordings import Settings, Study, study
from cemrl_jax.config import ConfigError
from cemrl_jax.training.checkpoint import CheckpointError

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
color:#222}h1{font-size:1.6em}h2{margin-top:2em;border-bottom:2px solid #0072B2}
h3{margin:1.6em 0 .2em}img{max-width:100%}figure{margin:0}
figcaption,.note{color:#555;font-size:.9em}table{border-collapse:collapse;
font-size:.85em;margin:.6em 0;display:block;overflow-x:auto}
td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.missing{background:#FFF6E0;
border-left:4px solid #E69F00;padding:.4em 1em}a{color:#0072B2}nav a{margin-right:1em}
"""


@dataclasses.dataclass
class Section:
    """All about the runs of one experiment.

    Attributes:
      title: the experiment.
      runs: they differ in their seed.
      parts: figures and tables, in order.
      missing: what could not be shown and why.
    """

    title: str
    runs: list[RunFiles]
    parts: list[Part]
    missing: list[str]


def make(
    runs: list[RunFiles],
    output: pathlib.Path,
    settings: Settings,
    kinds: tuple[str, ...] = ("png", "svg"),
    say: Callable[[str], None] = print,
) -> pathlib.Path:
    """Writes the report of runs into a folder.

    Args:
      runs: of any experiments.
      output: the folder; made if it is not there.
      settings: what to record of their policies.
      kinds: formats of the figures beside the report.
      say: told what is being done.

    Returns:
      The HTML file.
    """
    output.mkdir(parents=True, exist_ok=True)
    plt = style.pyplot()
    sections = []
    for number, (title, group) in enumerate(grouped(runs).items()):
        say(f"{title}: {len(group)} run(s)")
        made = section(title, group, settings, say)
        prefix = f"{number + 1}_" if len(grouped(runs)) > 1 else ""
        for part in made.parts:
            part.name = prefix + part.name
            if part.figure is not None:
                style.save(part.figure, output, part.name, kinds)
            if part.table is not None:
                part.table.write(output / f"{part.name}.csv")
        sections.append((made, [_embedded(part) for part in made.parts]))
        plt.close("all")
    overview(runs).write(output / "runs.csv")
    path = output / "report.html"
    path.write_text(page(runs, sections), encoding="utf-8")
    return path


def section(
    title: str, runs: list[RunFiles], settings: Settings, say: Callable[[str], None]
) -> Section:
    """Returns everything about the runs of an experiment; never fails on a run."""
    made = Section(title, runs, [], missing_seeds(runs))
    _attempt(made, "learning curves", lambda: curves.parts(runs))
    studies: list[Study] = []
    for run in runs:
        say(f"  recording episodes of {run.label}")
        try:
            studies.append(study(run, settings))
        except (ConfigError, CheckpointError) as error:
            made.missing.append(f"{run.label}: its policy cannot be shown: {error}")
        except Exception as error:  # of a run from another version, say
            made.missing.append(_unforeseen(f"{run.label}: its policy", error))
    if studies:
        first = studies[0]
        _attempt(made, "encodings", lambda: encodings.parts(first))
        _attempt(made, "response", lambda: response.parts(first))
        _attempt(made, "returns", lambda: returns.parts(studies))
        _attempt(made, "recovery table", lambda: [summary(studies)])
    for run in runs:
        made.missing += [f"{run.label}: {text}" for text in run.missing]
    return made


def _attempt(made: Section, what: str, parts: Callable[[], list[Part]]) -> None:
    """Adds parts, or says why there are none."""
    try:
        found = parts()
        made.parts += found
        if not found:
            made.missing.append(f"{what}: there is nothing to draw")
    except ConfigError:
        raise
    except Exception as error:
        made.missing.append(_unforeseen(what, error))


def _unforeseen(what: str, error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
    return f"{what} could not be made: {type(error).__name__}: {error} ({place})"


def summary(studies: list[Study]) -> Part:
    """Returns how each run's policy infers tasks and recovers from changes."""
    rows: list[tuple[Any, ...]] = []
    for one in studies:
        origin, recording = response.changes(one)
        found = response.recovered(recording).metrics()
        keys = ("z_steps", "reward_steps", "lost_return", "changes")
        read = encodings.readability(one, one.groups["fixed/test"])
        rows.append(
            (
                one.run.label,
                one.epoch,
                *(found.get(f"recovery/{key}", "") for key in keys),
                one.config.encoder.window_steps,
                next((v for name, v in read.items() if name.startswith("R²")), ""),
                read.get("class accuracy", ""),
            )
        )
    header = (
        "run",
        "epoch",
        "z recovers, steps",
        "reward recovers, steps",
        "return lost per change",
        "changes",
        "window, steps",
        "R² of the task",
        "class accuracy",
    )
    caption = f"Medians over {origin}, test tasks, of every run."
    return Part(
        "recovery_by_run",
        "Inference and recovery, all runs",
        caption,
        None,
        Table(header, rows),
        shown=True,
    )


def overview(runs: list[RunFiles]) -> Table:
    """Returns a line about each run."""
    header = (
        "run",
        "seed",
        "epochs",
        "planned",
        "env steps",
        "updates",
        "hours",
        "last test return",
        "best",
        "engine or device",
        "revision",
    )
    rows = []
    for run in runs:
        _, values = run.evaluations()
        done, planned = run.epochs
        steps, updates = run.column("env_steps"), run.column("updates")
        about = run.provenance
        rows.append(
            (
                run.label,
                "" if run.seed is None else run.seed,
                done,
                planned or "",
                int(steps[-1]) if len(steps) and np.isfinite(steps[-1]) else "",
                int(updates[-1]) if len(updates) and np.isfinite(updates[-1]) else "",
                float(run.hours[-1]) if run.num_rows else "",
                float(values[-1]) if len(values) else "",
                float(values.max()) if len(values) else "",
                str(about.get("engine") or about.get("device") or ""),
                str(about.get("revision") or about.get("git_revision") or "")[:10],
            )
        )
    return Table(header, rows)


def page(runs: list[RunFiles], sections: list[tuple[Section, list[str]]]) -> str:
    """Returns the HTML of the report."""
    today = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    names = [html.escape(made.title) for made, _ in sections]
    links = "".join(f'<a href="#s{n}">{name}</a>' for n, name in enumerate(names))
    body = [
        f"<h1>{', '.join(names)}</h1>",
        f'<p class="note">{len(runs)} run(s), {today}. Figures and tables are files'
        " beside this one.</p>",
        f"<nav>{links}</nav>" if len(names) > 1 else "",
        table(overview(runs)),
    ]
    for number, (made, embedded) in enumerate(sections):
        body.append(f'<h2 id="s{number}">{html.escape(made.title)}</h2>')
        if made.missing:
            items = "".join(f"<li>{html.escape(text)}</li>" for text in made.missing)
            body.append(f'<div class="missing">What is missing:<ul>{items}</ul></div>')
        body += embedded
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{', '.join(names)}</title><style>{STYLE}</style>"
        + "\n".join(body)
        + "</html>\n"
    )


def _embedded(part: Part) -> str:
    """Returns the HTML of a part, its figure in it."""
    pieces = [f"<h3>{html.escape(part.title)}</h3>", "<figure>"]
    if part.figure is not None:
        data = base64.b64encode(style.svg(part.figure)).decode()
        source = f"data:image/svg+xml;base64,{data}"
        pieces.append(f'<img alt="{html.escape(part.title)}" src="{source}">')
    if part.table is not None and part.shown:
        pieces.append(table(part.table))
    file = f" Numbers: {part.name}.csv." if part.table is not None else ""
    pieces.append(f"<figcaption>{html.escape(part.caption + file)}</figcaption>")
    return "\n".join([*pieces, "</figure>"])


def table(data: Table) -> str:
    """Returns a table as HTML."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in data.header)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_text(cell))}</td>" for cell in row)
        + "</tr>"
        for row in data.rows
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _text(cell: Any) -> str:
    if isinstance(cell, bool) or not isinstance(cell, float):
        return f"{cell:,}" if type(cell) is int else str(cell)
    if not np.isfinite(cell):
        return "-"
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
