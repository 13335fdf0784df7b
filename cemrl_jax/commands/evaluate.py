"""Evaluates a trained run: restores a checkpoint, prints returns, writes a CSV file."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from cemrl_jax.analysis.restore import Restored, restore
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.groups import Groups
from cemrl_jax.evaluation import inference
from cemrl_jax.evaluation.cases import CASES, EXTRAPOLATION, Case, own_protocol
from cemrl_jax.evaluation.evaluate import (
    Evaluation,
    evaluation_pools,
    make_evaluate,
)
from cemrl_jax.runtime import compile_cache
from cemrl_jax.training.run import stored_pools

EXAMPLES = """\
examples:
  python scripts/evaluate.py --run=output/cheetah-stationary-vel/<run>
  python scripts/evaluate.py --run=output/point-vel/<run> --checkpoint=latest --seed=7
"""


COLUMNS = (
    *("case", "episode", "steps", "first_number", "last_number"),
    *("first_task", "last_task", "changes", "return"),
)
SUCCESS = ("tasks", "solved")
"""Columns that follow in a world with success."""


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
    compile_cache.use(args.compile_cache)
    directory = pathlib.Path(args.run)
    output = pathlib.Path(args.output or directory / "evaluation.csv")
    restored, evaluation = evaluate(
        directory, args.checkpoint, args.episodes, args.seed
    )
    write(evaluation, output)
    show(evaluation, f"{directory}, epoch {restored.epoch}")
    for line in solved(evaluation, restored):
        print(line)
    for line in inferred(evaluation, restored.config):
        print(line)
    print(f"every episode is in {output}")


def evaluate(
    directory: pathlib.Path, checkpoint: str, num_episodes: int, seed: int
) -> tuple[Restored, Evaluation]:
    """Returns what a checkpoint name stands for and its evaluation.

    Tasks outside the range have a program of their own where they have other models.
    """
    restored = restore(directory, checkpoint)
    config, env, agent = restored.config, restored.env, restored.agent
    pools = evaluation_pools(stored_pools(config, directory))

    def run(env: NonStationaryEnv, cases: Sequence[Case]) -> Evaluation:
        function = make_evaluate(
            env, agent.policy, config.rollout.num_steps, num_episodes, cases
        )
        key = jax.random.key(seed)
        return jax.device_get(jax.jit(function)(restored.learner, pools, key))

    if "extrapolate" not in pools:
        return restored, run(env, CASES)
    if isinstance(env, Groups) and env.elsewhere:
        own = run(env, CASES)
        return restored, own.joined(run(env.elsewhere, EXTRAPOLATION))
    return restored, run(env, CASES + EXTRAPOLATION)


def write(evaluation: Evaluation, path: pathlib.Path) -> None:
    """Writes one line per episode, which ends with a fall or the time limit.

    Columns: case, number of the episode, its steps, the tasks at its start and its end
    (their numbers in the pool, -1 if they are in none, and what they ask for), how
    often another task came into force, and the return; with success how many tasks
    were in force, one after the other, and how many of them were solved.
    """
    counts = evaluation.counts
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS if counts is None else COLUMNS + SUCCESS)
        for name, values in evaluation.returns.items():
            for number, value in enumerate(values):
                steps = jax.tree.map(
                    lambda leaf, number=number: leaf[number],
                    evaluation.transitions[name],
                )
                row = [name, number, *summary(steps), float(value)]
                if counts is not None:
                    row += counts[name][number].sum(-1).astype(int).tolist()
                writer.writerow(row)


def summary(episode: Transition) -> list[Any]:
    """Returns the columns of an episode `[L, ...]` between its number and return."""
    fallen = episode.terminated > 0
    length = int(fallen.argmax()) + 1 if fallen.any() else len(fallen)
    task = jax.tree.map(lambda leaf: leaf[:length], episode.task)
    spec = task.spec.reshape(length, -1)
    marks = np.column_stack([task.kind, task.base, task.number, spec])
    words = lambda step: " ".join(f"{x:g}" for x in spec[step])  # noqa: E731
    return [
        *(length, int(task.number[0]), int(task.number[-1])),
        *(words(0), words(-1)),
        int((np.diff(marks, axis=0) != 0).any(-1).sum()),
    ]


def show(evaluation: Evaluation, title: str) -> None:
    """Prints a table of returns (and success rates) over the tasks of each case."""
    table, counts = Table(title=title), evaluation.counts
    columns = ["pool / protocol, actions", "mean", "std", "min", "max", "episodes"]
    for column in columns + ([] if counts is None else ["solved"]):
        table.add_column(column, justify="left" if "/" in column else "right")
    for name, values in evaluation.returns.items():
        numbers = [values.mean(), values.std(), values.min(), values.max()]
        label = name.removesuffix("_return").replace("_", ", ").replace("/", " / ")
        cells = [*(f"{x:.1f}" for x in numbers), str(len(values))]
        if counts is not None:
            tasks, solved = counts[name].sum((0, 2))
            cells.append(f"{solved / tasks:.1%}")
        table.add_row(label, *cells)
    Console().print(table)


def solved(evaluation: Evaluation, restored: Restored) -> list[str]:
    """Returns in words how much of each base task was solved, pool by pool."""
    names, schedule = restored.env.base_names, restored.config.env.schedule
    if evaluation.counts is None or len(names) == 1:
        return []
    lines = []
    for case in CASES + EXTRAPOLATION:
        own = case.protocol == own_protocol(schedule) and case.mode == "deterministic"
        if own and case.metric in evaluation.counts:
            counts = zip(names, *evaluation.counts[case.metric].sum(0))
            rates = [
                f"{name} {done / tasks:.0%}" for name, tasks, done in counts if tasks
            ]
            lines.append(f"{case.pool} tasks solved: {', '.join(rates)}")
    return lines


def inferred(evaluation: Evaluation, config: Config) -> list[str]:
    """Returns in words how tasks were inferred, and what followed their changes."""
    found = inference.metrics(
        evaluation.traces[inference.CASE.metric],
        config.encoder.window_steps,
        config.encoder.num_classes,
    )
    lines = []
    if "recovery/changes" in found:
        lines.append(
            f"{found['recovery/changes']:.0f} changes of test tasks: z within 10 % of"
            f" its final value after {found['recovery/z_steps']:.0f} steps, reward"
            f" within 10 % of its level after {found['recovery/reward_steps']:.0f}"
            f" (medians), {found['recovery/lost_return']:.2f} of the return lost to"
            " each (mean)"
        )
    if "inference/class_accuracy" in found:
        accuracy = found["inference/class_accuracy"]
        lines.append(f"class accuracy {accuracy:.1%}, windows full of one task")
    if "inference/task_r2" in found:
        share = found["inference/task_r2"]
        lines.append(
            f"a linear map of z explains {share:.1%} of the parameters of tasks that it"
            " was not fitted on"
        )
    return lines


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-evaluate`."""
    command_line.run(main)
