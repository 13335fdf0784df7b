"""What a benchmark measures, as its presets say."""

import dataclasses

from cemrl_jax import config as config_lib
from cemrl_jax.benchmark.timing import Row
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.runtime import provenance


@dataclasses.dataclass
class BenchmarkConfig:
    """What a benchmark measures; counts are totals over all devices.

    Every combination of environments, batch size and devices becomes a row.

    Attributes:
      name: begins the name of the result file.
      output_dir: folder of the results.
      base: the training preset that is measured; its rollout.num_envs and
        sac.batch_size give way to the lists below.
      num_envs: numbers of environments.
      batch_sizes: transitions in an update.
      num_devices: numbers of devices.
      num_steps: control steps in a timed rollout.
      num_updates: updates in a timed phase.
      replay_points: transitions in the replay that updates draw from.
      num_repeats: timed runs of each program, after one that is not timed.
      matmul_size: rows and columns of the matrices that are multiplied.
      copy_mebibytes: size of the array that is copied.
      max_minutes: no measurement begins after this time; those done are kept.
    """

    name: str = "benchmark"
    output_dir: str = "benchmarks/results"
    base: Config = dataclasses.field(default_factory=Config)
    num_envs: tuple[int, ...] = (64,)
    batch_sizes: tuple[int, ...] = (256,)
    num_devices: tuple[int, ...] = (1,)
    num_steps: int = 20
    num_updates: int = 50
    replay_points: int = 200_000
    num_repeats: int = 5
    matmul_size: int = 2048
    copy_mebibytes: int = 256
    max_minutes: float = 10.0

    def validate(self, available: int) -> None:
        """Checks every rule, for so many available devices.

        Raises:
          ConfigError: lists each broken rule with the field, its value and the rule.
        """
        problems = config_lib.type_problems(self)
        if not problems:
            problems = self._list_problems(available) + self._range_problems()
        if problems:
            raise ConfigError("\n".join(problems))
        self.base.validate(1)

    def rollout_config(self, num_envs: int) -> Config:
        """Returns the training configuration with so many environments."""
        rollout = dataclasses.replace(
            self.base.rollout, num_envs=num_envs, num_steps=self.num_steps
        )
        return dataclasses.replace(self.base, rollout=rollout)

    def update_config(self, batch_size: int) -> Config:
        """Returns the training configuration with this batch size."""
        sac = dataclasses.replace(self.base.sac, batch_size=batch_size)
        return dataclasses.replace(self.base, sac=sac)

    def _list_problems(self, available: int) -> list[str]:
        problems = []
        for field in ("num_envs", "batch_sizes", "num_devices"):
            values = getattr(self, field)
            if not values or any(type(v) is not int or v < 1 for v in values):
                problems.append(f"{field}={values} must list integers of at least 1")
            elif field == "num_devices" and max(values) > available:
                problems.append(
                    f"{field}={values} must not exceed the {available} devices here;"
                    " a CPU passes for more with"
                    f" XLA_FLAGS=--xla_force_host_platform_device_count={max(values)}"
                )
        if not problems:
            problems = [
                f"{field}={getattr(self, field)} must be multiples of"
                f" num_devices={num_devices}"
                for num_devices in self.num_devices
                for field in ("num_envs", "batch_sizes")
                if any(v % num_devices for v in getattr(self, field))
            ]
        return problems

    def _range_problems(self) -> list[str]:
        rules = {
            1: ("num_steps", "num_updates", "num_repeats", "matmul_size"),
            1e-6: ("max_minutes", "copy_mebibytes"),
        }
        problems = [
            f"{field}={getattr(self, field)} must be"
            f" {'at least 1' if least == 1 else 'above 0'}"
            for least, fields in rules.items()
            for field in fields
            if getattr(self, field) < least
        ]
        problems += [
            f"{field}={getattr(self, field)!r} must not be empty"
            for field in ("name", "output_dir")
            if not getattr(self, field)
        ]
        if self.base.num_seeds != 1:
            problems.append(f"base.num_seeds={self.base.num_seeds} must be 1")
        least = self.base.rollout.num_envs * self.base.rollout.num_steps
        if self.replay_points < least:
            problems.append(
                f"replay_points={self.replay_points} must hold at least one collect,"
                f" base.rollout.num_envs * base.rollout.num_steps = {least}"
            )
        return problems


def environment(measure: str, config: BenchmarkConfig) -> Row:
    """Returns what is measured, on which device, with which versions."""
    return {
        "measure": measure,
        "benchmark": config.name,
        "preset": config.base.name,
        "engine": config.base.env.resolved_engine,
    } | provenance.environment()
