"""Trains CEMRL: collects, learns, evaluates and saves until the epochs are done."""

import argparse
import contextlib
import dataclasses
import datetime
import pathlib
import sys
from collections.abc import Sequence

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import load
from cemrl_jax.analysis.database import DONE, FAILED, STOPPED, RunRecord
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config, ConfigError, presets
from cemrl_jax.reporting import loggers
from cemrl_jax.reporting.progress import Progress
from cemrl_jax.runtime import parallel, provenance
from cemrl_jax.training import changes, loop, resume, signals, state, storage
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.lock import Lock
from cemrl_jax.training.programs import compile_programs

EXAMPLES = """\
examples:
  python scripts/train.py --list
  python scripts/train.py --config=configs/quickstart.py
  python scripts/train.py --config=configs/cheetah_stationary_vel.py \\
      --config.sac.learning_rate=1e-4 --config.seed=3
  python scripts/train.py --config=output/point-vel/<run>/config.json
  python scripts/train.py --resume=output/point-vel/<run>
  python scripts/train.py --resume=output/point-vel/<run> --config.train.num_epochs=99
  python scripts/train.py --resume=output/point-vel/latest
  python scripts/train.py --resume=latest --config=configs/quickstart.py

stopping:
  On SIGTERM or SIGINT (Ctrl-C) the running phase ends, the run is saved where it is,
  and --resume goes on as if it had never stopped. While nothing has run yet, and on a
  second signal, the process exits at once; the last checkpoint stays whole.

exit codes:
  0    all epochs are done, or train.max_hours is over and the run is saved
  1    something went wrong on the way
  2    bad input: nothing has been done
  130  SIGINT, 143 SIGTERM: stopped and saved; so that a scheduler sees that the job is
       not finished and starts it again. 0 instead with --exit-zero

"""


