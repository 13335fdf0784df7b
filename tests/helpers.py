"""What several tests share: a tiny run on the point robot, and how to drive it."""

import csv
import dataclasses
import importlib
import importlib.util
import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.agents.cemrl.types import Batch, LearnerState
from cemrl_jax.commands import command_line
from cemrl_jax.config import Config
from cemrl_jax.data import packing
from cemrl_jax.data.types import ReplayState, Transition
from cemrl_jax.envs.base import Task
from cemrl_jax.envs.robots.point import Point, PointState
from cemrl_jax.reporting.progress import Progress
from cemrl_jax.runtime import parallel
from cemrl_jax.training import loop
from cemrl_jax.training import resume as resume_lib
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.signals import StopRequest
from cemrl_jax.training.storage import Storage

ROOT = pathlib.Path(__file__).parent.parent
HAS_METAWORLD = importlib.util.find_spec("metaworld") is not None
PRESETS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("[a-z]*.py")
    if path.stem != "base"
    and not path.stem.startswith(command_line.BENCHMARK)
    and (HAS_METAWORLD or "base import manipulation" not in path.read_text())
)
OBS_SIZE, ACTION_SIZE = 2, 1


@dataclasses.dataclass
class FallingPoint(Point):
    """A point that falls when it leaves `[-limit, limit]`, m, and is blown away.

    `drift` is how far the wind blows it in a step, m.
    """

    limit: float = 0.1
    drift: float = 0.0

    @property
    def can_fall(self) -> bool:
        return True

    def step(self, physics: PointState, action: Any, overrides: Any) -> PointState:
        moved = super().step(physics, action, overrides)
        return moved.replace(x=moved.x + self.drift)

    def terminated(self, physics: PointState) -> jax.Array:
        return jnp.abs(physics.x) > self.limit


def preset(name: str) -> Config:
    return importlib.import_module(f"cemrl_jax.configs.{name}").get_config()


def tiny_config(**changes: Any) -> Config:
    """The debug preset, shrunk; `changes` are dotted paths with `__` for the dots."""
    config = preset("debug")
    config.tensorboard = False
    config.env.num_train_tasks = 8
    config.env.num_test_tasks = 4
    config.rollout.num_steps = 20
    config.encoder.window_steps = 3
    config.encoder.width_factor = 1.0
    config.elbo.decoder_width_factor = 1.0
    config.sac.batch_size = 16
    config.sac.hidden_size = 8
    config.sac.num_layers = 1
    config.train.num_epochs = 2
    config.train.num_updates = 3
    config.train.num_world_model_steps = 4
    config.train.validation_interval = 2
    config.elbo.loss_weight_memory = 2
    config.replay.capacity = 1_000
    config.evaluation.interval = 1
    config.checkpoint.interval = 1
    for path, value in changes.items():
        owner, *names = [config, *path.split("__")]
        for name in names[:-1]:
            owner = getattr(owner, name)
        assert hasattr(owner, names[-1]), path
        setattr(owner, names[-1], value)
    return config


def tiny_agent(**changes: Any) -> tuple[Agent, LearnerState]:
    agent = make_agent(tiny_config(**changes), OBS_SIZE, ACTION_SIZE)
    return agent, jax.jit(agent.init)(jax.random.key(0))


def random_transitions(seed: int, *shape: int, steps: Any = 0) -> Transition:
    """Transitions `[*shape]` of noise, on the host."""
    rng = np.random.default_rng(seed)
    draw: Any = lambda *more: rng.normal(size=(*shape, *more)).astype(np.float32)  # noqa: E731
    zeros: Any = np.zeros(shape, np.int32)
    still: Any = np.zeros(shape, np.float32)
    step: Any = np.broadcast_to(np.int32(steps), shape)
    action: Any = np.tanh(draw(ACTION_SIZE))
    return Transition(
        obs=draw(OBS_SIZE),
        action=action,
        reward=draw(),
        next_obs=draw(OBS_SIZE),
        terminated=still,
        step=step,
        task=Task(kind=zeros, base=zeros, spec=draw(), number=zeros, overrides={}),
    )


def connected(rows: Transition) -> Transition:
    """The same `[..., n]`, each observation followed by the next of its episode."""
    after = np.roll(np.asarray(rows.obs), -1, -2)
    step = np.asarray(rows.step)
    goes_on = np.roll(step, -1, -1) == step + 1
    after = np.where(goes_on[..., None], after, rows.next_obs)
    return rows.replace(next_obs=after)


