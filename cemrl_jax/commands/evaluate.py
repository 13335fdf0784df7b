"""Evaluates a trained run: restores a checkpoint, prints returns, writes a CSV file."""

import csv
import pathlib

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from cemrl_jax.analysis.restore import restore
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError
from cemrl_jax.evaluation.evaluate import (
    CASES,
    EXTRAPOLATION,
    Evaluation,
    evaluation_pools,
    make_evaluate,
)
from cemrl_jax.training.loop import stored_pools

EXAMPLES = """\
examples:
  python scripts/evaluate.py --run=output/cheetah-stationary-vel/<run>
  python scripts/evaluate.py --run=output/point-vel/<run> --checkpoint=latest --seed=7
"""


def main() -> None:
    """Reads the command line, evaluates, and shows the result."""
    parser = command_line.parser("Evaluates a run.", EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--checkpoint", default="best", help="best, latest or an epoch (default: best)"
    )
    parser.add_argument(
        "--episodes", type=int, default=2, help="episodes per task (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of starts and actions")
    parser.add_argument(
        "--output", metavar="FILE", help="CSV file (default: RUN/evaluation.csv)"
    )
    args = parser.parse_args()
    if args.episodes < 1:
        raise ConfigError(f"--episodes={args.episodes} must be at least 1")
    command_line.use_compile_cache(args.compile_cache)
    directory = pathlib.Path(args.run)
    output = pathlib.Path(args.output or directory / "evaluation.csv")
    epoch, evaluation = evaluate(directory, args.checkpoint, args.episodes, args.seed)
    write(evaluation, output)
    show(evaluation, f"{directory}, epoch {epoch}")
    print(f"every episode is in {output}")


def evaluate(
    directory: pathlib.Path, checkpoint: str, num_episodes: int, seed: int
) -> tuple[int, Evaluation]:
    """Returns the epoch that a checkpoint name stands for and its evaluation."""
    restored = restore(directory, checkpoint)
    config, env, agent = restored.config, restored.env, restored.agent
    epoch, learner = restored.epoch, restored.learner
    pools = evaluation_pools(stored_pools(config, directory))
    cases = CASES + (EXTRAPOLATION if "extrapolate" in pools else ())
    run = make_evaluate(env, agent, config.rollout.num_steps, num_episodes, cases)
    return epoch, jax.device_get(jax.jit(run)(learner, pools, jax.random.key(seed)))


def write(evaluation: Evaluation, path: pathlib.Path) -> None:
    """Writes one line per episode: case, task at its start and its end, return."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["case", "episode", "first_task", "last_task", "changes", "return"]
        )
        for name, values in evaluation.returns.items():
            spec = evaluation.transitions[name].task.spec
            spec = spec.reshape(*spec.shape[:2], -1)
            changes = (np.diff(spec, axis=1) != 0).any(-1).sum(1)
            for number, value in enumerate(values):
                first, last = (
                    " ".join(f"{x:g}" for x in spec[number, step]) for step in (0, -1)
                )
                row = [name, number, first, last, changes[number], float(value)]
                writer.writerow(row)


def show(evaluation: Evaluation, title: str) -> None:
    """Prints a table of returns over the tasks of each case."""
    table = Table(title=title)
    for column in ("pool / protocol, actions", "mean", "std", "min", "max", "episodes"):
        table.add_column(column, justify="left" if "/" in column else "right")
    for name, values in evaluation.returns.items():
        numbers = [values.mean(), values.std(), values.min(), values.max()]
        label = name.removesuffix("_return").replace("_", ", ").replace("/", " / ")
        table.add_row(label, *(f"{x:.1f}" for x in numbers), str(len(values)))
    Console().print(table)


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-evaluate`."""
    command_line.run(main)
