"""Trains CEMRL: collects, learns, evaluates and saves until the epochs are done."""

import datetime
import pathlib
import sys

from cemrl_jax import command_line, parallel
from cemrl_jax import config as config_lib
from cemrl_jax.config import Config, ConfigError

EXAMPLES = """\
examples:
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
    args, overrides = parser.parse_known_args()
    if args.resume and (args.config or args.init_from):
        raise ConfigError("--resume takes its configuration from the run: no --config")
    if args.resume and not pathlib.Path(args.resume, "config.json").is_file():
        raise ConfigError(f"--resume={args.resume}: no run there (no config.json)")
    source = f"{args.resume}/config.json" if args.resume else args.config
    config = command_line.read_config(source, overrides)
    config.validate(parallel.num_devices())
    if args.check:
        print("the configuration is valid")
        return
    command_line.use_compile_cache(args.compile_cache)
    train(config, args.resume, args.init_from)


def train(config: Config, resume: str | None, init_from: str | None) -> None:
    """Trains in a new folder, or on in the folder of the run to resume."""
    from cemrl_jax import train as training  # after the command line is known good
    from cemrl_jax.checkpoint import Checkpoints
    from cemrl_jax.logging import Progress

    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    directory = pathlib.Path(
        resume or f"{config.output_dir}/{config.name}/{now}-{config.seed}"
    )
    if resume:
        run = training.resume_run(config, directory)
    else:
        if directory.exists():
            raise ConfigError(f"{directory} exists already: wait a second")
        run = training.start_run(config, directory)
    if init_from:
        run.learner = training.with_weights(run.learner, pathlib.Path(init_from))
    print(training.describe(run), flush=True)
    directory.mkdir(parents=True, exist_ok=bool(resume))
    config_lib.save(config, directory / "config.json")
    saved = Checkpoints(directory / "checkpoints", config.checkpoint.keep)
    progress = Progress(
        directory,
        config.train.num_epochs,
        resumed_epoch=run.epoch if resume else None,
        tensorboard=config.tensorboard,
    )
    try:
        with saved, progress:
            training.train(run, progress, saved)
    except (KeyboardInterrupt, OSError, RuntimeError, FloatingPointError):
        print(f"to go on: {sys.argv[0]} --resume={directory}", file=sys.stderr)
        raise
    print(f"results in {directory}")


if __name__ == "__main__":
    command_line.run(main)
