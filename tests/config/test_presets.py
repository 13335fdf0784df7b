"""Presets of every kind run an epoch of the real loop on real physics, tiny."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PRESETS, preset, read_rows, run_training, use_devices

from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.agents.cemrl.phases import make_phases
from cemrl_jax.envs.groups import Groups
from cemrl_jax.evaluation.evaluate import Scores
from cemrl_jax.evaluation.inference import Trace
from cemrl_jax.runtime import parallel
from cemrl_jax.training import programs
from cemrl_jax.training import run as run_lib

EVALUATED = ("debug", "quickstart")
"""Presets that are evaluated too. An evaluation compiles the physics again, as the same
rollout that collects; for the others that is left out."""
FAST = (
    "fast_cheetah_continuous_learning_dir",
    "fast_cheetah_non_stationary_dir",
    "fast_walker2d_non_stationary_dynamics",
)
"""Fast presets have the other presets' environments; these differ in their phases."""


def parts(name):
    """What a preset is made of, apart from numbers."""
    config = preset(name)
    env, encoder = config.env, config.encoder
    chosen = (type(env.robot), type(env.task), type(env.schedule))
    tasks = len(getattr(env.task, "names", ()))
    train = config.train
    phases = (train.schedule, train.early_stopping_steps > 0)
    return *chosen, tasks, encoder.kind, encoder.merge, *phases


def different():
    """One preset of each kind, and of the fast ones those above."""
    names = [name for name in PRESETS if name in FAST or not name.startswith("fast_")]
    return {parts(name): name for name in sorted(names, reverse=True)}.values()


def shrunk(name):
    """A preset with its own environment, encoder and phases, but little to do.

    Where two presets then have the same program, the second finds it in the cache.
    """
    config = preset(name)
    config.tensorboard = False
    env = config.env.make()
    each = env.num_bases if isinstance(env, Groups) else 1  # a task of each model
    config.env.num_train_tasks = max(min(config.env.num_train_tasks, 4), each)
    config.env.num_test_tasks = each
    config.rollout.num_envs, config.rollout.num_steps = max(2, each), 5
    config.rollout.num_initial = min(config.rollout.num_initial, 1)
    config.replay.capacity = 2 * config.collect_steps
    config.encoder.width_factor = 1.0
    config.elbo.decoder_width_factor = 1.0
    config.elbo.windows_per_segment = min(config.elbo.windows_per_segment, 2)
    config.sac.batch_size = 4
    config.sac.hidden_size, config.sac.num_layers = 8, 1
    config.train.num_epochs, config.train.num_updates = 1, 2
    config.train.num_world_model_steps, config.train.validation_interval = 2, 1
    config.evaluation.num_episodes = 1
    config.checkpoint.replay = False
    return config


def no_evaluation(*_):
    """In place of `make_scores`: compiles in no time."""

    def nothing(learner, part):
        zeros = jnp.zeros_like(part[0].frozen, jnp.float32)
        step, number = zeros[:, None], zeros[:, None].astype(jnp.int32)
        no = number > 0
        many = step[..., None]
        traces = Trace(step, many, number, number, many, no, no)
        return Scores(zeros, traces, None)

    return nothing


@pytest.fixture(autouse=True)
def compile_in_haste():
    """Slow ones too need no optimisation here; programs are dropped after each test.

    Unoptimised programs are large: a process that keeps those of all presets has more
    pieces of memory than Linux allows one to map, and crashes.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "debug" else [pytest.mark.slow])
        for name in different()
    ],
)
def test_an_epoch_of_a_preset_is_finite(name, monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    config = shrunk(name)
    config.validate(1)
    if name not in EVALUATED:
        monkeypatch.setattr(programs, "make_scores", no_evaluation)
    run_training(config, tmp_path / "run")
    first, last = read_rows(tmp_path / "run")
    collects = 1 + config.rollout.num_initial
    assert (first["epoch"], last["epoch"]) == ("0", "1")
    steps = config.collect_steps * collects
    assert (last["updates"], last["env_steps"]) == ("2", str(steps))
    assert {"collect/return", "elbo/loss", "sac/value"} <= last.keys()
    for row in (first, last):
        assert all(np.isfinite(float(value)) for value in row.values() if value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cheetah_stationary_vel", "quickstart"])
def test_phases_are_lowered_for_accelerators_that_are_not_here(
    name, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 1)
    config = shrunk(name)
    config.env.engine = "mjx"
    env = config.env.make()
    run = run_lib.start_run(config, tmp_path)
    agent = make_agent(config, env.obs_size, env.action_size)
    for phase, step in make_phases(config, env, agent, 1).items():
        mapped = jax.vmap(step, (None, 0), axis_name=parallel.DEVICES)
        traced = jax.jit(mapped).trace(run.learner, run.worker)
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert "stablehlo.while" in text, phase
            assert "callback" not in text, phase  # nothing goes by way of the host
