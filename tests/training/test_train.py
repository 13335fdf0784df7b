import csv
import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    changed,
    held,
    read_rows,
    run_training,
    tiny_agent,
    tiny_config,
    use_devices,
)

from cemrl_jax.agents import sac
from cemrl_jax.agents.cemrl import phases
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.agents.cemrl.phases import world_model
from cemrl_jax.config import ConfigError
from cemrl_jax.evaluation import cases
from cemrl_jax.runtime import parallel, programs
from cemrl_jax.training import loop
from cemrl_jax.training import run as run_lib
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.programs import compile_programs
from cemrl_jax.training.storage import BREAKDOWN_FILE, FAILED

COMPILE = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Finished:
    """A finished run, its learner at the start, and what it compiled.

    Attributes:
      initial: the learner at the start.
      run: the run.
      programs: number of programs that it made.
      compiled: number of compilations up to each row of its log.
    """

    initial: Any
    run: Any
    programs: int
    compiled: list[int]


@pytest.fixture(scope="module", params=["fused", "alternating"])
def finished(request, tmp_path_factory) -> Finished:
    """Three tiny epochs on 8 devices by each training schedule."""
    config = tiny_config(
        train__schedule=request.param,
        train__num_epochs=3,
        encoder__num_classes=2,
        checkpoint__interval=100,
    )
    directory = tmp_path_factory.mktemp(request.param) / "run"
    initial = jax.device_get(run_lib.start_run(config, directory).learner)
    made, compiled, at_row = [], [], []
    make = programs.Program.__init__

    def count(self: Any, lowered: Any, options: Any = None) -> None:
        made.append(lowered)
        make(self, lowered, options)

    def listen(event: str, *_: Any, **__: Any) -> None:
        if event == COMPILE:
            compiled.append(event)

    class Counting(loop.Progress):
        def row(self, *args: Any) -> None:
            at_row.append(len(compiled))
            super().row(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs.Program, "__init__", count)
        patch.setattr("helpers.Progress", Counting)
        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            run = run_training(config, directory)
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
    return Finished(initial, run, len(made), at_row)


# ---------------------------------------------------------------- whole runs


def test_training_changes_every_parameter(finished):
    for name in ("world_model", "actor", "critic", "temperature"):
        before = getattr(finished.initial, name).params
        moved = changed(before, getattr(finished.run.learner, name).params)
        stuck = [path for path, differs in moved.items() if not differs]
        assert not stuck, f"{name}: {stuck}"
    assert all(
        changed(
            finished.initial.target_critic, finished.run.learner.target_critic
        ).values()
    )


def test_a_run_counts_epochs_steps_and_updates(finished):
    run = finished.run
    collects = run.config.rollout.num_initial + run.config.train.num_epochs
    assert run.epoch == 3
    assert run.env_steps == collects * 16 * 20
    assert int(run.learner.num_updates) == 3 * 3


def test_a_row_is_written_for_the_start_and_for_each_epoch(finished):
    rows = read_rows(finished.run.directory)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["env_steps"] for row in rows] == ["320", "640", "960", "1280"]
    assert [row["updates"] for row in rows] == ["0", "3", "6", "9"]
    schedule = finished.run.config.env.schedule
    saved = [rows[0], rows[3]]
    for case in cases.headline(schedule):
        assert all(np.isfinite(float(row[case.metric])) for row in rows)
    for case in cases.complete(schedule):
        assert all(np.isfinite(float(row[case.metric])) for row in saved)
    accuracy = [row["inference/class_accuracy"] for row in rows]
    assert [bool(text) for text in accuracy] == [True, False, False, True]
    assert all(0 <= float(text) <= 1 for text in accuracy if text)


def test_every_number_of_a_run_is_finite(finished):
    for row in read_rows(finished.run.directory):
        assert all(np.isfinite(float(value)) for value in row.values() if value)
    for leaf in jax.tree.leaves(finished.run.learner):
        assert np.isfinite(leaf).all()


