"""Random configurations, valid and not, drawn from the schema itself.

Run as a program it tries many: `random_configs.py COUNT SEED`, see `try_configs`.
"""

import dataclasses
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
from typing import Any

from helpers import tiny_config
from runs import child

from cemrl_jax import config as config_lib
from cemrl_jax.config import TABLES, Config

NUMBERS = {
    int: (-1, 0, 1, 2, 3, 5, 8, 16, 40),
    float: (-1.0, 0.0, 1e-3, 0.5, 1.0, 3.0, float("nan"), float("inf")),
    bool: (True, False),
    tuple: ((), (1.0,), (0.5, 2.0)),
}
WORDS = (
    *("shared_y", "individual_y", "trajectory", "add", "multiply", "linear", "mlp"),
    *("fixed", "learnt", "conditioned", "fused", "alternating", "highest", "default"),
    *("", "nonsense"),
)
SLOW = ("half_cheetah", "ant", "hopper", "walker2d", "humanoid", "sawyer")
"""Robots whose physics compile for half a minute; now and then."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a configuration ended.

    Attributes:
      changes: what it changes of the tiny one.
      code: the exit status.
      printed: all that it printed.
      wrote: it wrote into its output folder.
    """

    changes: dict[str, Any]
    code: int
    printed: str
    wrote: bool

    def fault(self) -> str:
        """Returns what is wrong with it, empty if nothing is."""
        if "Traceback" in self.printed:
            return "traceback"
        if self.code not in (0, 2):
            return f"exit status {self.code}"
        if self.code == 2 and self.wrote:
            return "refused, but something is written"
        fields = [path.split(".")[-1] for path in self.changes]
        if self.code == 2 and not any(field in self.printed for field in fields):
            return "refused without naming a field"
        return ""


def draw(rng: random.Random) -> tuple[dict[str, Any], Config]:
    """Returns what is changed of the tiny configuration, and the result."""
    config = tiny_config(train__num_epochs=1)
    changes: dict[str, Any] = {}
    for part, table in TABLES.items():
        if rng.random() < 0.2:
            names = [n for n in table if n not in SLOW or rng.random() < 0.02]
            changes[f"env.{part}"] = name = rng.choice(names)
            setattr(config.env, part, config_lib.named(part, name))
    skip = ("name", "output_dir", "train.num_epochs", "train.max_hours")
    fields = [f for f in config_lib.field_paths(config) if f not in skip]
    for field in rng.sample(fields, rng.choice((1, 1, 2, 3, 5))):
        old = config_lib.get_field(config, field)
        value = rng.choice(WORDS if isinstance(old, str) else NUMBERS[type(old)])
        owner, _, name = field.rpartition(".")
        setattr(config_lib.get_field(config, owner) if owner else config, name, value)
        changes[field] = value
    return changes, config


def start(config: Config, folder: pathlib.Path) -> int:
    """Trains in a process of its own, for an epoch at most; returns its number.

    From the main thread only: another one would go on in the child as well.
    """
    config.output_dir = str(folder / "out")
    config_lib.save(config, folder / "config.json")
    process = os.fork()
    if process == 0:
        child(
            [f"{folder}/log", "--compile-cache=off", f"--config={folder}/config.json"]
        )
    return process


def try_configs(count: int, seed: int, max_seconds: float = 1e9) -> list[Outcome]:
    """Returns how random configurations end, two at a time."""
    rng, begun = random.Random(seed), time.monotonic()
    drawn = [draw(rng) for _ in range(count)]
    running: dict[int, tuple[dict[str, Any], pathlib.Path]] = {}
    outcomes = []
    while running or drawn:
        late = time.monotonic() - begun > max_seconds
        if late:
            drawn = []
        if drawn and len(running) < 2:
            changes, config = drawn.pop(0)
            folder = pathlib.Path(tempfile.mkdtemp())
            running[start(config, folder)] = (changes, folder)
            continue
        if not running:
            break
        process, status = os.wait()
        changes, folder = running.pop(process)
        outcome = Outcome(
            changes,
            code=os.waitstatus_to_exitcode(status),
            printed=(folder / "log").read_text(),
            wrote=(folder / "out").exists(),
        )
        shutil.rmtree(folder)
        outcomes.append(outcome)
        if fault := outcome.fault():
            last = re.sub(r"\s+", " ", outcome.printed[-700:])
            print(f"{fault}: {outcome.changes}\n    {last}", flush=True)
    return outcomes


def main() -> None:
    """Tries as many as asked for and prints what is wrong."""
    count, seed, *limit = map(int, sys.argv[1:])
    outcomes = try_configs(count, seed, *limit)
    valid = sum(outcome.code == 0 for outcome in outcomes)
    faults = [outcome for outcome in outcomes if outcome.fault()]
    print(f"{len(outcomes)} tried, {valid} ran, {len(faults)} faults")


if __name__ == "__main__":
    main()
