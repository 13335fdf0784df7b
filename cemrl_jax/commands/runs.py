"""Lists, compares and exports runs from their database."""

import pathlib
from typing import Any

from rich.console import Console
from rich.table import Table

from cemrl_jax.analysis import database, pretrained
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError

EXAMPLES = """\
examples:
  python scripts/runs.py list --where sac.learning_rate=0.0005 --where status=done
  python scripts/runs.py show point-vel/<run>
  python scripts/runs.py compare point-vel/<run> point-vel/<other>
  python scripts/runs.py best --where name=cheetah-non-stationary-vel
  python scripts/runs.py export results.csv
  python scripts/runs.py rebuild
  python scripts/runs.py import experiment_database.json
  python scripts/runs.py pack output/point-vel/<run> pretrained/point-vel

A run may be named by any part of its name that only it has.
"""
COLUMNS = (
    "id",
    "seed",
    "status",
    "epoch",
    "env_steps",
    "hours",
    "last_return",
    "best_return",
    "device",
    "revision",
)


def main() -> None:
    """Reads the command line and does what it says."""
    parser = command_line.parser("Runs as a database.", EXAMPLES)
    parser.add_argument(
        "action",
        choices=[*ACTIONS],
        help="what to do",
    )
    parser.add_argument("names", nargs="*", metavar="RUN|FILE", help="see the examples")
    parser.add_argument(
        "--output-dir",
        default="output",
        metavar="DIR",
        help="folder of all runs, which has the database (default: output)",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs with this value of a column or of the configuration",
    )
    parser.add_argument("--env", help="only runs of this name; --where name=...")
    args = parser.parse_args()
    folder = pathlib.Path(args.output_dir)
    if args.action != "pack" and not folder.is_dir():
        raise ConfigError(f"--output-dir={folder}: no such folder")
    action, count = ACTIONS[args.action]
    if len(args.names) != count:
        raise ConfigError(f"{args.action} takes {count} names, not {len(args.names)}")
    filters = [*args.where, *([f"name={args.env}"] if args.env else [])]
    action(folder, args.names, filters)


def _database(folder: pathlib.Path) -> database.Database:
    """Returns the database of a folder, made from the folders where there is none."""
    if not (folder / database.FILE).exists():
        print(f"{database.rebuild(folder)} runs read from their folders")
    return database.Database(folder / database.FILE)


def _list(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    show(database.matching(_database(folder).runs(), filters))


def _best(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    rows = database.matching(_database(folder).runs(), filters)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["best_return"] is not None:
            held = best.setdefault(row["name"], row)
            if row["best_return"] > held["best_return"]:
                best[row["name"]] = row
    show(list(best.values()))


def _show(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    store = _database(folder)
    row = find(store.runs(), names[0])
    for name, value in row.items():
        if name != "config" and value not in (None, "", {}):
            print(f"{name}: {value}")
    for path, value in database.flat(row["config"]).items():
        print(f"  {path}={value}")
    for entry in store.evaluations(row["id"]):
        values = "  ".join(f"{k} {v:.1f}" for k, v in entry["metrics"].items())
        print(f"epoch {entry['epoch']}: {values}")


def _compare(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    rows = _database(folder).runs()
    first, second = (find(rows, name) for name in names)
    show([first, second])
    table = Table("field", first["id"], second["id"], title="what differs")
    for path, a, b in database.differences(first["config"], second["config"]):
        table.add_row(path, str(a), str(b))
    _console().print(table)


def _export(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    rows = database.matching(_database(folder).runs(), filters)
    database.export(rows, pathlib.Path(names[0]))
    print(f"{len(rows)} runs in {names[0]}")


def _rebuild(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    print(f"{database.rebuild(folder)} runs read from their folders")


def _import(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    count = database.import_authors(_database(folder), pathlib.Path(names[0]))
    print(f"{count} runs of the original imported")


def _pack(folder: pathlib.Path, names: list[str], filters: list[str]) -> None:
    size = pretrained.pack(pathlib.Path(names[0]), pathlib.Path(names[1]))
    print(f"{size / 1024:.0f} KiB in {names[1]}")


ACTIONS: dict[str, tuple[Any, int]] = {
    "list": (_list, 0),
    "show": (_show, 1),
    "compare": (_compare, 2),
    "best": (_best, 0),
    "export": (_export, 1),
    "rebuild": (_rebuild, 0),
    "import": (_import, 1),
    "pack": (_pack, 2),
}
"""Name -> what it does, and how many names it takes."""


def find(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Returns the run of a name or of a part that only it has.

    Raises:
      ConfigError: there is none, or several.
    """
    name = name.rstrip("/")
    found = [row for row in rows if row["id"] == name]
    found = found or [row for row in rows if name in row["id"]]
    found = found or [row for row in rows if name.endswith("/" + row["id"])]
    if len(found) != 1:
        known = ", ".join(row["id"] for row in found[:5]) or "none"
        raise ConfigError(f"{name} must name one run; it fits {known}")
    return found[0]


def show(rows: list[dict[str, Any]]) -> None:
    """Prints runs as a table."""
    table = Table(box=None, header_style="bold")
    for name in COLUMNS:
        right = name not in ("id", "status", "device", "revision")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in COLUMNS))
    _console().print(table)


def _console() -> Console:
    """Returns a console as wide as a table needs where nobody's screen limits it."""
    console = Console()
    return console if console.is_terminal else Console(width=240)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in ("last_return", "best_return"):
        return f"{value:.1f}"
    if name == "hours":
        return f"{value:.2f}"
    if name in ("env_steps", "epoch"):
        return f"{value:,.0f}"
    return str(value)[:10] if name == "revision" else str(value)


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-runs`."""
    command_line.run(main)