def test_the_replay_holds_what_the_config_says(finished):
    replay = finished.run.worker.replay
    assert held(replay).obs.shape == (8, 2, finished.run.config.replay_length, 2)
    np.testing.assert_array_equal(replay.size, [60] * 8)


def test_every_phase_compiles_once_and_nothing_compiles_after_the_first_epoch(
    finished,
):
    """Phases and evaluation are compiled ahead; later epochs compile nothing."""
    phases = {"fused": 2, "alternating": 3}[finished.run.config.train.schedule]
    assert finished.programs == phases + 1
    assert finished.compiled[0] >= finished.programs  # the listener hears them
    _, first, *later = finished.compiled
    assert later == [first, first]


def test_initial_collects_add_up_in_the_row_of_the_start(monkeypatch, tmp_path):
    """Their seconds and what broke or was lost; of other numbers the last counts."""
    use_devices(monkeypatch, 1)
    run, returns = programs.Program.__call__, iter([1.0, 2.0, 3.0, 4.0])

    def collect(self: Any, *arguments: Any) -> Any:
        result, seconds = run(self, *arguments)
        metrics = result[-1] if isinstance(result, tuple) else {}
        if "collect/return" not in metrics:
            return result, seconds
        known = {"collect/broken": 20.0, "collect/lost": 7.0}
        found = metrics | known | {"collect/return": next(returns)}
        return (*result[:-1], found), 2.0

    monkeypatch.setattr(programs.Program, "__call__", collect)
    config = tiny_config(rollout__num_initial=3, train__num_epochs=1)
    run_training(config, tmp_path / "run")  # 60 of 3 * 320 steps are not too many
    with (tmp_path / "run" / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"seconds/collect": 6, "collect/broken": 60, "collect/lost": 21}
    for name, value in (wanted | {"collect/return": 3}).items():
        assert float(rows[0][name]) == value, name
    assert float(rows[1]["seconds/collect"]) == 2
    assert float(rows[1]["collect/broken"]) == 20


# ---------------------------------------------------------------- early stopping


def state_of(step: int, best_error: float, best_step: int) -> Any:
    agent, learner = tiny_agent()
    best = jax.tree.map(jnp.zeros_like, learner.world_model.params)
    state = world_model.WorldModelTraining(
        learner=learner,
        key=jax.random.key(0),
        step=jnp.int32(step + 1),
        best_params=best,
        best_error=jnp.float32(best_error),
        best_step=jnp.int32(best_step),
        stop=jnp.bool_(False),
        metrics={},
    )
    return agent, state


def test_a_better_validation_is_remembered_with_its_parameters():
    agent, state = state_of(step=7, best_error=3.0, best_step=2)
    errors = jnp.array([1.0, 1.5])
    after = world_model.after_validation(state, agent, errors, jnp.ones(2), patience=9)
    assert float(after.best_error) == 2.5
    assert int(after.best_step) == 7
    assert not bool(after.stop)
    assert not any(
        changed(after.best_params, state.learner.world_model.params).values()
    )


def test_a_worse_validation_leaves_the_best_parameters():
    agent, state = state_of(step=7, best_error=2.0, best_step=2)
    errors = jnp.array([1.0, 1.5])
    after = world_model.after_validation(state, agent, errors, jnp.ones(2), patience=9)
    assert (float(after.best_error), int(after.best_step)) == (2.0, 2)
    assert not any(changed(after.best_params, state.best_params).values())


@pytest.mark.parametrize(("step", "stops"), [(12, False), (13, True)])
def test_training_stops_when_the_best_validation_is_older_than_the_patience(
    step, stops
):
    agent, state = state_of(step=step, best_error=1.0, best_step=2)
    after = world_model.after_validation(
        state, agent, jnp.ones(2), jnp.ones(2), patience=10
    )
    assert bool(after.stop) is stops


def test_a_validation_balances_the_loss_weights_by_the_training_errors():
    agent, state = state_of(step=0, best_error=1.0, best_step=0)
    after = world_model.after_validation(
        state, agent, jnp.ones(2), jnp.array([3.0, 0.5]), patience=10
    )
    np.testing.assert_allclose(after.learner.loss_weights, [0.75, 0.25], rtol=1e-6)


