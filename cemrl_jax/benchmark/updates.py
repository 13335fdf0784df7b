"""Measures the phases that learn, and what they must compute at least."""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl.phases import (
    PolicyPhase,
    Sampling,
    make_fused,
    make_world_model,
)
from cemrl_jax.agents.cemrl.types import Batch, LearnerState
from cemrl_jax.benchmark.subject import Subject
from cemrl_jax.benchmark.timing import Program, Row, num_bytes, repeat, timings
from cemrl_jax.config import Config
from cemrl_jax.data.types import ReplayState, WorkerState
from cemrl_jax.runtime import parallel

NUM_DISPATCHES = 30
"""Runs of a program that does nothing."""
SEGMENT = 8
"""Windows of a segment, where drawing in segments is measured besides."""


class EmbeddedWorker(struct.PyTreeNode):
    """A worker with the embeddings `[E, L, ...]` of its replay."""

    worker: WorkerState
    embedded: Any


@dataclasses.dataclass(frozen=True)
class UpdatesOnly(PolicyPhase):
    """The policy phase on embeddings that were made before.

    Attributes:
      embedded: the embeddings `[E, L, ...]`.
    """

    embedded: Any = None

    def embed(self, learner: LearnerState, memory: ReplayState) -> Any:
        """Returns what is there already."""
        del learner, memory
        return self.embedded


def measure_embedding(
    subject: Subject, worker: WorkerState, num_repeats: int
) -> tuple[Row, EmbeddedWorker]:
    """Times the embedding of the replay and an empty dispatch."""
    phase = PolicyPhase(subject.agent, 1, 1)

    def embed(learner: LearnerState, state: EmbeddedWorker) -> Any:
        embedded = phase.embed(learner, state.worker.replay)
        return learner, state.replace(embedded=embedded), {}

    blank = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(
            jax.vmap(phase.embed, in_axes=(None, 0)), subject.learner, worker.replay
        ),
    )
    program = Program(embed, subject.learner, EmbeddedWorker(worker, blank))
    row = timings({"embed": program}, num_repeats)
    data = worker.replay.data
    points = data.lines.shape[0] * data.num_envs * data.length
    row["embed_points_per_second"] = points / row["seconds"]["embed"]
    empty = Program(nothing, subject.learner, worker)
    dispatches = repeat({"empty": empty.run}, NUM_DISPATCHES)["empty"]
    row["empty_dispatch_seconds"] = statistics.median(dispatches)
    return row, program.worker


def nothing(learner: LearnerState, worker: WorkerState) -> Any:
    """The phase that does next to nothing: what a dispatch costs."""
    learner = learner.replace(num_updates=learner.num_updates + 1)
    return learner, worker, {}


def measure_updates(
    subject: Subject,
    state: EmbeddedWorker,
    num_devices: int,
    num_updates: int,
    num_repeats: int,
) -> Row:
    """Times the phases that learn: fused, and the model's and the policy's alone."""
    config = subject.config
    batch_size = config.sac.batch_size // num_devices
    sampling = Sampling(
        batch_size, config.elbo.windows_per_segment, decode=config.elbo.decode
    )
    segment = segment_size(config, batch_size)
    programs = update_programs(subject, state, sampling, segment, num_updates)
    row = timings(programs, num_repeats)
    rates = {name: num_updates / row["seconds"][name] for name in programs}
    segment_rates = {
        f"{name}_updates_per_second": rate
        for name, rate in rates.items()
        if "segments" in name
    }
    return (
        row
        | segment_rates
        | ({"windows_per_segment": segment} if segment else {})
        | {
            "updates_per_second": rates["fused"],
            "samples_per_second": rates["fused"] * config.sac.batch_size,
            "model_steps_per_second": rates["model"],
            "policy_steps_per_second": rates["policy"],
        }
        | work(subject, state.worker, sampling)
    )


