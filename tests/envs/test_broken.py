"""One broken environment among sound ones: survived, counted, never in the replay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import on_one_device, tiny_agent

from cemrl_jax.agents.cemrl.phases import make_collect
from cemrl_jax.data import replay
from cemrl_jax.data.types import WorkerState
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.robots import HalfCheetah, Point
from cemrl_jax.envs.schedules import Stationary
from cemrl_jax.envs.tasks import Velocity
from cemrl_jax.training.state import example_transition, first

NUM_ENVS, NUM_STEPS = 6, 20


@dataclasses.dataclass
class Fragile(Point):
    """A point that breaks at some place in its state, its reward or nowhere.

    `where` is "physics" or "reward"; `limit` the velocity from which on it does.
    """

    where: str = "physics"
    limit: float = 2.0
    value: float = float("nan")

    def step(self, physics, action, overrides):
        after = super().step(physics, action, overrides)
        bad = (jnp.abs(after.velocity) > self.limit) & (self.where == "physics")
        return after.replace(x=jnp.where(bad, self.value, after.x))

    def reward(self, before, after, action, task):
        value = super().reward(before, after, action, task)
        bad = (jnp.abs(after.velocity) > self.limit) & (self.where == "reward")
        return jnp.where(bad, self.value, value)


def collected(robot: Any) -> Any:
    """The replay, statistics and metrics after a collect."""
    agent, learner = tiny_agent()
    env = NonStationaryEnv(robot, Velocity(), Stationary())
    tasks = Velocity().sample(jax.random.key(0), 4)
    example = example_transition(env, first(tasks))
    worker = WorkerState(
        replay=replay.init(example, NUM_ENVS, NUM_STEPS),
        key=jax.random.key(3),
        tasks=tasks,
    )
    step = make_collect(env, agent, NUM_ENVS, NUM_STEPS)
    return on_one_device(step)(learner, worker)


def assert_sound(learner, worker):
    for leaf in jax.tree.leaves((learner.normalizer, worker.replay.data)):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(leaf).all()


@pytest.mark.parametrize("where", ["physics", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e11])
def test_broken_steps_are_counted_and_enter_nothing(where, value):
    learner, worker, metrics = collected(Fragile(where=where, value=value))
    assert 0 < float(metrics["collect/broken"]) < NUM_ENVS
    assert_sound(learner, worker)
    data = worker.replay.data
    # every step in the replay is one that was really made: it moved as a point does
    x, velocity = data.next_obs[..., 0] * 10, data.next_obs[..., 1]
    np.testing.assert_allclose(x - data.obs[..., 0] * 10, 0.05 * velocity, atol=1e-5)
    assert np.abs(velocity).max() <= 2.0
    assert np.isfinite(metrics["collect/return"])


def test_a_run_without_broken_environments_is_as_it_was():
    learner, worker, metrics = collected(Fragile(limit=1e9))
    plain = collected(Point())
    assert float(metrics["collect/broken"]) == 0
    jax.tree.map(np.testing.assert_array_equal, worker.replay, plain[1].replay)
    jax.tree.map(np.testing.assert_array_equal, learner.normalizer, plain[0].normalizer)


@pytest.mark.parametrize(
    "robot",
    [Point(), HalfCheetah().on_engine("mujoco"), HalfCheetah().on_engine("mjx")],
    ids=["point", "mujoco", "mjx"],
)
def test_an_action_or_a_state_that_is_not_finite_is_a_fall_of_that_robot_alone(robot):
    env = NonStationaryEnv(robot, Velocity(), Stationary())
    pool = Velocity().sample(jax.random.key(0), 3)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3), pool)
    if hasattr(state.physics, "qpos"):
        qpos = state.physics.qpos.at[2, 1].set(jnp.nan)
        state = state.replace(physics=state.physics.replace(qpos=qpos))
    else:
        state = state.replace(
            physics=state.physics.replace(x=state.physics.x.at[2].set(jnp.inf))
        )
    action = jnp.zeros((3, env.action_size)).at[1, 0].set(jnp.nan)
    after = jax.jit(jax.vmap(env.step, (0, 0, None)))(state, action, pool)
    np.testing.assert_array_equal(after.broken, [False, True, True])
    np.testing.assert_array_equal(after.terminated, [False, True, True])
    assert np.isfinite(after.obs).all()
    assert np.isfinite(after.reward).all()
    assert np.isfinite(jax.tree.leaves(after.physics)[0][:2]).all()
