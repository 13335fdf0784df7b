"""Trains CEMRL: collects, learns, evaluates and saves until the epochs are done."""

import contextlib
import dataclasses
import datetime
import pathlib
import sys

from cemrl_jax import config as config_lib
from cemrl_jax.analysis.database import DONE, FAILED, STOPPED, RunRecord
from cemrl_jax.analysis.load import provenance
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config, ConfigError, presets
from cemrl_jax.reporting import loggers
from cemrl_jax.reporting.progress import Progress
from cemrl_jax.runtime import parallel
from cemrl_jax.training import loop as training
from cemrl_jax.training.checkpoint import Checkpoints

EXAMPLES = """\
examples:
  python scripts/train.py --list
  python scripts/train.py --config=configs/quickstart.py
  python scripts/train.py --config=configs/cheetah_stationary_vel.py \\
      --config.sac.learning_rate=1e-4 --config.seed=3
  python scripts/train.py --config=output/point-vel/<run>/config.json
  python scripts/train.py --resume=output/point-vel/<run>
  python scripts/train.py --resume=output/point-vel/<run> --config.train.num_epochs=99

"""


def main() -> None:
    """Reads the command line and trains."""
    epilog = EXAMPLES + command_line.OVERRIDES + command_line.describe(Config())
    parser = command_line.parser("Trains CEMRL.", epilog)
    parser.add_argument(
        "--config", metavar="FILE", help="a preset in configs/ or a saved config.json"
    )
    parser.add_argument(
        "--resume", metavar="RUN", help="continue the run in this folder"
    )
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from the best weights of this run"
    )
    parser.add_argument(
        "--check", action="store_true", help="check the configuration and stop"
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="HOST:PORT,COUNT,NUMBER",
        help="run on several hosts, one process on each, this command in all of them"
        " with a folder that all can read: address of process 0, how many, which one;"
        " without a value as SLURM, a TPU pod, ... say",
    )
    parser.add_argument("--list", action="store_true", help="show the presets and stop")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write a trace of one epoch's programs to the run's folder profile/, for"
        " xprof or ui.perfetto.dev",
    )
    args, overrides = parser.parse_known_args()
    if args.list:
        print(presets.describe(command_line.load_presets()))
        return
    if args.resume and (args.config or args.init_from):
        raise ConfigError("--resume takes its configuration from the run: no --config")
    if args.resume and not pathlib.Path(args.resume, "config.json").is_file():
        raise ConfigError(f"--resume={args.resume}: no run there (no config.json)")
    source = f"{args.resume}/config.json" if args.resume else args.config
    config = command_line.read_config(source, overrides)
    command_line.join_processes(args.distributed)
    config.validate(parallel.num_devices())
    if args.check:
        print("the configuration is valid")
        return
    command_line.use_compile_cache(args.compile_cache)
    train(config, args.resume, args.init_from, args.profile)


def train(
    config: Config, resume: str | None, init_from: str | None, profile: bool
) -> None:
    """Trains in new folders, or on in the folder of the run to resume."""
    print(training.describe(config, config.num_seeds), flush=True)
    runs = [resume_run(config, resume)] if resume else start_runs(config, init_from)
    for run in runs:
        print(f"output in {run.directory}", flush=True)
    writes = parallel.is_first_process()
    with contextlib.ExitStack() as stack:
        members, records = [], []
        for run in runs:
            if writes:
                run.directory.mkdir(parents=True, exist_ok=bool(resume))
                training.store_run(run)
                records.append(_recorded(run))
            saved = Checkpoints(run.directory / "checkpoints", config.checkpoint.keep)
            progress = Progress(
                run.directory if writes else None,
                config.train.num_epochs,
                resumed_epoch=run.epoch if resume else None,
                tensorboard=config.tensorboard,
                show=not members,
                loggers=[*loggers.make(config, run.directory), records[-1]]
                if writes
                else (),
            )
            stack.enter_context(saved)
            stack.enter_context(progress)
            members.append(training.Member(run, progress, saved))
        try:
            training.train_together(
                members, runs[0].directory / "profile" if profile else None
            )
        except (KeyboardInterrupt, OSError, RuntimeError, FloatingPointError) as error:
            stopped = isinstance(error, KeyboardInterrupt)
            for record in records:
                record.ended(STOPPED if stopped else FAILED, str(error))
            for run in runs:
                print(f"to go on: {sys.argv[0]} --resume={run.directory}")
            raise
    for record in records:
        record.ended(DONE)
    for run in runs:
        print(f"results in {run.directory}")


def _recorded(run: training.Run) -> RunRecord:
    """Returns the record of a run in the database of all runs, its start noted."""
    record = RunRecord(run.directory, pathlib.Path(run.config.output_dir))
    record.started(config_lib.to_dict(run.config), provenance(run.directory))
    return record


def start_runs(config: Config, init_from: str | None) -> list[training.Run]:
    """Returns a fresh run for each seed; nothing is written yet."""
    now = parallel.agree(datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    runs = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        own = dataclasses.replace(config, seed=seed, num_seeds=1)
        directory = pathlib.Path(config.output_dir, config.name, f"{now}-{seed}")
        if directory.exists():
            raise ConfigError(f"{directory} exists already: wait a second")
        run = training.start_run(own, directory)
        if init_from:
            run.learner = training.with_weights(run.learner, pathlib.Path(init_from))
        runs.append(run)
    return runs


def resume_run(config: Config, directory: str) -> training.Run:
    """Returns the run in a folder as its newest checkpoint left it."""
    return training.resume_run(config, pathlib.Path(directory))


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-train`."""
    command_line.run(main)