def update_programs(
    subject: Subject,
    state: EmbeddedWorker,
    sampling: Sampling,
    segment: int,
    num_updates: int,
) -> dict[str, Program]:
    """Returns the phases that learn, compiled.

    Args:
      subject: what is measured.
      state: the replay that they draw from.
      sampling: how the configuration draws.
      segment: windows of a segment of those that draw so besides; 0 for none.
      num_updates: updates of each phase.
    """
    config, agent, learner = subject.config, subject.agent, subject.learner
    batch_size = sampling.batch_size

    train = dataclasses.replace(config.train, num_world_model_steps=num_updates)
    if train.early_stopping_steps:  # validates, and does not stop
        train.early_stopping_steps = num_updates

    def model(windows: int) -> Phase:
        own = dataclasses.replace(sampling, windows_per_segment=windows)
        return make_world_model(agent, own, train)

    def policy(learner: LearnerState, state: EmbeddedWorker) -> Any:
        phase = UpdatesOnly(agent, batch_size, num_updates, state.embedded)
        learner, worker, metrics = phase(learner, state.worker)
        return learner, state.replace(worker=worker), metrics

    fused = functools.partial(make_fused, agent, num_updates=num_updates)
    independent = config.sac.independent_transitions
    own = fused(sampling, independent_policy=independent)
    programs = {
        "fused": Program(own, learner, state.worker),
        "model": Program(model(sampling.windows_per_segment), learner, state.worker),
        "policy": Program(policy, learner, state),
    }
    if segment:
        runs = dataclasses.replace(sampling, windows_per_segment=segment)
        alone = fused(runs, independent_policy=True)
        programs |= {
            "fused_segments": Program(fused(runs), learner, state.worker),
            "fused_segments_model_only": Program(alone, learner, state.worker),
            "model_segments": Program(model(segment), learner, state.worker),
        }
    return programs


def segment_size(config: Config, batch_size: int) -> int:
    """Returns W of the segments that are measured besides, 0 where there are none."""
    fits = not batch_size % SEGMENT and config.rollout.num_steps >= SEGMENT
    plain = config.elbo.windows_per_segment == 1
    return SEGMENT if fits and plain and config.encoder.kind != "trajectory" else 0


def work(subject: Subject, worker: WorkerState, sampling: Sampling) -> Row:
    """Counts what updates must do at least, per device.

    Returns:
      Floating-point operations; and for the fused update the fewest bytes: the
      learner read and written once, the batch's windows read once.
    """
    agent, batch_size = subject.agent, sampling.batch_size
    learner = jax.eval_shape(lambda: subject.learner)
    memory: ReplayState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), worker.replay
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    def draw(sampling: Sampling) -> tuple[Batch, int]:
        """Returns a batch's shapes, and the bytes of what is gathered for it."""
        places = jax.eval_shape(sampling.places, memory, key)
        gather = functools.partial(sampling.gather, agent)
        rows = functools.partial(sampling.rows, agent)
        batch: Batch = jax.eval_shape(gather, learner, memory, places)
        return batch, num_bytes(jax.eval_shape(rows, memory, places.current))

    batch, read = draw(sampling)
    policy_batch = None
    if subject.config.sac.independent_transitions and sampling.windows_per_segment > 1:
        single = Sampling(batch_size)
        policy_batch, more = draw(single)
        read += more
    noise = functools.partial(agent.world_model_noise, batch_size=batch_size)
    policy_noise = functools.partial(agent.policy_noise, batch_size=batch_size)
    z = jax.ShapeDtypeStruct((batch_size, agent.context_size), jnp.float32)
    return {
        "update_flops": count_flops(agent.update, learner, batch, key, policy_batch),
        "model_flops": count_flops(
            agent.world_model_step, learner, batch, jax.eval_shape(noise, key)
        ),
        "policy_flops": count_flops(
            agent.policy_step,
            learner,
            batch.current,
            z,
            jax.eval_shape(policy_noise, key),
        ),
        "update_bytes": 2 * num_bytes(learner) + read,
    }


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Returns the floating-point operations of a function on one device.

    XLA counts them in the program before optimisation, so they do not depend on the
    platform, and the CPU's XLA does so since those of GPUs and TPUs cannot. The
    function must hold no loop, whose body would count only once.
    """
    add_axis = lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)  # noqa: E731
    shapes = jax.tree.map(add_axis, args)
    mapped = jax.vmap(function, axis_name=parallel.DEVICES)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        cost = jax.jit(mapped).lower(*shapes).cost_analysis()
    assert cost is not None
    return float(cost["flops"])


def shares(row: Row) -> Row:
    """Returns which share of the machine's limits the updates of a row reach."""
    product = row["limit_matmul_flops_per_second"]
    copy = row["limit_copy_bytes_per_second"]
    rate = row["updates_per_second"]
    return {
        "update_share_of_arithmetic": row["update_flops"] * rate / product,
        "update_share_of_bandwidth": row["update_bytes"] * rate / copy,
        "model_share_of_arithmetic": row["model_flops"]
        * row["model_steps_per_second"]
        / product,
        "policy_share_of_arithmetic": row["policy_flops"]
        * row["policy_steps_per_second"]
        / product,
    }
