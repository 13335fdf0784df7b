"""Every robot, task distribution and schedule: they start, step and keep shapes."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HAS_METAWORLD
from worlds import CASES, NUM_ENVS, on_each_engine, world

from cemrl_jax import envs
from cemrl_jax.envs import ROBOTS, SCHEDULES, TASKS

SIZES = {  # observation, action, control step in s
    "ant": (30, 8, 0.05),
    "half_cheetah": (20, 6, 0.05),
    "hopper": (14, 3, 0.008),
    "humanoid": (376, 17, 0.015),
    "point": (2, 1, 0.05),
    "sawyer": (39, 4, 0.0125),
    "walker2d": (17, 6, 0.008),
}


def test_the_cases_cover_every_entry_of_the_tables():
    robots, tasks, schedules = map(set, zip(*CASES.values()))
    assert robots == set(ROBOTS)
    assert tasks == set(TASKS)
    assert schedules == set(SCHEDULES)


@pytest.mark.parametrize(
    ("folder", "table", "shared"),
    [
        ("robots", ROBOTS, {"legged", "locomotion"}),
        ("tasks", TASKS, {"pools", "binding"}),
        ("schedules", SCHEDULES, set()),
    ],
)
def test_every_file_is_in_its_table(folder, table, shared):
    root = pathlib.Path(envs.__file__).parent / folder
    files = {path.stem for path in root.glob("[a-z]*.py")} - shared
    elsewhere = {"probabilistic", "sawyer", "metaworld"}  # timed.py, folder metaworld
    assert files == set(table) - elsewhere


ROBOTS_HERE = [name for name in ROBOTS if name != "sawyer" or HAS_METAWORLD]


@pytest.mark.parametrize("name", ROBOTS_HERE)
def test_sizes_of_a_robot(name):
    env = world(name).env
    assert SIZES[name][:2] == (env.obs_size, env.action_size)
    assert env.robot.control_dt == pytest.approx(SIZES[name][2])


@pytest.mark.parametrize(("name", "engine"), on_each_engine(CASES))
def test_an_environment_starts_and_steps_with_finite_numbers(name, engine):
    case = world(name, engine)
    keys = jax.random.split(jax.random.key(2), NUM_ENVS)
    state = case.reset(keys, case.tasks)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    for number in range(4):
        state = case.step(state, case.actions(jax.random.key(number)), case.pool)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert state.obs.shape == (NUM_ENVS, case.env.obs_size)
    assert state.reward.shape == (NUM_ENVS,)
    assert jnp.isfinite(state.obs).all()
    assert jnp.isfinite(state.reward).all()
    np.testing.assert_array_equal(state.step, 4)
    assert np.unique(state.obs, axis=0).shape[0] == NUM_ENVS


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS_HERE)
def test_many_random_steps_stay_finite(name):
    case = world(name, "mujoco" if name == "sawyer" else "mjx")
    keys = jax.random.split(jax.random.key(3), NUM_ENVS)
    state = case.reset(keys, case.tasks)
    for number in range({"ant": 500, "humanoid": 200}.get(name, 1000)):
        state = case.step(state, case.actions(jax.random.key(number)), case.pool)
        if number % 100 == 99:
            assert jnp.isfinite(state.obs).all(), f"step {number}"
            assert jnp.isfinite(state.reward).all(), f"step {number}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_task_changes_under_every_schedule_on_a_cheap_robot(task, schedule):
    if task in ("cripple", "metaworld"):
        pytest.skip("a point has no joints, and no hand")
    options = {"parameters": ("gain",), "bases": (1.1,)} if task == "dynamics" else {}
    env = envs.NonStationaryEnv(
        ROBOTS["point"](), TASKS[task](**options), SCHEDULES[schedule]()
    )
    pool = env.distribution.sample(jax.random.key(0), 5)
    task_now = jax.tree.map(lambda leaf: leaf[1], pool)

    @jax.jit
    def episode(key):
        def step(state, _):
            state = env.step(state, jnp.ones(1), pool)
            return state, (state.reward, state.task.spec)

        return jax.lax.scan(step, env.reset(key, task_now), length=300)[1]

    rewards, specs = episode(jax.random.key(1))
    assert jnp.isfinite(rewards).all()
    changes = bool((specs != specs[0]).any())
    assert changes == (schedule != "stationary" and task != "dynamics")