def held(state: ReplayState) -> Transition:
    """The transitions `[..., E, L]` of a replay, as they were before it packed them."""
    data = jax.device_get(state.data)
    lead, form = data.lines.shape[:-2], data.format
    shape = *lead, data.num_chunks, data.num_envs, form.num_lines, data.lines.shape[-1]
    chunks = packing.unpack_chunks(jnp.reshape(data.lines, shape), form)
    axis = len(lead)

    def of_environments(x: jax.Array) -> np.ndarray:
        rows = np.asarray(x).swapaxes(axis, axis + 1)
        return rows.reshape(*lead, data.num_envs, data.length, *x.shape[axis + 3 :])

    return jax.tree.map(of_environments, chunks)


def with_noise(learner: LearnerState, scale: float = 0.4) -> LearnerState:
    """Model and actor with parameters of noise, so that nothing hides behind zeros."""
    rng = np.random.default_rng(0)

    def noise(leaf: jax.Array) -> jax.Array:
        return jnp.array(rng.normal(0, scale, leaf.shape), leaf.dtype)

    noisy = {
        name: getattr(learner, name).replace(
            params=jax.tree.map(noise, getattr(learner, name).params)
        )
        for name in ("world_model", "actor")
    }
    return learner.replace(**noisy)


def random_batch(agent: Agent, learner: LearnerState, seed: int, size: int) -> Batch:
    """A batch `[size]` of noise in the middle of episodes."""
    rows = random_transitions(seed, size, agent.window_steps + 1, steps=100)
    return agent.make_batch(learner, rows)


class _FewDevices:
    """Stands in for the jax module in `cemrl_jax.runtime.parallel`: fewer devices."""

    def __init__(self, num_devices: int) -> None:
        self._devices = jax.local_devices()[:num_devices]

    def __getattr__(self, name: str) -> Any:
        return getattr(jax, name)

    def local_devices(self) -> list[Any]:
        return self._devices

    devices = local_devices

    def local_device_count(self) -> int:
        return len(self._devices)

    device_count = local_device_count


def use_devices(monkeypatch: Any, num_devices: int) -> None:
    """Makes `parallel`, the only file that names devices, use a few."""
    monkeypatch.setattr(parallel, "jax", _FewDevices(num_devices))


def on_devices(num_devices: int, step: Any) -> Any:
    """Maps `step(learner, data)` over some devices: the learner shared, data `[D]`."""
    devices = jax.local_devices()[:num_devices]
    return jax.pmap(
        step,
        axis_name=parallel.DEVICES,
        in_axes=(None, 0),
        out_axes=(None, 0),
        devices=devices,
    )


def on_one_device(step: Any) -> Any:
    """Compiles `step(state, *rest)`, which averages over devices, for a single one."""
    mapped = jax.jit(jax.vmap(step, axis_name=parallel.DEVICES))

    def call(*args: Any) -> Any:
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], args)
        return jax.tree.map(lambda leaf: leaf[0], mapped(*stacked))

    return call


def run_training(
    config: Config,
    directory: pathlib.Path,
    resume: bool = False,
    stop: StopRequest | None = None,
) -> Any:
    """Trains as `scripts/train.py` does; returns the run as it ends."""
    if resume:
        run = resume_lib.resume_run(config, directory)
    else:
        run = run_lib.start_run(config, directory)
    directory.mkdir(parents=True, exist_ok=resume)
    run_lib.store_run(run)
    progress = Progress(
        directory,
        config.train.num_epochs,
        resumed_epoch=run.logged_epoch if resume else None,
        tensorboard=config.tensorboard,
    )
    with Storage(directory, config.checkpoint.keep, run.collects) as saved, progress:
        loop.train(run, progress, saved, stop)
    return run


def call_script(
    name: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> int:
    """Runs a script in this process, which goes on; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    return int(end.value.code or 0)


def read_rows(directory: pathlib.Path) -> list[dict[str, str]]:
    """The rows of `progress.csv`, without the columns that tell the time."""
    with (directory / "progress.csv").open(newline="") as file:
        return [
            {
                name: value
                for name, value in row.items()
                if not name.startswith(("seconds/", "speed/"))
            }
            for row in csv.DictReader(file)
        ]


def changed(before: Any, after: Any) -> dict[str, bool]:
    """Path of each leaf -> whether it differs."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    )
    return {
        jax.tree_util.keystr(path): not np.array_equal(old, new)
        for (path, old), new in pairs
    }
