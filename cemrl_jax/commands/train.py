"""Trains CEMRL: collects, learns, evaluates and saves until the epochs are done."""

import argparse
import contextlib
import dataclasses
import datetime
import pathlib
import sys
from collections.abc import Iterator, Sequence

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import load
from cemrl_jax.analysis.database import DONE, FAILED, STOPPED, RunRecord
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config, ConfigError, presets
from cemrl_jax.reporting import loggers
from cemrl_jax.reporting.progress import Progress
from cemrl_jax.runtime import compile_cache, parallel, program_store, provenance
from cemrl_jax.runtime.program_store import ProgramStore
from cemrl_jax.training import changes, loop, resume, signals, state, storage
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.lock import Lock
from cemrl_jax.training.programs import Programs, compile_programs

EXAMPLES = """\
examples:
  python scripts/train.py --list
  python scripts/train.py --config=configs/quickstart.py
  python scripts/train.py --config=configs/cheetah_stationary_vel.py \\
      --config.sac.learning_rate=1e-4 --config.seed=3
  python scripts/train.py --config=output/point-vel/<run>/config.json
  python scripts/train.py --resume=output/point-vel/<run>
  python scripts/train.py --resume=output/point-vel/<run> --config.train.num_epochs=99
  python scripts/train.py --resume output/point-vel/<run>-0 output/point-vel/<run>-1
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
    fields = command_line.describe(command_line.shown(sys.argv[1:]))
    epilog = EXAMPLES + command_line.OVERRIDES + fields
    parser = command_line.parser("Trains CEMRL.", epilog)
    add_arguments(parser)
    args, overrides = parser.parse_known_args()
    if args.list:
        print(presets.describe(command_line.load_presets()))
        return 0
    config, directories = read(args, overrides)
    command_line.join_processes(args.distributed)
    config.validate(parallel.num_devices())
    if parallel.is_first_process():
        for warning in config.warnings():
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        loggers.check(config)
    if args.check:
        print("the configuration is valid")
        return 0
    compile_cache.use(args.compile_cache)
    store = program_store.open_store(args.compile_cache)
    reason = train(config, directories, args.init_from, args.profile, store)
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
        nargs="+",
        help="continue the run in this folder, or the seeds in these, which go on"
        " together as they started; FOLDER/latest: the newest run in a"
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
) -> tuple[Config, list[pathlib.Path]]:
    """Returns the configuration, and the folders of the runs to resume.

    Raises:
      ConfigError: the arguments contradict each other, or name what is not there.
    """
    if not args.resume:
        return command_line.read_config(args.config, overrides), []
    latest = args.resume == [resume.LATEST]
    if args.init_from or (args.config and not latest):
        raise ConfigError("--resume takes its configuration from the run: no --config")
    if latest and args.config:
        config = command_line.read_config(args.config, overrides)
        folders = resume.find_group(config)
    else:
        found = [resume.find_run(name, None) for name in args.resume]
        folders = list(dict.fromkeys(path for path in found if path))
        config = command_line.read_config(f"{folders[0]}/config.json", overrides)
        if config.num_seeds != 1:
            raise ConfigError(
                f"num_seeds={config.num_seeds} cannot go with --resume: each seed is a"
                " run with a folder of its own, name them all, --resume RUN RUN"
            )
    for folder in folders:
        stored = config_lib.load(folder / "config.json")
        seed = stored.seed if len(folders) > 1 else config.seed
        given = dataclasses.replace(config, seed=seed, num_seeds=1)
        changes.check_resume(stored, given)
    return config, folders


def train(
    config: Config,
    directories: Sequence[pathlib.Path] = (),
    init_from: str | None = None,
    profile: bool = False,
    store: ProgramStore | None = None,
) -> int:
    """Trains in new folders, or on in the folders of the runs to resume.

    Args:
      config: the configuration.
      directories: of the runs to resume.
      init_from: a run whose best weights are where a new one begins.
      profile: write a trace of one epoch's programs.
      store: of compiled programs.

    Returns:
      Why it stopped, see `StopRequest.reason`; 0 if all epochs are done.
    """
    if directories:
        config, directories = of_sound(config, directories)
    print(run_lib.describe(config, config.num_seeds), flush=True)
    stop = signals.StopRequest(config.train.max_hours)
    with contextlib.ExitStack() as stack:
        if parallel.is_first_process():
            for directory in directories:
                stack.enter_context(Lock(directory))
        if is_done(config, directories):
            return 0
        reopened = resume.reopen(config, directories) if directories else None
        runs = reopened.runs if reopened else new_runs(config)
        programs = compile_programs(
            config,
            [run.config.seed for run in runs],
            [run.pools for run in runs],
            lambda name: print(f"compiling {name}", flush=True),
            begins=reopened is None or not reopened.points,
            store=store,
        )
        programs.check_memory(config)
        start = reopened.restore() if reopened else None
        start = start or first_state(config, runs, init_from, programs)
        for run in runs:
            print(f"output in {run.directory}", flush=True)
        members, records = open_members(runs, bool(directories), stack)
        members[0].progress.compiled(programs.compile_seconds)
        stack.enter_context(signals.listening(stop, way_on(runs)))
        profile_dir = runs[0].directory / "profile" if profile else None
        with noted_failures(records, members):
            reason = loop.train_together(members, start, programs, profile_dir, stop)
        for record, member in zip(records, members):
            note_end(record, member, STOPPED if reason else DONE)
    if reason:
        print(f"stopped by {signals.name(reason)} and saved; {way_on(runs)}")
    else:
        for member in members:
            failed = f" until it failed at {member.failure}" if member.failure else ""
            print(f"results in {member.run.directory}{failed}")
    return reason


def of_sound(
    config: Config, directories: Sequence[pathlib.Path]
) -> tuple[Config, list[pathlib.Path]]:
    """Returns the seeds of a group that go on, and their configuration.

    Raises:
      ConfigError: all of them failed.
    """
    left = sound(directories)
    if not left:
        raise ConfigError(
            "--resume: all of these seeds failed, and none goes on with the others."
            " Resume one alone, which goes on from its last good checkpoint, with a"
            f" lower learning rate: --resume={directories[0]}"
            " --config.sac.learning_rate=..."
        )
    if len(directories) > 1:
        seed = config_lib.load(left[0] / "config.json").seed
        config = dataclasses.replace(config, seed=seed)
    return dataclasses.replace(config, num_seeds=len(left)), left


def sound(directories: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Leaves out seeds of a group whose numbers stopped being finite, and says so."""
    if len(directories) < 2:
        return list(directories)
    failures = {path: storage.failed(path) for path in directories}
    for path, epoch in failures.items():
        if epoch is not None:
            print(f"{path} failed at epoch {epoch} and stays out", file=sys.stderr)
    return [path for path, epoch in failures.items() if epoch is None]


