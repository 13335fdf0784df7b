"""Phases of training compiled for described accelerators, counted, and a prediction.

Nothing runs: what is said of time follows from counts and data sheets, and is a
prediction. What it leaves out is listed in benchmarks/README.md.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.benchmark import counts, hlo
from cemrl_jax.benchmark.counts import Block, Counts
from cemrl_jax.benchmark.devices import Device, Target
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.runtime import parallel, provenance
from cemrl_jax.training import state
from cemrl_jax.training.run import make_pools

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a phase repeats.

    Attributes:
      unit: name of one step.
      count: of them in a phase.
      rate: field of a measured row that says how many there are a second.
      depth: how many loops the step is in.
      interval: steps of the innermost of these loops.
      per_step: what one step counts as in that rate.
    """

    unit: str
    count: int
    rate: str
    depth: int = 1
    interval: int = 1
    per_step: int = 1


def steps_of(config: Config) -> dict[str, Steps]:
    """Returns phase -> what it repeats."""
    train, validations = config.train, {}
    if train.early_stopping_steps:
        validations = {"depth": 2, "interval": train.validation_interval}
    return {
        "collect": Steps(
            "env step",
            config.rollout.num_steps,
            "env_steps_per_second",
            per_step=config.rollout.num_envs,
        ),
        "train": Steps("update", config.num_updates, "updates_per_second"),
        "world_model": Steps(
            "model step",
            train.num_world_model_steps,
            "model_steps_per_second",
            **validations,
        ),
        "policy": Steps("policy step", config.num_updates, "policy_steps_per_second"),
    }


def compile_phases(
    config: Config,
    target: Target,
    say: Callable[[str], None],
    keep: pathlib.Path | None = None,
    only: Sequence[str] | None = None,
) -> Iterator[Row]:
    """Compiles each phase of an epoch; yields its row as soon as it is counted.

    Args:
      config: a valid configuration; its physics is MJX whatever it says.
      target: what to compile for.
      say: told the name of each phase before it is compiled.
      keep: folder for the programs' text and a list of their kernels; None to drop
        them.
      only: names of the phases to compile; None for all.

    Raises:
      ConfigError: the preset has no phase of such a name.
    """
    config = on_accelerator(config)
    chips = target.chips
    env = config.env.make()
    tasks, platform = make_pools(config)["train"], target.device.platform
    shapes = state.shapes(config, 1, tasks, len(chips), platform)
    phases = make_algorithm(config, env).phases(env, len(chips))
    unknown = set(only or ()) - set(phases)
    if unknown:
        raise ConfigError(
            f"--phases={','.join(only or ())}: {config.name} has {', '.join(phases)}"
        )
    for name, phase in phases.items():
        if only and name not in only:
            continue
        say(f"{config.name}: {name} for {target.name}")
        start = time.perf_counter()
        mapped = parallel.spmd(phase, chips)
        lowered = mapped.lower(shapes.learner, shapes.worker)
        lowered_at = time.perf_counter()
        program = lowered.compile()
        seconds = time.perf_counter() - lowered_at
        text = program.as_text() or ""
        block = count(text, shapes.worker.replay, target.device)
        row = head(config, target, name, shapes)
        row["lower_seconds"] = lowered_at - start
        row["phase_compile_seconds"] = seconds
        row |= summary(block, steps_of(config)[name], target)
        row |= memory(program, text, shapes, config, target)
        row |= fitting(row)
        if keep is not None:
            stem = f"{config.name}_{target.name}_{name}".replace(":", "_")
            write_program(keep / stem, text, block)
        yield row


def on_accelerator(config: Config) -> Config:
    """Returns the configuration with the physics that accelerators run."""
    return dataclasses.replace(
        config, env=dataclasses.replace(config.env, engine="mjx")
    )


def count(text: str, replay: Any, device: Device) -> Block:
    """Counts in the text of a program."""
    is_tpu = device.platform == "tpu"
    counter = counts.Counter(
        hlo.parse(text),
        replay_sizes=replay_sizes(replay),
        on_chip=1 if is_tpu else None,
        host_loops=not is_tpu,
    )
    return counter.count()


