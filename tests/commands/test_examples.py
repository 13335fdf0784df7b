"""The README's recipes: each example runs as it stands, from outside the packages."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    ACTION_SIZE,
    OBS_SIZE,
    ROOT,
    on_one_device,
    random_transitions,
    read_rows,
    run_training,
    tiny_config,
    use_devices,
)

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.commands import command_line, play
from cemrl_jax.config import ConfigError
from cemrl_jax.data import rollout
from cemrl_jax.envs.schedules import Timed

FOLDER = ROOT / "tests" / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(autouse=True)
def tables_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(command_line, "PRESETS", FOLDER)
    before = dict(sys.modules)
    yield
    for name in [name for name in sys.modules if name in NAMES and name not in before]:
        del sys.modules[name]


def load(name):
    return command_line.load_file(FOLDER / f"{name}.py")


def test_there_is_an_example_of_each_recipe():
    assert NAMES == ["alarm", "cart", "gears", "latest"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_fewer_than_forty_lines(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 40


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_valid_preset(name):
    load(name).validate(1)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_from_outside_comes_back_from_json(name, tmp_path, monkeypatch):
    config = load(name)
    config_lib.save(config, tmp_path / "config.json")
    sys.modules.pop(name)  # as in another process
    with pytest.raises(ConfigError, match=f"'{name}:.*PYTHONPATH"):
        command_line.read_config(str(tmp_path / "config.json"), []).validate(1)
    monkeypatch.syspath_prepend(FOLDER)
    again = command_line.read_config(str(tmp_path / "config.json"), [])
    assert config_lib.to_dict(again) == config_lib.to_dict(config)
    again.validate(1)
    make_agent(again, OBS_SIZE, ACTION_SIZE)


@pytest.mark.parametrize("name", ["alarm", "cart", "gears"])
def test_an_environment_from_outside_runs_an_episode(name):
    config = load(name)
    if name == "cart":
        config.env.schedule = Timed(min_steps=15, probability=0.5)
    env = config.env.make()
    pool = env.distribution.sample(jax.random.key(0), 6)

    def step(state, _):
        state = env.step(state, jnp.ones(env.action_size), pool)
        return state, (state.obs, state.reward, state.task.spec)

    first = jax.tree.map(lambda leaf: leaf[0], pool)
    start = env.reset(jax.random.key(1), first)
    obs, reward, spec = jax.jit(lambda s: jax.lax.scan(step, s, length=100)[1])(start)
    assert np.isfinite(reward).all()
    assert obs.shape == (100, env.obs_size)
    changes = np.flatnonzero(np.diff(spec))
    assert len(changes) >= 2
    if name == "alarm":
        assert set(np.diff(changes)) <= {7, 14, 21}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_from_outside_trains(name, monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    example = load(name)
    config = tiny_config(env=example.env, train__num_epochs=1)
    config.encoder.kind = example.encoder.kind
    config.env.num_train_tasks = config.env.num_test_tasks = 4
    run_training(config, tmp_path / "run")
    assert [row["epoch"] for row in read_rows(tmp_path / "run")] == ["0", "1"]


def test_what_broke_a_robot_from_outside_is_kept_by_name_and_drawn(
    monkeypatch, tmp_path
):
    """Its state is an array alone, position and velocity."""
    config = load("cart")
    broken = lambda *_: jnp.float32(jnp.nan)  # noqa: E731
    monkeypatch.setattr(type(config.env.robot), "reward", broken)
    env = config.env.make()
    pool = env.distribution.sample(jax.random.key(0), 4)
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = jax.jit(agent.init)(jax.random.key(0))
    policy, key = agent.policy(learner, True), jax.random.key(1)
    found = rollout.rollout(env, policy, pool, pool, key, 2).breakdown
    assert found is not None
    assert found.keys() == {"x", "physics", "action", "spec"}
    np.testing.assert_array_equal(found["x"], found["physics"][:, 0])
    one: Any = {name: value[0] for name, value in found.items()}
    np.savez(tmp_path / "breakdown.npz", **one)
    assert "action" in play.draw_breakdown(env, tmp_path / "breakdown.npz")
    assert (tmp_path / "breakdown.png").is_file()


def test_an_encoder_from_outside_trains_and_infers():
    config = load("latest")
    config.sac.hidden_size, config.encoder.width_factor = 8, 1.0
    agent = make_agent(config, OBS_SIZE, ACTION_SIZE)
    learner = jax.jit(agent.init)(jax.random.key(0))

    def step(learner, rows, key):
        batch = agent.make_batch(learner, rows)
        return agent.world_model_step(learner, batch, agent.world_model_noise(key, 8))

    rows = random_transitions(0, 8, agent.window_steps + 1, steps=50)
    after, _, z = on_one_device(step)(learner, rows, jax.random.key(1))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), learner, after)
    assert any(jax.tree.leaves(changed.world_model.params))
    assert z.shape == (8, 1)
    assert jnp.isfinite(z).all()
