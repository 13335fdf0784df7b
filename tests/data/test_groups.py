"""Tasks of several models in one rollout: each row is stepped by its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_agent

from cemrl_jax.commands import play
from cemrl_jax.config import ConfigError
from cemrl_jax.data import groups
from cemrl_jax.data.rollout import rollout
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.base import SELECT
from cemrl_jax.envs.groups import Groups
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Velocity
from cemrl_jax.evaluation.record import Plan, make_recorder

SPEEDS = (1.0, 2.0)
BASES = ((0, 2), (1,))
OTHER_SPEEDS, OTHER_BASES = (3.0, 4.0), ((4,), (3,))
NUM_ENVS, NUM_STEPS = 9, 6


@pytest.fixture(scope="module")
def env():
    schedule, tasks = Timed(0, 0.5), Velocity(1.0, 3.0)
    part = lambda x: NonStationaryEnv(Point(x, gain=x), tasks, schedule)  # noqa: E731
    others = tuple(part(x) for x in OTHER_SPEEDS)
    elsewhere = Groups(others[0].robot, tasks, schedule, others, OTHER_BASES)
    parts = tuple(part(x) for x in SPEEDS)
    return Groups(parts[0].robot, tasks, schedule, parts, BASES, elsewhere)


def pool_of(env):
    pool = env.distribution.sample(jax.random.key(0), 6)
    first = min(map(min, env.bases))
    return pool.replace(base=first + jnp.arange(6) % env.num_bases)


def test_each_environment_is_dealt_the_base_task_of_its_place(env):
    dealt = groups.deal(env, jax.random.key(1), pool_of(env), NUM_ENVS)
    np.testing.assert_array_equal(dealt.base, np.arange(NUM_ENVS) % 3)
    assert len(np.unique(dealt.number)) == 6  # all of the pool, some twice


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_each_row_runs_in_the_model_of_its_base_task(env, where):
    env = env.elsewhere if where == "elsewhere" else env
    agent, learner = tiny_agent()
    pool, key, num_envs = pool_of(env), jax.random.key(2), 3 * env.num_bases
    tasks = groups.deal(env, jax.random.key(1), pool, num_envs)
    act = lambda rows: agent.policy(learner, deterministic=True)  # noqa: E731
    joint = groups.run(env, act, tasks, pool, key, NUM_STEPS)
    keys = jax.random.split(key, 2)
    places = zip(env.parts, env.bases, keys, env.rows(num_envs), env.rows(6))
    for part, bases, own_key, rows, own in places:
        assert set(np.unique(pool.base[own])) == set(bases)
        alone = rollout(
            part,
            act(rows),
            jax.tree.map(lambda x, at=rows: x[at], tasks),
            jax.tree.map(lambda x, at=own: x[at], pool),
            own_key,
            NUM_STEPS,
        ).replace(breakdown=None)
        jax.tree.map(
            np.testing.assert_array_equal,
            alone,
            jax.tree.map(lambda x, at=rows: x[at], joint),
        )


def test_episodes_of_several_models_are_recorded_each_in_its_own(env):
    agent, learner = tiny_agent()
    pool, key = pool_of(env), jax.random.key(2)
    rows = np.array([4, 0, 2])  # of the second, the first and the first model
    tasks = jax.tree.map(lambda leaf: leaf[rows], pool)
    events = np.zeros((3, NUM_STEPS), np.int32)
    events[:, 3] = SELECT + np.array([1, 5, 0])
    plan = Plan(jnp.asarray(events), jnp.zeros(3, bool))
    made = make_recorder(env, agent, NUM_STEPS)(learner, tasks, pool, plan, key)
    np.testing.assert_array_equal(made.number[:, [0, 3]], [[4, 1], [0, 5], [2, 0]])
    own = jax.tree.map(lambda leaf: leaf[1::3], pool)
    first = jax.tree.map(lambda leaf: leaf[:1], (tasks, plan))
    for number, part in enumerate(env.parts):
        alone = make_recorder(part, agent, NUM_STEPS)
        events_alone = first[1].replace(events=first[1].events.clip(max=SELECT))
        x = alone(learner, first[0], own, events_alone, key).x[0]
        assert np.array_equal(x, made.x[0]) == (number == 1)
    events[0, 3] = SELECT  # a task of the other model
    with pytest.raises(ValueError, match="of another model cannot follow"):
        make_recorder(env, agent, NUM_STEPS)(
            learner, tasks, pool, plan.replace(events=jnp.asarray(events)), key
        )


def test_an_episode_is_played_in_the_model_of_its_tasks(env):
    part, pool, tasks = play.of_one_model(env, pool_of(env), [4, 1])
    assert part is env.parts[1]
    np.testing.assert_array_equal(pool.base, [1, 1])
    assert tasks == [1, 0]
    with pytest.raises(ConfigError, match=r"--tasks=4,0 must be .* one of 1, 4 only"):
        play.of_one_model(env, pool_of(env), [4, 0])


@pytest.mark.parametrize("known", [True, False])
def test_tasks_outside_the_range_are_recorded_elsewhere(env, known):
    agent, learner = tiny_agent()
    others, key = pool_of(env.elsewhere), jax.random.key(2)
    plan = Plan(jnp.zeros((2, NUM_STEPS), jnp.int32), jnp.zeros(2, bool))
    tasks = jax.tree.map(lambda leaf: leaf[:2], others)
    pool = others if known else pool_of(env)
    made = make_recorder(env, agent, NUM_STEPS)(learner, tasks, pool, plan, key)
    numbers = np.where(known, [[0], [1]], -1)
    np.testing.assert_array_equal(made.number, numbers.repeat(NUM_STEPS, 1))
    np.testing.assert_array_equal(env.model_of(tasks.base), [3, 2])
    for number in range(2):
        model = env.models[(3, 2)[number]]
        own = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], (tasks, plan))
        alone = make_recorder(model, agent, NUM_STEPS)
        x = alone(learner, own[0], own[0], own[1], key).x[0]
        np.testing.assert_array_equal(x, made.x[number])


def test_a_schedule_reaches_every_model(env):
    changed = env.with_schedule(Timed(2, 0.1))
    everywhere = (changed, changed.elsewhere, *changed.models)
    assert [x.schedule for x in everywhere] == [Timed(2, 0.1)] * 6


def test_a_task_changes_to_one_of_its_own_model_only(env):
    agent, learner = tiny_agent()
    pool = pool_of(env)
    tasks = groups.deal(env, jax.random.key(1), pool, NUM_ENVS)
    act = lambda rows: agent.policy(learner, deterministic=True)  # noqa: E731
    seen = groups.run(env, act, tasks, pool, jax.random.key(3), 30).transitions.task
    for bases, rows in zip(BASES, env.rows(NUM_ENVS)):
        assert set(np.unique(seen.base[rows])) == set(bases)
    assert (np.ptp(seen.number, 1) > 0).any()