def replay_sizes(replay: Any) -> frozenset[int]:
    """Returns the numbers of elements of a replay's arrays on one device.

    Args:
      replay: shapes `[D, ...]`; its counters are no arrays.
    """
    leaves = [leaf for leaf in jax.tree.leaves(replay) if leaf.ndim > 1]
    return frozenset(leaf.size // leaf.shape[0] for leaf in leaves)


# ---------------------------------------------------------------- rows


def head(config: Config, target: Target, phase: str, shapes: state.State) -> Row:
    """Returns what is compiled, for which device, with which versions."""
    here = provenance.environment()
    return here | {
        "measure": "compiled",
        "target": target.name,
        "phase": phase,
        "preset": config.name,
        "engine": config.env.resolved_engine,
        "robot": type(config.env.robot).__name__,
        "platform": target.device.platform,
        "device_kind": target.device.kind,
        "num_devices": len(target.chips),
        "num_envs": config.rollout.num_envs,
        "num_steps": config.rollout.num_steps,
        "batch_size": config.sac.batch_size,
        "replay_capacity": config.replay.capacity,
        "encoder": config.encoder.kind,
        "window_steps": config.encoder.window_steps,
        "num_parameters": sum(
            leaf.size for leaf in jax.tree.leaves(parameters(shapes.learner))
        ),
    }


def parameters(learner: Any) -> Any:
    """Returns the networks of a learner."""
    return [
        getattr(learner, name).params
        for name in ("world_model", "actor", "critic", "temperature")
    ]


def memory(
    program: Any, text: str, shapes: state.State, config: Config, target: Target
) -> Row:
    """Returns what a program needs on one device, bytes."""
    stats = program.memory_analysis()
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    nominal = state.num_bytes(shapes.worker.replay) // len(target.chips)
    sizes = replay_sizes(shapes.worker.replay)
    module = hlo.parse(text)
    arrays = [
        shape
        for parameter in module.computations[module.entry].parameters.values()
        for shape in parameter.shapes
        if shape.size in sizes
    ]
    transitions = config.rollout.num_envs // len(target.chips) * config.replay_length
    return {
        "argument_bytes": stats.argument_size_in_bytes,
        "temporary_bytes": stats.temp_size_in_bytes,
        "peak_memory_bytes": stats.argument_size_in_bytes
        + max(results, 0)
        + stats.temp_size_in_bytes,
        "device_memory_bytes": target.device.memory,
        "learner_bytes": state.num_bytes(shapes.learner),
        "replay_bytes": nominal,
        "replay_padded_bytes": sum(shape.padded_bytes for shape in arrays),
        "replay_transitions": transitions,
        "replay_bytes_per_transition": nominal / transitions,
    }


def fitting(row: Row) -> Row:
    """Returns how much would fit the devices together, if all else stayed.

    Copies of the replay grow with it, and what else collecting needs for a time with
    the environments. A tenth of the memory is left to the system.
    """
    devices, transitions = row["num_devices"], row["replay_transitions"]
    free = 0.9 * row["device_memory_bytes"] - row["learner_bytes"]
    copied = min(row["replay_copy_bytes"], row["temporary_bytes"])
    fixed = row["temporary_bytes"] - copied
    each = (row["replay_padded_bytes"] + copied) / transitions
    fits: Row = {"fitting_transitions": max(0, int((free - fixed) / each)) * devices}
    if row["phase"] == "collect":
        num_envs = row["num_envs"] // devices
        per_env = fixed / num_envs + row["num_steps"] * each
        fits["fitting_envs"] = int(free / per_env) * devices
    return fits


def summary(block: Block, steps: Steps, target: Target) -> Row:
    """Returns the counts of one step and of what is around the steps, and the times."""
    per_step, around = split(block, steps)
    step_time = predict(per_step, target)
    around_time = predict(around, target)
    seconds = steps.count * step_time["seconds"] + around_time["seconds"]
    all_counts = [kernel.counts for _, kernel in block.walk()]
    unlimited = [loop.source for _, loop in block.all_loops() if not loop.limited]
    return {
        "step": steps.unit,
        "steps": steps.count,
        "kernels_per_step": counts.num_kernels(per_step),
        "loops": [
            f"{'  ' * depth}{loop.trips if loop.limited else '?'}"
            f"{' x' if loop.known else ' x at most'}"
            f" {counts.num_kernels(loop.own)}: {loop.source}"
            for depth, loop in block.all_loops()
        ],
        "kernels_by_kind": group(per_step, "kernels/"),
        "kernels_around": counts.num_kernels(around),
        "library_calls": group(per_step, "library/"),
        "dynamic_loops": per_step["dynamic_loops"],
        "unlimited_loops": unlimited,
        "host_reads": per_step["host_reads"],
        "collectives": per_step["collectives"],
        "collective_bytes": per_step["collective_bytes"],
        "callbacks": per_step["callbacks"] + around["callbacks"],
        "host_transfers": per_step["host_transfers"] + around["host_transfers"],
        "replay_copies": sum(x["replay_copies"] for x in all_counts),
        "replay_copy_bytes": sum(x["replay_copy_bytes"] for x in all_counts),
        "flops": group(per_step, "flops/"),
        "bytes": per_step["bytes"],
        "predicted_step_seconds": step_time,
        "room": room(step_time),
        "predicted_phase_seconds": seconds,
        f"predicted_{steps.rate}": steps.count * steps.per_step / seconds,
        "constants": constants(target.device),
    }


def split(block: Block, steps: Steps) -> tuple[Counts, Counts]:
    """Returns what one step does, and what a phase does besides.

    The steps are in the loop with the most kernels, and for `depth` 2 in the one
    with the most kernels within it.
    """
    loop, outer, times = block, block, 1
    for _ in range(steps.depth):
        if not loop.loops:
            break
        outer, loop = loop, max(loop.loops, key=lambda inner: inner.num_kernels)
    if steps.depth == 1:
        total = loop.total if loop.known else counts.scaled(loop.once, steps.count)
        around = Counts(block.once)
        around.subtract(loop.total)
        return counts.scaled(total, 1 / steps.count), around
    times = steps.count / steps.interval
    per_interval = Counts(outer.once)
    per_interval.subtract(loop.total)
    around = Counts(block.once)
    around.subtract(outer.total)
    around.update(counts.scaled(per_interval, times))
    return Counts(loop.once), around


def predict(done: Counts, target: Target) -> dict[str, float]:
    """Returns the seconds that each resource would take alone, and the largest.

    A collective needs the links and waits for its neighbours: its time comes on top.
    """
    device = target.device
    vector = done["flops/other"] / device.vector_flops if device.vector_flops else 0.0
    alone = {
        "flops": done["flops/product"] / device.product_flops
        + done["flops/precise"] / device.precise_flops
        + vector,
        "bytes": done["bytes"] / device.bandwidth,
        "launches": counts.num_kernels(done) * (device.launch_seconds or 0.0)
        + done["host_reads"] * (device.host_read_seconds or 0.0),
    }
    collectives = collective_seconds(done, target)
    return alone | {
        "collectives": collectives,
        "seconds": max(alone.values()) + collectives,
    }


def room(seconds: dict[str, float]) -> float | None:
    """Returns how many times as much a step could do in the time of its launches.

    None where launches are not what it waits for.
    """
    busy = max(seconds["bytes"], seconds["flops"])
    return seconds["launches"] / busy if 0 < busy < seconds["launches"] else None


def collective_seconds(done: Counts, target: Target) -> float:
    """Returns the seconds of all-reduces, each byte sent around a ring of devices."""
    number = len(target.chips)
    several = target.num_hosts > 1
    link = target.device.network if several else target.device.link
    moved = 2 * (number - 1) / number * done["collective_bytes"]
    return moved / link + done["collectives"] * target.all_reduce_seconds_at_least


def group(done: Counts, prefix: str) -> dict[str, float]:
    """Returns the numbers whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in sorted(done.items())
        if name.startswith(prefix) and value
    }


def constants(device: Device) -> Row:
    """Returns the figures that the prediction uses."""
    return {
        field.name: getattr(device, field.name)
        for field in dataclasses.fields(device)
        if field.name not in ("kind", "platform", "sources")
    }


def write_program(stem: pathlib.Path, text: str, block: Block) -> None:
    """Writes a program's text, and its kernels, those that run most often first."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".hlo").write_text(text)
    lines = [
        f"{times:>8}  {kernel.kind:14}  {kernel.counts['bytes']:>12}  {kernel.name:40}"
        f"  {kernel.source}"
        for times, kernel in sorted(block.walk(), key=lambda x: (-x[0], x[1].kind))
    ]
    stem.with_name(stem.name + ".kernels").write_text("\n".join(lines) + "\n")
