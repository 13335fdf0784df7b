"""Our environments under brax's wrappers and as a gymnasium vector environment."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers import HAS_METAWORLD

from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.adapters.brax import BraxEnv
from cemrl_jax.envs.adapters.gymnasium import GymnasiumEnv
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.robots import HalfCheetah, Point
from cemrl_jax.envs.schedules import Location, Stationary, Timed
from cemrl_jax.envs.tasks import Direction, Velocity

# Not at the top: brax warns when it is imported, unless our adapter comes first.
training = importlib.import_module("brax.envs.wrappers.training")


def parts(schedule, distribution=None):
    env = NonStationaryEnv(Point(), distribution or Velocity(), schedule)
    return env, env.distribution.sample(jax.random.key(0), 8)


def wrapped(schedule, num_steps):
    env = training.VmapWrapper(BraxEnv(*parts(schedule)))
    env = training.EpisodeWrapper(env, episode_length=num_steps, action_repeat=1)
    return training.AutoResetWrapper(env)


def episodes(env, num_envs, num_steps):
    def step(state, _):
        state = env.step(state, jnp.ones((num_envs, 1)))
        task = state.pipeline_state.task.spec
        return state, (state.obs, state.reward, state.done, task)

    keys = jax.random.split(jax.random.PRNGKey(1), num_envs)  # brax knows no others
    start = jax.jit(env.reset)(keys)
    run = jax.jit(lambda state: jax.lax.scan(step, state, length=num_steps)[1])
    return jax.device_get(run(start))


def test_brax_wrappers_run_episodes_and_start_them_again():
    env = wrapped(Timed(min_steps=5, probability=0.2), num_steps=30)
    assert env.observation_size == 2
    assert env.action_size == 1
    obs, reward, done, _ = episodes(env, num_envs=16, num_steps=95)
    assert obs.shape == (95, 16, 2)
    assert np.isfinite(reward).all()
    np.testing.assert_array_equal(np.flatnonzero(done[:, 0]), [29, 59, 89])
    assert (np.abs(obs[29, :, 0]) < 1e-6).all()  # back at the start
    assert (obs[28, :, 0] > 0.3).all()


def test_every_brax_episode_has_a_task_of_its_own_and_keeps_it_when_stationary():
    _, _, _, task = episodes(wrapped(Stationary(), 10), num_envs=16, num_steps=40)
    # The step that ends an episode already shows the state of the next one.
    pieces = [task[first : first + 9] for first in (0, 10, 20, 30)]
    for piece in pieces:
        assert (piece == piece[0]).all()
    firsts = np.array([piece[0] for piece in pieces])
    assert (firsts.std(0) > 0).mean() > 0.9


def test_brax_tasks_change_within_an_episode_under_a_schedule():
    env = wrapped(Timed(min_steps=5, probability=0.5), num_steps=50)
    _, _, _, task = episodes(env, num_envs=4, num_steps=49)
    assert ((np.diff(task, axis=0) != 0).sum(0) >= 3).all()


def test_brax_change_points_are_drawn_anew_in_every_episode():
    env = wrapped(Location(spacing=1.0, jitter=5.0), 10)
    step = jax.jit(env.step)
    state = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(1), 3))
    points = [state.pipeline_state.schedule]
    for _ in range(21):
        state = step(state, jnp.zeros((3, 1)))
        points.append(state.pipeline_state.schedule)
    np.testing.assert_array_equal(points[0], points[9])  # all of the first episode
    assert (points[0] != points[11]).all()
    np.testing.assert_array_equal(points[11], points[19])
    assert (points[11] != points[21]).all()


def test_the_task_of_a_brax_reset_is_that_of_the_first_episode():
    env, pool = parts(Stationary())
    adapted = BraxEnv(env, pool)
    state = jax.jit(adapted.reset)(jax.random.PRNGKey(0))
    after = jax.jit(adapted.step)(state, jnp.zeros(1))
    assert after.pipeline_state.task.number == state.pipeline_state.task.number


@pytest.mark.skipif(not HAS_METAWORLD, reason="no metaworld")
def test_a_brax_world_keeps_the_task_that_its_things_were_placed_by():
    tasks = Manipulation(("drawer-close", "drawer-open"))
    env = NonStationaryEnv(Sawyer().on_engine("mujoco"), tasks, Location())
    adapted = BraxEnv(env, env.distribution.sample(jax.random.key(0), 8))
    state = jax.jit(jax.vmap(adapted.reset))(jax.random.split(jax.random.PRNGKey(0), 4))
    first, step = state.pipeline_state, jax.jit(jax.vmap(adapted.step))
    after = step(state, jnp.zeros((4, 4)))
    again = step(after.replace(pipeline_state=first), jnp.zeros((4, 4)))
    for each in (after, again):
        number = each.pipeline_state.task.number
        np.testing.assert_array_equal(number, first.task.number)
    assert (again.pipeline_state.schedule != first.schedule).all()


@pytest.mark.parametrize("engine", ["mjx", "mujoco"])
def test_brax_is_told_which_engine_runs(engine):
    robot = HalfCheetah().on_engine(engine)
    env, pool = parts(Stationary())
    assert BraxEnv(dataclasses.replace(env, robot=robot), pool).backend == engine
    assert BraxEnv(env, pool).backend == "none"


@pytest.fixture
def vector_env():
    return GymnasiumEnv(*parts(Stationary(), Direction()), num_envs=4, num_steps=5)


def test_gymnasium_arrays_fit_the_spaces(vector_env):
    obs, info = vector_env.reset(seed=3)
    assert info == {}
    assert vector_env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert vector_env.observation_space.contains(obs)
    vector_env.action_space.seed(0)
    result = vector_env.step(vector_env.action_space.sample())
    assert vector_env.observation_space.contains(result[0])
    assert [array.shape for array in result[1:4]] == [(4,)] * 3
    assert result[2].dtype == result[3].dtype == bool


def test_gymnasium_truncates_at_the_length_and_restarts_in_the_next_step(vector_env):
    vector_env.reset(seed=3)
    rows = [vector_env.step(np.ones((4, 1))) for _ in range(12)]
    truncated = np.array([row[3] for row in rows])
    np.testing.assert_array_equal(np.flatnonzero(truncated[:, 0]), [4, 10])
    obs, reward = rows[5][:2]
    np.testing.assert_allclose(obs[:, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(reward, 0)
    assert not np.array([row[2] for row in rows]).any()


def test_a_gymnasium_seed_repeats_everything(vector_env):
    runs = []
    for seed in (3, 3, 4):
        first, _ = vector_env.reset(seed=seed)
        rows = [vector_env.step(np.ones((4, 1)))[:2] for _ in range(7)]
        runs.append([first, *(array for row in rows for array in row)])
    for once, again in zip(runs[0], runs[1]):
        np.testing.assert_array_equal(once, again)
    assert any((once != other).any() for once, other in zip(runs[0], runs[2]))


def test_a_robot_that_falls_terminates_and_is_not_truncated(vector_env, monkeypatch):
    monkeypatch.setattr(Point, "can_fall", True)
    monkeypatch.setattr(Point, "terminated", lambda self, physics: physics.x > 0.2)
    vector_env.reset(seed=3)
    rows = [vector_env.step(np.ones((4, 1))) for _ in range(5)]
    terminated = np.array([row[2] for row in rows])
    truncated = np.array([row[3] for row in rows])
    assert terminated.any(0).all()
    assert not (terminated & truncated).any()
