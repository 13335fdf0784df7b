"""Whole runs of the model's training: our phase, fed with the recorded draws.

The recorded windows contain the original's rows of zeros before each episode, which are
normalised like data. Ours would be zero in normalised units (test_reference_replay.py);
so that the rest can be compared, the recorded buffer is given to our phase as one
uninterrupted episode. Its loop runs step by step, without compiling; its parts are
compiled.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.core as jax_core
import jax.numpy as jnp
import numpy as np
import pytest
from agents import (
    exported,
    first_loss_weights,
    normalized_by,
    of,
    on_one_device,
    transitions,
)
from closeness import FORWARD, assert_close
from recordings import cases

from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.phases import Sampling, world_model
from cemrl_jax.agents.cemrl.phases.world_model import (
    WorldModelPhase,
    WorldModelTraining,
    after_validation,
)
from cemrl_jax.data import packing, replay
from cemrl_jax.data.types import WorkerState

FOLLOWABLE_RATE = 1e-2
all_runs = cases("recon_trace")
every_run = pytest.mark.parametrize("case", all_runs, ids=str)
every_followable_run = pytest.mark.parametrize(
    "case", [case for case in all_runs if case.meta["lr"] < FOLLOWABLE_RATE], ids=str
)


# ---------------------------------------------------------------- decisions


@functools.cache
def decided(case):
    """Returns the phase before and after each recorded validation."""
    agent, learner = of(case)
    state = WorldModelTraining(
        learner=learner.replace(loss_weights=first_loss_weights(agent)),
        key=jax.random.key(0),
        step=jnp.int32(0),
        best_params=learner.world_model.params,
        best_error=jnp.float32(jnp.inf),
        best_step=jnp.int32(0),
        stop=jnp.bool_(False),
        metrics={},
    )
    states = [state]
    patience = case.meta["early_stopping_threshold"]
    errors = case["validate_returned"]
    for number, step in enumerate(case["early_stop_epoch_arg"]):
        state = after_validation(
            state.replace(step=jnp.int32(step + 1)),
            agent,
            jnp.asarray(errors[2 * number], jnp.float32),
            jnp.asarray(errors[2 * number + 1], jnp.float32),
            patience,
        )
        states.append(state)
    return states


@every_run
def test_loss_weights_follow_the_recorded_errors(case):
    interval = case.meta["eval_interval"]
    weights = [state.learner.loss_weights for state in decided(case)]
    for step, recorded in enumerate(case["step_loss_weights"]):
        in_force = weights[-(-step // interval)]
        assert_close(in_force, recorded, FORWARD, f"step {step}")
    assert_close(weights[-1], case["final_loss_weights"], FORWARD, "last")


@every_run
def test_early_stopping_decides_as_recorded(case):
    stops = [bool(state.stop) for state in decided(case)[1:]]
    assert stops == [bool(result) for result in case["early_stop_result"]]


@every_run
def test_best_validation_is_the_recorded_one(case):
    last = decided(case)[-1]
    assert_close(last.best_error, case["lowest_loss"], FORWARD)
    assert int(last.best_step) == int(case["lowest_loss_epoch"])


# ---------------------------------------------------------------- whole runs


@dataclasses.dataclass
class Script:
    """Hands out recorded draws and notes what the phase does with them."""

    case: Any
    draws: list
    eps: list
    losses: list = dataclasses.field(default_factory=list)
    weights: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)
    programs: dict = dataclasses.field(default_factory=dict)
    last: Any = None

    def draw(self, memory, key, batch_size, split, fold):
        del memory, fold
        if isinstance(key, jax_core.Tracer):  # only asks for shapes
            points = jnp.zeros(batch_size, jnp.int32)
        else:
            recorded = self.draws.pop(0)
            known = self.case[
                {"train": "split_train", "validation": "split_val"}[split]
            ]
            assert np.isin(recorded, known).all(), f"not of the {split} split"
            points = jnp.asarray(recorded)
        return jnp.zeros_like(points), points

    def noise(self, agent, key, batch_size):
        if isinstance(key, jax_core.Tracer):
            shape = (batch_size, agent.num_classes, agent.latent_size)
            return jnp.zeros(shape)
        return jnp.moveaxis(jnp.asarray(self.eps.pop(0)), 0, 1)

    def world_model_step(self, original, agent, learner, batch, noise):
        if isinstance(noise, jax_core.Tracer):
            return original(agent, learner, batch, noise)
        step = functools.partial(original, agent)
        after, metrics, z = self.compiled("step", step)(learner, batch, noise)
        self.losses.append(metrics["elbo/loss"])
        self.weights.append(learner.loss_weights)
        self.last = after
        return after, metrics, z

    def prediction_errors(self, original, params, model, batch, state_difference):
        errors = lambda params, batch: original(  # noqa: E731
            params, model, batch, state_difference
        )
        return self.compiled("errors", errors)(params, batch)

    def compiled(self, name, function):
        """Returns a part of the phase that may be compiled on its own."""
        if name not in self.programs:
            self.programs[name] = jax.jit(
                lambda *arguments: on_one_device(function, *arguments)
            )

        def call(*arguments):
            with jax.disable_jit(False):
                return self.programs[name](*arguments)

        return call

    def after_validation(self, original, state, agent, validation, training, patience):
        self.errors += [validation, training]
        return original(state, agent, validation, training, patience)


def make_script(case):
    """Merges the recorded draws; of the last two, for the log, we only validate."""
    drawn = {0: iter(case["step_points"]), 1: iter(case["validate_points"])}
    order = [int(kind) for kind in case["call_order"]]
    draws = [next(drawn[kind]) for kind in order]
    return Script(case, draws[:-2] + draws[-1:], list(case["eps"]))


def run_phase(case, script):
    """Runs our phase over the recorded buffer."""
    agent, learner = of(case)
    learner = normalized_by(case, learner)
    weights = first_loss_weights(agent)
    rows = jax.tree.map(lambda leaf: leaf[None], transitions(case.at("buf_")))
    memory = replay.full(jax.tree.map(lambda leaf: leaf[None], rows))
    meta = case.meta
    phase = WorldModelPhase(
        agent,
        Sampling(meta["batch_size"], fold=5),
        max_steps=meta["n_epochs_requested"],
        interval=meta["eval_interval"],
        patience=meta["early_stopping_threshold"],
    )
    worker = WorkerState(replay=memory, key=jax.random.key(0), tasks=rows.task)
    with jax.disable_jit():
        return on_one_device(phase, learner.replace(loss_weights=weights), worker)


def windows_with_zeros(data, place, window):
    """Windows in which a row of zeros before an episode leads to zeros, as recorded.

    In ours each step of an episode leads to the next one.
    """
    env, index = place
    rows = (index[:, None] - jnp.arange(window, -1, -1)) % data.length
    return packing.read(data, env, rows, window + 1)


@functools.cache
def followed(case):
    """Returns the script of a run, with its notes, and what our phase returned."""
    script = make_script(case)
    watched = {
        (Agent, "world_model_step"): script.world_model_step,
        (world_model, "after_validation"): script.after_validation,
        (losses, "mean_prediction_errors"): script.prediction_errors,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "draw", script.draw)
        patch.setattr(replay, "windows", windows_with_zeros)
        patch.setattr(
            Agent, "world_model_noise", lambda *arguments: script.noise(*arguments)
        )
        for (owner, name), watch in watched.items():
            original = getattr(owner, name)
            patch.setattr(
                owner,
                name,
                lambda *arguments, watch=watch, original=original: watch(
                    original, *arguments
                ),
            )
        learner, _, metrics = run_phase(case, script)
    return script, learner, metrics


def model_arrays(case, learner):
    return exported(of(case)[0], learner.world_model.params)


def assert_weights_close(ours, recorded, start):
    """Compares weights, relative to how far the run moved each array."""
    for name, ours_now in ours.items():
        moved = np.linalg.norm(recorded[name] - start[name])
        error = np.linalg.norm(ours_now - recorded[name])
        assert error <= 1e-3 * moved + 1e-6, f"{name}: {error:.1e} of {moved:.1e}"


@every_followable_run
def test_phase_takes_the_recorded_batches_in_the_recorded_order(case):
    script, _, metrics = followed(case)
    assert not script.draws
    assert not script.eps
    assert int(metrics["elbo/steps"]) == case.meta["n_steps_run"]


@every_followable_run
def test_loss_of_every_step_agrees(case):
    script, _, _ = followed(case)
    assert_close(script.losses, case["step_returned_loss"], FORWARD)


@every_followable_run
def test_loss_weights_of_every_step_agree(case):
    script, learner, _ = followed(case)
    assert_close(script.weights, case["step_loss_weights"], FORWARD)
    assert_close(learner.loss_weights, case["final_loss_weights"], FORWARD, "last")


@every_followable_run
def test_every_validation_agrees(case):
    script, _, metrics = followed(case)
    assert_close(script.errors, case["validate_returned"][:-2], FORWARD)
    names = ("elbo/validation_state_error", "elbo/validation_reward_error")
    final = [metrics[name] for name in names]
    assert_close(final, case["validate_returned"][-1], FORWARD, "with the best weights")


@every_followable_run
def test_weights_of_the_last_step_agree(case):
    script, _, _ = followed(case)
    start = case.under("params/")
    last = case.under("params_before_reload/")
    assert_weights_close(model_arrays(case, script.last), last, start)


@every_followable_run
def test_phase_returns_the_best_weights(case):
    """The original does not restore the prior; ours restores it too, on purpose."""
    _, learner, metrics = followed(case)
    assert int(metrics["elbo/best_step"]) == int(case["lowest_loss_epoch"])
    ours = model_arrays(case, learner)
    ours = {k: v for k, v in ours.items() if not k.startswith("prior_pz/")}
    assert_weights_close(ours, case.under("params_final/"), case.under("params/"))