def main() -> int:
    """Reads the command line and trains; returns the exit code."""
    epilog = EXAMPLES + command_line.OVERRIDES + command_line.describe(Config())
    parser = command_line.parser("Trains CEMRL.", epilog)
    add_arguments(parser)
    args, overrides = parser.parse_known_args()
    if args.list:
        print(presets.describe(command_line.load_presets()))
        return 0
    config, directory = read(args, overrides)
    command_line.join_processes(args.distributed)
    config.validate(parallel.num_devices())
    if parallel.is_first_process():
        for warning in config.warnings():
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    if args.check:
        print("the configuration is valid")
        return 0
    command_line.use_compile_cache(args.compile_cache)
    reason = train(config, directory, args.init_from, args.profile)
    return signals.exit_code(reason, args.exit_zero) if reason else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a preset in configs/, its name alone, or a saved config.json",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue the run in this folder; FOLDER/latest: the newest run in a"
        " folder; latest, with --config: the newest run of this configuration's name"
        " and seed in its output_dir, or a new one if there is none. A run that has not"
        " saved anything yet begins again",
    )
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from the best weights of this run"
    )
    parser.add_argument(
        "--check", action="store_true", help="check the configuration and stop"
    )
    parser.add_argument(
        "--exit-zero",
        action="store_true",
        help="exit with 0 after a signal, for schedulers that must take a job that was"
        " stopped and saved for a success",
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


def read(
    args: argparse.Namespace, overrides: Sequence[str]
) -> tuple[Config, pathlib.Path | None]:
    """Returns the configuration, and the folder of the run to resume, if any.

    Raises:
      ConfigError: the arguments contradict each other, or name what is not there.
    """
    if not args.resume:
        return command_line.read_config(args.config, overrides), None
    latest = args.resume == resume.LATEST
    if args.init_from or (args.config and not latest):
        raise ConfigError("--resume takes its configuration from the run: no --config")
    if latest and args.config:
        config = command_line.read_config(args.config, overrides)
        directory = resume.find_run(args.resume, config)
    else:
        directory = resume.find_run(args.resume, None)
        config = command_line.read_config(f"{directory}/config.json", overrides)
    if directory is not None:
        changes.check_resume(config_lib.load(directory / "config.json"), config)
    return config, directory


def train(
    config: Config,
    directory: pathlib.Path | None,
    init_from: str | None,
    profile: bool,
) -> int:
    """Trains in new folders, or on in the folder of the run to resume.

    Returns:
      Why it stopped, see `StopRequest.reason`; 0 if all epochs are done.
    """
    print(run_lib.describe(config, config.num_seeds), flush=True)
    stop = signals.StopRequest(config.train.max_hours)
    with contextlib.ExitStack() as stack:
        if directory is not None:
            if parallel.is_first_process():
                stack.enter_context(Lock(directory))
            if resume.is_finished(config, directory):
                epochs = config.train.num_epochs
                print(
                    f"the run in {directory} is finished: all {epochs} epochs are done;"
                    " a larger --config.train.num_epochs goes on"
                )
                return 0
            runs = [resume.resume_run(config, directory)]
        else:
            runs = new_runs(config)
        programs = compile_programs(
            config,
            [run.config.seed for run in runs],
            [run.pools for run in runs],
            lambda name: print(f"compiling {name}", flush=True),
        )
        programs.check_memory(config)
        start = first_state(config, runs, init_from)
        for run in runs:
            print(f"output in {run.directory}", flush=True)
        members, records = open_members(runs, directory is not None, stack)
        members[0].progress.compiled(programs.compile_seconds)
        hint = "\n".join(filter(None, map(way_on, runs)))
        stack.enter_context(signals.listening(stop, hint))
        profile_dir = runs[0].directory / "profile" if profile else None
        try:
            reason = loop.train_together(members, start, programs, profile_dir, stop)
        except (KeyboardInterrupt, OSError, RuntimeError, FloatingPointError) as error:
            stopped = isinstance(error, KeyboardInterrupt)
            for record in records:
                record.ended(STOPPED if stopped else FAILED, str(error))
            print("\n".join(filter(None, map(way_on, runs))), flush=True)
            raise
        for record in records:
            record.ended(STOPPED if reason else DONE)
    for run in runs:
        if reason:
            print(f"stopped by {signals.name(reason)} and saved; {way_on(run)}")
        else:
            print(f"results in {run.directory}")
    return reason


def open_members(
    runs: Sequence[run_lib.Run], resumed: bool, stack: contextlib.ExitStack
) -> tuple[list[loop.Member], list[RunRecord]]:
    """Opens the folders of runs, new ones created, until the stack is left.

    Returns:
      The members, and what writes them into the database of all runs.
    """
    writes, members, records = parallel.is_first_process(), [], []
    for run in runs:
        if writes:
            run.directory.mkdir(parents=True, exist_ok=resumed)
            if not resumed:
                stack.enter_context(Lock(run.directory))
            run_lib.store_run(run)
            provenance.record(
                run.directory,
                provenance.start(run.epoch, run.config.env.resolved_engine),
            )
            records.append(_recorded(run))
        saved = storage.Storage(run.directory, run.config.checkpoint.keep, run.collects)
        progress = Progress(
            run.directory if writes else None,
            run.config.train.num_epochs,
            resumed_epoch=run.logged_epoch if resumed else None,
            tensorboard=run.config.tensorboard,
            show=not members,
            loggers=[*loggers.make(run.config, run.directory), records[-1]]
            if writes
            else (),
        )
        stack.enter_context(saved)
        stack.enter_context(progress)
        members.append(loop.Member(run, progress, saved))
    return members, records


def _recorded(run: run_lib.Run) -> RunRecord:
    """Returns the record of a run in the database of all runs, its start noted."""
    record = RunRecord(run.directory, pathlib.Path(run.config.output_dir))
    about = load.provenance(run.directory)
    record.started(config_lib.to_dict(run.config), about)
    return record


def way_on(run: run_lib.Run) -> str:
    """Returns how a run goes on that ends early; empty if it cannot."""
    if not (run.directory / "config.json").is_file():
        return ""
    if run.config.checkpoint.replay:
        return f"to go on: {sys.argv[0]} --resume={run.directory}"
    if storage.complete(run.directory / storage.CHECKPOINTS):
        return f"to use its weights: {sys.argv[0]} --init-from={run.directory}"
    return ""


def new_runs(config: Config) -> list[run_lib.Run]:
    """Returns a run for each seed, without its state; nothing is written yet."""
    now = parallel.agree(datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    runs = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        own = dataclasses.replace(config, seed=seed, num_seeds=1)
        directory = pathlib.Path(config.output_dir, config.name, f"{now}-{seed}")
        if directory.exists():
            raise ConfigError(f"{directory} exists already: wait a second")
        runs.append(run_lib.Run(own, directory, None, None, run_lib.make_pools(own)))
    return runs


def first_state(
    config: Config, runs: Sequence[run_lib.Run], init_from: str | None
) -> state.State:
    """Returns the state of runs: a resumed one's own, or a fresh one for all."""
    if runs[0].worker is not None:
        return state.State(runs[0].learner, runs[0].worker)
    numbers = [run.config.seed for run in runs]
    start = state.initial(config, numbers, [run.pools["train"] for run in runs])
    if not init_from:
        return start
    source = pathlib.Path(init_from)
    learner = resume.with_weights(config, start.learner, source, len(runs))
    return start.replace(learner=learner)


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-train`."""
    command_line.run(main)