def world_model_phase(monkeypatch, directory, **changes: Any) -> Any:
    """Runs the model phase on one device after a collect; returns it all."""
    use_devices(monkeypatch, 1)
    config = tiny_config(train__schedule="alternating", **changes)
    run = run_lib.start_run(config, directory)
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    steps = phases.make_phases(config, env, agent, 1)
    initial = jax.device_get(run.learner)
    learner, worker, _ = parallel.spmd(steps["collect"])(run.learner, run.worker)
    learner, _, metrics = parallel.spmd(steps["world_model"])(learner, worker)
    return initial, learner, metrics


def test_the_model_phase_stops_early_and_returns_with_its_best_parameters(
    monkeypatch, tmp_path
):
    """Every validation after the first one is worse: an error is the step's number."""

    def count(optimised: Any) -> Any:
        return optax.tree_utils.tree_get(optimised.opt_state, "count")

    def errors(phase: Any, learner: Any, *_: Any) -> Any:
        del phase
        return jnp.full(2, count(learner.world_model), jnp.float32)

    monkeypatch.setattr(phases.WorldModelPhase, "_errors", errors)
    train = functools.partial(
        world_model_phase,
        monkeypatch,
        train__validation_interval=5,
        train__early_stopping_steps=20,
    )
    initial, learner, metrics = train(tmp_path / "all", train__num_world_model_steps=99)
    # A validation follows the first step and each fifth; then 5 without a better one.
    assert (metrics["elbo/best_step"], metrics["elbo/steps"]) == (0, 26)
    assert count(learner.world_model) == 26
    assert any(changed(initial.world_model.params, learner.world_model.params).values())
    # So the best are those after one step, and not those after 26.
    _, first, _ = train(tmp_path / "first", train__num_world_model_steps=1)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        learner.world_model.params,
        first.world_model.params,
    )


def test_without_early_stopping_the_model_takes_all_its_steps_and_is_not_validated(
    monkeypatch, tmp_path
):
    train = functools.partial(
        world_model_phase, monkeypatch, train__early_stopping_steps=0
    )
    initial, learner, metrics = train(tmp_path / "7", train__num_world_model_steps=7)
    count = optax.tree_utils.tree_get(learner.world_model.opt_state, "count")
    assert count == 7
    assert not any("validation" in name for name in metrics)
    assert np.isfinite(metrics["elbo/reward_error"])
    now = changed(initial, learner)
    assert any(now[name] for name in now if "world_model" in name)
    assert any(now[name] for name in now if "loss_weights" in name)
    for part in ("actor", "critic", "temperature"):
        assert not any(now[name] for name in now if name.startswith(f".{part}"))


def precisions(step: Any, run: run_lib.Run) -> set[str]:
    """Returns at which precisions a phase multiplies matrices."""
    program = parallel.spmd(step).lower(run.learner, run.worker).as_text()
    products = re.findall(r"stablehlo\.dot_general.*", program)
    assert products
    return {
        "highest" if "precision = [HIGHEST, HIGHEST]" in product else "default"
        for product in products
    }


@pytest.mark.parametrize("schedule", ["fused", "alternating"])
@pytest.mark.parametrize("precision", ["highest", "default"])
def test_updates_multiply_at_the_precision_asked_for_and_acting_at_the_highest(
    schedule, precision, tmp_path
):
    config = tiny_config(train__schedule=schedule, train__precision=precision)
    run = run_lib.start_run(config, tmp_path)
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    steps = phases.make_phases(config, env, agent, parallel.num_devices())
    assert precisions(steps.pop("collect"), run) == {"highest"}
    for step in steps.values():
        assert precisions(step, run) == {precision}


# ---------------------------------------------------------------- failures


def test_describe_says_what_will_run_and_how_large_it_is():
    config = tiny_config()
    text = run_lib.describe(config)
    assert "point-vel, seed 0" in text
    assert "2 epochs, fused, on 8 x cpu" in text
    assert re.search(r"[\d,]+ parameters", text)
    assert f"{config.replay_length * 16:,} transitions (3 collects)" in text
    assert "an epoch: 320 environment steps, 3 updates (0.00937 a step)" in text


