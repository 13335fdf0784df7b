"""Measures throughput, start-up and the limits of the machine; compares results."""

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterable

from cemrl_jax.benchmark import compiled, devices, predictions, report
from cemrl_jax.benchmark.settings import BenchmarkConfig
from cemrl_jax.benchmark.startup import measure_startup
from cemrl_jax.benchmark.sweep import sweep
from cemrl_jax.benchmark.timing import Row
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError
from cemrl_jax.runtime import compile_cache, files, parallel

EXAMPLES = """\
examples:
  python scripts/benchmark.py --config=configs/benchmark_cpu.py
  python scripts/benchmark.py --config=configs/benchmark_cpu.py \\
      --config.num_envs=64,256 --config.batch_sizes=1024
  python scripts/benchmark.py --config=configs/benchmark_gpu.py \\
      --base=configs/cheetah_non_stationary_vel.py --config.base.encoder.width_factor=4
  python scripts/benchmark.py --config=configs/benchmark_cpu.py --startup
  python scripts/benchmark.py --config=configs/quickstart.py --compile-for=h100
  python scripts/benchmark.py --config=configs/throughput_cheetah.py \\
      --compile-for=tpu-v5e:2x2 --output=new.jsonl --programs=programs
  python scripts/benchmark.py --check-predictions new.jsonl measured.jsonl
  python scripts/benchmark.py --compare old.jsonl new.jsonl
  python scripts/benchmark.py --table benchmarks/results/*.jsonl
  python scripts/benchmark.py --plot benchmarks/results/<file>.jsonl

What the numbers mean: benchmarks/README.md

"""


def main() -> None:
    """Reads the command line and measures, or shows what was measured."""
    args, overrides = make_parser().parse_known_args()
    shows = [*(args.compare, args.table, args.plot, args.scale, args.check_predictions)]
    if any(shows):
        if overrides or args.config or sum(map(bool, shows)) > 1:
            raise ConfigError(
                "--compare, --table, --plot, --scale and --check-predictions stand"
                " alone"
            )
        show(args)
        return
    if args.compile_for:
        compile_for(args, overrides)
        return
    if args.output or args.programs or args.phases:
        raise ConfigError("--output, --programs and --phases go with --compile-for")
    config = command_line.read_config(args.config, [], BenchmarkConfig)
    if args.base:
        config.base = command_line.load_file(pathlib.Path(args.base))
    config = command_line.override(config, overrides)
    if args.startup:
        # the runs to come need memory of the device that this process also sees
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    config.validate(parallel.num_devices())
    if args.check:
        print("the configuration is valid")
        return
    compile_cache.use(args.compile_cache)
    say = lambda text: print(text, flush=True)  # noqa: E731
    if args.startup:
        write(config, "startup", [measure_startup(config, say)])
    else:
        write(config, "sweep", sweep(config, say))


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    fields = command_line.describe(BenchmarkConfig())
    parser = command_line.parser(
        "Benchmarks CEMRL.", EXAMPLES + command_line.OVERRIDES + fields
    )
    # compile seconds are part of the result, so nothing may come from a cache
    parser.set_defaults(compile_cache="off")
    parser.add_argument(
        "--config", metavar="FILE", help="a benchmark preset, configs/benchmark_*.py"
    )
    parser.add_argument(
        "--base", metavar="FILE", help="measure this training preset instead"
    )
    parser.add_argument(
        "--startup",
        action="store_true",
        help="measure the time to the end of the first epoch, with an empty compile"
        " cache and with a full one, instead of the sweep",
    )
    parser.add_argument(
        "--check", action="store_true", help="check the configuration and stop"
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="two result files side by side"
    )
    parser.add_argument(
        "--check-predictions",
        nargs=2,
        metavar=("PREDICTED", "MEASURED"),
        help="write what was measured, and its ratio, into the rows of --compile-for",
    )
    parser.add_argument(
        "--scale",
        nargs="+",
        metavar="FILE",
        help="rows of --compile-for as a table of more and more devices",
    )
    parser.add_argument(
        "--table", nargs="+", metavar="FILE", help="result files as markdown tables"
    )
    parser.add_argument(
        "--plot", nargs="+", metavar="FILE", help="draw result files again"
    )
    add_compiling(parser)
    return parser


def add_compiling(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `compile_for`."""
    parser.add_argument(
        "--compile-for",
        metavar="DEVICE",
        help="compile the phases of a training preset, --config, for a device that"
        f" need not be here, and count what it would run: {devices.FORMS}",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="append the rows of --compile-for to this file"
    )
    parser.add_argument(
        "--phases", metavar="NAMES", help="only these phases of --compile-for, a,b"
    )
    parser.add_argument(
        "--programs",
        metavar="DIR",
        help="keep the programs of --compile-for and lists of their kernels",
    )


def show(args: argparse.Namespace) -> None:
    """Shows result files that are there already."""
    read = lambda path: report.read_rows(pathlib.Path(path))  # noqa: E731
    if args.check_predictions:
        rows = predictions.with_measured(*map(read, args.check_predictions))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        files.write(pathlib.Path(args.check_predictions[0]), text.encode())
        print(report.table(rows))
    if args.scale:
        rows = [row for path in args.scale for row in read(path)]
        print(predictions.scale(predictions.only_compiled(rows)))
    if args.compare:
        print(report.compare(*map(read, args.compare)))
    if args.table:
        print(report.table([row for path in args.table for row in read(path)]))
    for path in args.plot or []:
        for file in report.plot(read(path), pathlib.Path(path).with_suffix("")):
            print(file)


def compile_for(args: argparse.Namespace, overrides: list[str]) -> None:
    """Compiles a training preset's phases for a described device; writes the rows."""
    target = devices.find_target(args.compile_for)
    config = command_line.read_config(args.config, overrides)
    config = compiled.on_accelerator(config)
    config.validate(len(target.chips))
    if args.check:
        print("the configuration is valid")
        return
    compile_cache.use(args.compile_cache)
    say = lambda text: print(text, flush=True)  # noqa: E731
    keep = pathlib.Path(args.programs) if args.programs else None
    only = args.phases.split(",") if args.phases else None
    done = []
    for row in compiled.compile_phases(config, target, say, keep, only):
        done.append(row)
        if args.output:
            append(pathlib.Path(args.output), row)
    print("\n" + report.table(done) + "\n")


def append(path: pathlib.Path, row: Row) -> None:
    """Appends a row to a file, one a line."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def write(config: BenchmarkConfig, what: str, rows: Iterable[Row]) -> None:
    """Writes rows as they come, one a line; then shows them as tables and plots."""
    path, done = None, []
    for row in rows:
        if path is None:
            path = result_path(config, what, row)
        done.append(row)
        append(path, row)
    if path is None:
        raise ConfigError(f"max_minutes={config.max_minutes} left no time for a row")
    print("\n" + report.table(done) + "\n")
    if what == "sweep" and importlib.util.find_spec("matplotlib"):
        print("plots: ", *report.plot(done, path.with_suffix("")))
    print(f"rows:   {path}")


def result_path(config: BenchmarkConfig, what: str, row: Row) -> pathlib.Path:
    """Returns a new file's path, made of the benchmark's name, device and time."""
    directory = pathlib.Path(config.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", row["device_kind"].lower()).strip("-")
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    name = config.name if what == "sweep" else f"{config.name}_{what}"
    return directory / f"{name}_{device}_{now}.jsonl"


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-benchmark`."""
    command_line.run(main)
