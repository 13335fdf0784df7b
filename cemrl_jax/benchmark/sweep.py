"""Benchmark: how fast the program's phases run, and how fast they could.

A sweep measures rollouts and updates as training runs them, and in the same process
the limits that the machine sets: the physics alone, a matrix product, a copy, a
program that does nothing. Everything is compiled ahead, warmed up, finished before
the clock is read, and reported as the median of several repeats.
"""

import time
from collections.abc import Callable, Iterator

import jax

from cemrl_jax.benchmark.machine import machine_limits
from cemrl_jax.benchmark.rollouts import measure_rollout
from cemrl_jax.benchmark.settings import BenchmarkConfig, environment
from cemrl_jax.benchmark.subject import Subject
from cemrl_jax.benchmark.timing import Row
from cemrl_jax.benchmark.updates import (
    EmbeddedWorker,
    measure_embedding,
    measure_updates,
    shares,
)


def sweep(config: BenchmarkConfig, say: Callable[[str], None]) -> Iterator[Row]:
    """Measures every combination; yields its row as soon as it is complete.

    A rollout does not depend on the batch size, nor an update on the number of
    environments (its replay has `replay_points`): each is measured once and stands in
    every row that it belongs to.

    Args:
      config: a valid configuration.
      say: told what is measured next, and if time is over.
    """
    start = time.perf_counter()
    say("limits of the machine")
    repeats = config.num_repeats
    limits = machine_limits(config.matmul_size, config.copy_mebibytes, repeats)
    for num_devices in config.num_devices:
        where = f"on {num_devices} device" + "s" * (num_devices > 1)
        rollouts: dict[int, Row] = {}
        say(f"replay of {config.replay_points:,} transitions {where}")
        memory, state = prepare_replay(config, num_devices)
        for batch_size in config.batch_sizes:
            updates: Row | None = None
            learning = Subject.of(config.update_config(batch_size))
            for num_envs in config.num_envs:
                if time.perf_counter() - start > 60 * config.max_minutes:
                    say(f"max_minutes={config.max_minutes:g} are over: rest left out")
                    return
                if updates is None:
                    say(f"updates with batches of {batch_size:,} {where}")
                    updates = measure_updates(
                        learning, state, num_devices, config.num_updates, repeats
                    )
                if num_envs not in rollouts:
                    say(f"rollout of {num_envs:,} environments {where}")
                    acting = Subject.of(config.rollout_config(num_envs))
                    rollouts[num_envs] = measure_rollout(acting, num_devices, repeats)
                row = sizes(config, learning)
                row |= {"num_envs": num_envs, "num_devices": num_devices}
                yield complete(row, limits, memory, updates, rollouts[num_envs])


def prepare_replay(
    config: BenchmarkConfig, num_devices: int
) -> tuple[Row, EmbeddedWorker]:
    """Fills the replay that all updates draw from, and times its embedding."""
    subject, rollout = Subject.of(config.base), config.base.rollout
    num_envs = max(1, rollout.num_envs // num_devices)
    episodes = config.replay_points // (num_devices * num_envs * rollout.num_steps)
    length = max(1, episodes) * rollout.num_steps
    worker = subject.workers(num_envs, length, rollout.num_steps, num_devices)
    row, state = measure_embedding(subject, worker, config.num_repeats)
    return row | {"replay_points": num_devices * num_envs * length}, state


def complete(row: Row, *parts: Row) -> Row:
    """Joins the parts of a row; adds the shares and the memory at its peak."""
    for part in parts:
        for name, value in part.items():
            known = row.get(name)
            row[name] = known | value if isinstance(known, dict) else value
    stats = jax.local_devices()[0].memory_stats() or {}
    row |= shares(row)
    if "peak_bytes_in_use" in stats:
        row["peak_memory_bytes"] = stats["peak_bytes_in_use"]
        row["peak_memory_source"] = "allocator, since the start"
    else:
        row["peak_memory_bytes"] = max(row["program_memory_bytes"].values())
        row["peak_memory_source"] = "compiler, largest program"
    return row


def sizes(config: BenchmarkConfig, subject: Subject) -> Row:
    """Returns where and with which sizes a row is measured.

    The numbers of environments and devices are left to the caller.
    """
    base, learner = subject.config, subject.learner
    parts = {
        **learner.world_model.params,
        "actor": learner.actor.params,
        "critic": learner.critic.params,
    }
    return environment("sweep", config) | {
        "robot": type(base.env.robot).__name__,
        "num_envs": 0,
        "batch_size": base.sac.batch_size,
        "num_devices": 0,
        "num_steps": config.num_steps,
        "num_updates": config.num_updates,
        "num_repeats": config.num_repeats,
        "encoder": base.encoder.kind,
        "window_steps": base.encoder.window_steps,
        "num_classes": base.encoder.num_classes,
        "latent_size": base.encoder.latent_size,
        "encoder_width_factor": base.encoder.width_factor,
        "decoder_width_factor": base.elbo.decoder_width_factor,
        "hidden_size": base.sac.hidden_size,
        "num_layers": base.sac.num_layers,
        "obs_size": subject.agent.obs_size,
        "action_size": subject.agent.action_size,
        "parameters": {
            name: sum(leaf.size for leaf in jax.tree.leaves(part))
            for name, part in parts.items()
            if jax.tree.leaves(part)
        },
    }