def is_done(config: Config, directories: Sequence[pathlib.Path]) -> bool:
    """Returns whether all epochs of the runs to resume are done, and says so."""
    finished = [resume.is_finished(config, path) for path in directories]
    if not finished or not all(finished):
        return False
    print(
        f"the run in {directories[0]} is finished: all {config.train.num_epochs} epochs"
        " are done; a larger --config.train.num_epochs goes on"
    )
    return True


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
        # Of a group one more: where it is killed, all seeds have the one before.
        keep = run.config.checkpoint.keep + (len(runs) > 1)
        saved = storage.Storage(run.directory, keep, run.collects)
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


@contextlib.contextmanager
def noted_failures(
    records: Sequence[RunRecord], members: Sequence[loop.Member]
) -> Iterator[None]:
    """Writes into the database what ended the runs early, and prints how they go on."""
    try:
        yield
    except (KeyboardInterrupt, OSError, RuntimeError, FloatingPointError) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        for record, member in zip(records, members):
            note_end(record, member, STOPPED if stopped else FAILED, str(error))
        left = [member.run for member in members if not member.failure]
        print(way_on(left or [members[-1].run]), flush=True)
        raise


def note_end(
    record: RunRecord, member: loop.Member, status: str, note: str = ""
) -> None:
    """Writes into the database how a run ended, or that it had failed before."""
    if member.failure:
        status, note = FAILED, member.failure
    record.ended(status, note)


def _recorded(run: run_lib.Run) -> RunRecord:
    """Returns the record of a run in the database of all runs, its start noted."""
    record = RunRecord(run.directory, pathlib.Path(run.config.output_dir))
    about = load.provenance(run.directory)
    record.started(config_lib.to_dict(run.config), about, run.logged_epoch)
    return record


def way_on(runs: Sequence[run_lib.Run]) -> str:
    """Returns how runs go on that end early; empty if they cannot."""
    script, known = sys.argv[0], [run for run in runs if _is_stored(run)]
    folders = [str(run.directory) for run in known]
    if not known:
        return ""
    if known[0].config.checkpoint.replay:
        option = "--resume=" if len(folders) == 1 else "--resume "
        return f"to go on: {script} {option}{' '.join(folders)}"
    return "\n".join(
        f"to use its weights: {script} --init-from={run.directory}"
        for run in known
        if storage.complete(run.directory / storage.CHECKPOINTS)
    )


def _is_stored(run: run_lib.Run) -> bool:
    return (run.directory / "config.json").is_file()


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
    config: Config,
    runs: Sequence[run_lib.Run],
    init_from: str | None,
    programs: Programs,
) -> state.State:
    """Returns a fresh state for all runs."""
    numbers = [run.config.seed for run in runs]
    pools = [run.pools["train"] for run in runs]
    start = state.initial(config, numbers, pools, programs.init)
    if not init_from:
        return start
    source = pathlib.Path(init_from)
    learner = resume.with_weights(config, start.learner, source, len(runs))
    return start.replace(learner=learner)


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-train`."""
    command_line.run(main)
