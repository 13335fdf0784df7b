import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_rows, run_training, tiny_config, use_devices

import cemrl_jax
from cemrl_jax.agents.cemrl.bounds import Blind, Oracle
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.config import ConfigError
from cemrl_jax.data.rollout import rollout, with_physics
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.robots import Ant, HalfCheetah, Point
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import (
    Cripple,
    Direction,
    Dynamics,
    MultiTask,
    PlanarAngle,
    Velocity,
)

GAIN = Dynamics(parameters=("gain",), bases=(1.5,))
MASS = Dynamics(parameters=("body_mass",), bases=(1.5,))


@pytest.mark.parametrize(
    ("robot", "family", "size"),
    [
        (Point(), Velocity(), 1),
        (Point(), Direction(), 2 + 1),
        (Point(), MultiTask(), 5 + 1),
        (Point(), PlanarAngle(), 1),
        (Point(), GAIN, 1 + 1),
        (HalfCheetah(), MASS, 1 + 7),  # the world has no mass
        (Ant(), Cripple(), 5 + 1 + 8),  # an actuator's gear has one number of six
    ],
)
def test_an_oracle_is_told_what_makes_tasks_differ(robot, family, size):
    env = NonStationaryEnv(robot, family, Timed())
    oracle = Oracle.of(env)
    pool = env.distribution.sample(jax.random.key(0), 10)
    told = np.asarray(oracle.describe(pool, (10,)))
    assert oracle.size == size
    assert told.shape == (10, size)
    assert np.isfinite(told).all()
    number = {leaf.tobytes() for leaf in told}
    marks = [pool.kind, pool.base, pool.spec, *pool.overrides.values()]
    flat = np.column_stack([np.asarray(x).reshape(10, -1) for x in marks])
    assert len(number) == len(np.unique(flat, axis=0))


def test_physics_are_told_as_multipliers():
    env = NonStationaryEnv(Point(gain=0.5), GAIN, Timed())
    pool = env.distribution.sample(jax.random.key(0), 6)
    told = Oracle.of(env).describe(pool, (6,))
    np.testing.assert_allclose(told[:, 0], pool.spec)
    np.testing.assert_allclose(told[:, 1], pool.overrides["gain"][:, 0] / 0.5)


def test_a_replay_tells_the_physics_by_the_tasks_numbers():
    """What the oracle is told in training is what it was told when it acted.

    But for the steps in which the task changes, see `bounds`.
    """
    config = tiny_config(sac__context="oracle", env__task=GAIN)
    config.env.schedule = Timed(min_steps=3)
    env = config.env.make()
    agent = agent_for(config, env)
    learner = agent.init(jax.random.key(0))
    pool = env.distribution.sample(jax.random.key(1), 5)
    policy = agent.policy(learner, deterministic=True)
    tasks = jax.tree.map(lambda leaf: leaf[:4], pool)
    episodes = rollout(env, policy, tasks, pool, jax.random.key(2), 20)
    seen = episodes.transitions
    assert not seen.task.overrides
    assert len(np.unique(seen.task.number)) > 3
    told = Oracle.of(env).describe(with_physics(seen.task, pool), (4, 20))
    gain = np.asarray(told[..., 1]) * 0.5
    # obs = [x / 10, velocity]: the velocity moves by the gain towards the action's
    before, after = seen.obs[..., 1], seen.next_obs[..., 1]
    goal = 3.0 * seen.action[..., 0]
    np.testing.assert_allclose(after, before + gain * (goal - before), atol=1e-5)


def test_a_blind_policy_acts_alike_on_all_tasks():
    config = tiny_config(sac__context="blind")
    env = config.env.make()
    agent = agent_for(config, env)
    policy = agent.policy(agent.init(jax.random.key(0)), deterministic=True)
    assert isinstance(agent.bound, Blind)
    assert not policy.sees_task
    memory = policy.start(3)
    np.testing.assert_array_equal(policy.believe(memory, None).z, jnp.zeros((3, 1)))
    action = policy.act(memory, jnp.ones((3, 2)), jax.random.key(1), None)
    assert (action == action[0]).all()


@pytest.mark.parametrize(
    ("context", "schedule"), [("oracle", "fused"), ("blind", "alternating")]
)
def test_a_bound_trains_the_policy_and_no_world_model(
    context, schedule, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 2)
    config = tiny_config(sac__context=context, train__schedule=schedule)
    config.env.task, config.env.schedule = GAIN, Timed(min_steps=5)
    run = run_training(config, tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert float(rows[-1]["updates"]) == config.train.num_epochs * 3
    assert not any(name.startswith("elbo/") for name in rows[-1])
    assert run.learner.world_model.opt_state[0].count == 0
    assert run.learner.actor.skipped.tolist() == [0, 0]
    assert run.learner.actor.opt_state[0].count == config.train.num_epochs * 3
    if context == "oracle":
        with pytest.raises(ConfigError, match=r"sac\.context='oracle' needs the true"):
            cemrl_jax.load(tmp_path / "run")
    else:
        assert cemrl_jax.load(tmp_path / "run").act(np.zeros(2)).shape == (1,)