def test_what_does_not_fit_is_refused_and_names_the_field_to_lower(monkeypatch):
    size = 100_000_000
    config = tiny_config(train__num_epochs=size, replay__capacity=size)
    monkeypatch.setattr(parallel, "memory_bytes", lambda: 2**28)
    programs = compile_programs(config, [0], [run_lib.make_pools(config)])
    with pytest.raises(ConfigError, match=rf"replay\.capacity={size} must be lower"):
        programs.check_memory(config)


@pytest.mark.usefixtures("own_programs")
def test_a_number_that_is_not_finite_ends_the_run_and_is_named(monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)

    def broken(*arguments: Any) -> Any:
        del arguments

        def train(learner: Any, worker: Any) -> Any:
            return learner, worker, {"sac/value": jnp.float32(jnp.nan)}

        return train

    monkeypatch.setattr(phases, "make_fused", broken)
    with pytest.raises(FloatingPointError, match="1: sac/value is not finite") as error:
        run_training(tiny_config(), tmp_path / "run")
    good = tmp_path / "run" / "checkpoints" / "0"
    assert f"The last good checkpoint is {good};" in str(error.value)
    assert [row["epoch"] for row in read_rows(tmp_path / "run")] == ["0", "1"]
    saved = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    with saved:
        assert saved.latest() == 0
    failed = Checkpoints(tmp_path / "run" / FAILED, read_only=True)
    with failed:
        assert failed.latest() == 1


@pytest.mark.usefixtures("own_programs")
def test_a_second_failure_takes_the_place_of_the_first(monkeypatch, tmp_path):
    """Also at an epoch that is not later."""
    use_devices(monkeypatch, 1)
    make, folder = phases.make_fused, tmp_path / "run" / FAILED

    def failing(*arguments: Any) -> Any:
        fused = make(*arguments)

        def train(learner: Any, worker: Any) -> Any:
            learner, worker, metrics = fused(learner, worker)
            return learner, worker, metrics | {"sac/value": jnp.float32(jnp.nan)}

        return train

    monkeypatch.setattr(phases, "make_fused", failing)
    with pytest.raises(FloatingPointError, match="epoch 1: sac/value"):
        run_training(tiny_config(), tmp_path / "run")
    (folder / "1").rename(folder / "2")  # as if it had failed later
    (folder / BREAKDOWN_FILE).write_text("of the first")
    with pytest.raises(FloatingPointError, match="epoch 1: sac/value"):
        run_training(tiny_config(), tmp_path / "run", resume=True)
    assert [path.name for path in folder.iterdir()] == ["1"]


@pytest.mark.usefixtures("own_programs")
def test_gradients_that_stay_bad_end_the_run_and_single_ones_do_not(
    monkeypatch, tmp_path
):
    """A loss is not a number in some updates; parameters never become so."""
    use_devices(monkeypatch, 1)
    critic_loss = sac.critic_loss

    def sometimes(params, apply, obs, z, action, target):
        loss, metrics = critic_loss(params, apply, obs, z, action, target)
        bad = obs[0, 0] > limit
        return loss * jnp.where(bad, jnp.nan, 1.0), metrics

    limit = 0.0
    monkeypatch.setattr(sac, "critic_loss", sometimes)
    config = tiny_config(train__num_updates=50, train__num_epochs=2)
    run = run_training(config, tmp_path / "some")
    rows = read_rows(tmp_path / "some")
    assert 0 < int(rows[-1]["train/skipped"]) < 100
    for leaf in jax.tree.leaves(run.learner):
        assert np.isfinite(leaf).all()
    limit = -100.0
    config.train.num_updates = 60
    with pytest.raises(FloatingPointError, match="epoch 2: 100 gradients in a row"):
        run_training(config, tmp_path / "all")
    assert [row["epoch"] for row in read_rows(tmp_path / "all")] == ["0", "1", "2"]
