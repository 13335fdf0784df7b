"""Writes a report of runs: curves, encodings, response to changes, returns by task."""

import pathlib
from typing import Any

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import load, report, style
from cemrl_jax.analysis.learning import experiments, page
from cemrl_jax.analysis.recordings import Settings
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError
from cemrl_jax.envs import Schedule
from cemrl_jax.runtime import compile_cache

EXAMPLES = """\
examples:
  python scripts/analyse.py output/cheetah-non-stationary-vel --output=report/
  python scripts/analyse.py output/point-vel/<run> output/point-dir/<run>
  python scripts/analyse.py output/point-vel/<run> --intervals=10,25,50 --format=pdf
  python scripts/analyse.py <run> --schedule=timed,min_steps=20,probability=0.2
  python scripts/analyse.py output --learning=my_results

Runs that differ in nothing but their seed are one experiment. A folder stands for all
runs below it.
"""


def main() -> None:
    """Reads the command line and writes the report."""
    args = _parser().parse_args()
    kinds = tuple(args.format.split(","))
    if set(kinds) - set(style.FORMATS):
        raise ConfigError(
            f"--format={args.format} must list some of {', '.join(style.FORMATS)}"
        )
    settings = _settings(args)
    runs = load.find_runs([pathlib.Path(run) for run in args.runs])
    if args.learning:
        folder = pathlib.Path(args.learning)
        presets = command_line.load_presets().values()
        page.write(experiments.collect(runs), folder, presets)
        print(f"{len(runs)} runs in {folder / page.PAGE}")
        return
    compile_cache.use(args.compile_cache)
    path = report.make(runs, pathlib.Path(args.output), settings, kinds)
    print(f"report in {path}")


def _parser() -> Any:
    parser = command_line.parser("Writes a report of runs.", EXAMPLES)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="runs, or folders of them"
    )
    parser.add_argument(
        "--output", default="report", metavar="DIR", help="folder (default: report)"
    )
    parser.add_argument(
        "--checkpoint", default="best", help="best, latest or an epoch (default: best)"
    )
    parser.add_argument(
        "--format",
        default="png,svg",
        metavar="F,F",
        help=f"of the figures beside the report: {', '.join(style.FORMATS)}"
        " (default: png,svg)",
    )
    parser.add_argument(
        "--tasks", type=int, default=16, help="tasks of each pool (default: 16)"
    )
    parser.add_argument(
        "--steps", type=int, help="length of the recorded episodes (default: the run's)"
    )
    parser.add_argument(
        "--schedule", help="play under another schedule: NAME or NAME,field=value,..."
    )
    parser.add_argument(
        "--intervals", metavar="N,N", help="steps between changes that are tried"
    )
    parser.add_argument(
        "--change-at", metavar="N,N", help="steps of the changes in the drawn episode"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the starts")
    parser.add_argument(
        "--learning",
        metavar="DIR",
        help="no report: write every evaluation of the runs to DIR/results/learning,"
        " and tables and pictures of all that is there to DIR/learning.md",
    )
    return parser


def _settings(args: Any) -> Settings:
    for name in ("tasks", "steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name}={value} must be at least 1")
    return Settings(
        checkpoint=args.checkpoint,
        num_tasks=args.tasks,
        num_steps=args.steps,
        schedule=read_schedule(args.schedule),
        intervals=numbers("intervals", args.intervals),
        change_at=numbers("change-at", args.change_at),
        seed=args.seed,
    )


def numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    """Returns the positive numbers that an argument lists, None if it is not given.

    Raises:
      ConfigError: it lists something else.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--{name}={text} must list numbers above 0, like 25,50")
    return tuple(int(part) for part in parts)


def read_schedule(text: str | None) -> Schedule | None:
    """Returns the schedule that `NAME` or `NAME,field=value,...` describes.

    Raises:
      ConfigError: no such schedule or field, or a value that it cannot have.
    """
    if text is None:
        return None
    name, *settings = text.split(",")
    schedule = config_lib.named("schedule", name)
    for setting in settings:
        field, _, value = setting.partition("=")
        kind = type(config_lib.get_field(schedule, field))
        try:
            setattr(schedule, field, kind(float(value)))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"--schedule={text}: {field}={value} must be of type {kind.__name__}"
            ) from error
    problems = getattr(schedule, "validate", list)()
    if problems:
        raise ConfigError(f"--schedule={text}: {'; '.join(problems)}")
    return schedule


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-analyse`."""
    command_line.run(main)
