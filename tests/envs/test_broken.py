"""One broken environment among sound ones: survived, counted, never in the replay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    HAS_METAWORLD,
    FallingPoint,
    held,
    make_agent,
    on_one_device,
    random_transitions,
    tiny_config,
)

from cemrl_jax.agents.cemrl.phases import make_collect
from cemrl_jax.data import replay
from cemrl_jax.data.rollout import (
    BREAKDOWN,
    Episodes,
    sound_returns,
    without_broken,
)
from cemrl_jax.data.types import WorkerState
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.tasks import Manipulation
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
    env = NonStationaryEnv(robot, Velocity(), Stationary())
    agent = make_agent(tiny_config(), env.obs_size, env.action_size)
    learner = jax.jit(agent.init)(jax.random.key(0))
    tasks = Velocity().sample(jax.random.key(0), 4)
    example = example_transition(env, first(tasks))
    worker = WorkerState(
        replay=replay.init(example, NUM_ENVS, NUM_STEPS, NUM_STEPS, env.can_fall),
        key=jax.random.key(3),
        tasks=tasks,
    )
    step = make_collect(env, agent, NUM_ENVS, NUM_STEPS)
    return on_one_device(step)(learner, worker)


def assert_sound(learner, worker):
    for leaf in jax.tree.leaves((learner.normalizer, held(worker.replay))):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(leaf).all()


def assert_really_made(data):
    """Every step is one that a point makes, and episodes begin where they may."""
    x, velocity = data.next_obs[..., 0] * 10, data.next_obs[..., 1]
    np.testing.assert_allclose(x - data.obs[..., 0] * 10, 0.05 * velocity, atol=1e-5)
    assert np.abs(velocity).max() <= 2.0
    step = np.asarray(data.step)
    begins = step[:, 1:] == 0
    np.testing.assert_array_equal(step[:, 1:][~begins], step[:, :-1][~begins] + 1)
    goes_on = np.asarray(data.obs)[:, 1:] == np.asarray(data.next_obs)[:, :-1]
    assert goes_on.all(-1)[~begins].all()
    assert (step[:, 0] == 0).all()


@pytest.mark.parametrize("where", ["physics", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e11])
def test_broken_steps_are_counted_and_enter_nothing(where, value):
    learner, worker, metrics = collected(Fragile(where=where, value=value))
    assert 0 < float(metrics["collect/broken"]) < NUM_ENVS * NUM_STEPS / 2
    assert_sound(learner, worker)
    assert_really_made(held(worker.replay))
    assert np.isfinite(metrics["collect/return"])


def test_what_a_robot_did_before_it_broke_stays_in_the_replay():
    """Also where all break: the steps between are sound."""
    fragile = Fragile(limit=0.7)
    learner, worker, metrics = collected(fragile)
    data, plain = held(worker.replay), held(collected(Point())[1].replay)
    assert_sound(learner, worker)
    assert_really_made(data)
    too_fast = np.abs(np.asarray(plain.next_obs[..., 1])) > fragile.limit
    assert too_fast.any(1).sum() >= NUM_ENVS - 1
    assert float(metrics["collect/broken"]) >= too_fast.any(1).sum()
    for row, end in enumerate(np.where(too_fast.any(1), too_fast.argmax(1), 20)):
        np.testing.assert_allclose(data.obs[row, :end], plain.obs[row, :end], atol=1e-5)


def test_rows_that_break_at_every_step_become_copies_of_others():
    steps = random_transitions(0, 3, 4, steps=np.arange(4))
    broken = np.zeros((3, 4), bool)
    broken[0] = broken[1, 1] = True
    data = without_broken(Episodes(transitions=steps, broken=jnp.array(broken)))
    np.testing.assert_array_equal(data.reward[0], data.reward[1])
    np.testing.assert_array_equal(data.reward[1], steps.reward[1, [0, 2, 3, 0]])
    np.testing.assert_array_equal(data.reward[2], steps.reward[2])


def test_returns_are_of_the_episodes_that_did_not_break():
    steps = random_transitions(0, 3, 4)
    broken = np.zeros((3, 4), bool)
    broken[0, 2] = True
    mean = sound_returns(Episodes(transitions=steps, broken=jnp.array(broken)))
    assert float(mean) == pytest.approx(steps.reward[1:].sum(1).mean(), rel=1e-5)


def test_a_step_from_what_a_breakdown_began_with_breaks_again():
    fragile = Fragile(limit=0.7)
    _, _, metrics = collected(fragile)
    begun = {
        name.removeprefix(BREAKDOWN): value
        for name, value in metrics.items()
        if name.startswith(BREAKDOWN)
    }
    assert begun.keys() == {"x", "velocity", "action", "spec"}
    physics = fragile.reset(jax.random.key(0)).replace(
        x=begun["x"], velocity=begun["velocity"]
    )
    assert np.isfinite(jax.tree.leaves(physics)).all()
    assert np.isnan(fragile.step(physics, begun["action"], {}).x)


def test_an_engines_breakdown_holds_its_state():
    class Loud(HalfCheetah):
        def reward(self, before, after, action, task):
            value = super().reward(before, after, action, task)
            return jnp.where(after.qpos[0] > 0, jnp.nan, value)

    _, _, metrics = collected(Loud().on_engine("mujoco"))
    assert float(metrics["collect/broken"]) > 0
    shapes = {"qpos": (9,), "qvel": (9,), "warmstart": (9,), "action": (6,)}
    for name, shape in shapes.items():
        value = np.asarray(metrics[BREAKDOWN + name])
        assert value.shape == shape
        assert np.isfinite(value).all()
        assert value.any()


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


@pytest.mark.parametrize(
    ("robot", "tasks", "value"),
    [
        (HalfCheetah(), Velocity(), jnp.inf),  # clipped
        pytest.param(
            *(Sawyer(), Manipulation(("reach",)), jnp.nan),  # of fingers it is not paid
            marks=pytest.mark.skipif(not HAS_METAWORLD, reason="no metaworld"),
        ),
    ],
    ids=["cheetah", "sawyer"],
)
def test_an_action_is_broken_that_leaves_no_trace_in_the_physics(robot, tasks, value):
    env = NonStationaryEnv(robot.on_engine("mujoco"), tasks, Stationary())
    pool = env.distribution.sample(jax.random.key(0), 2)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2), pool)
    action = jnp.zeros((2, env.action_size)).at[1, -1].set(value)
    after = jax.jit(jax.vmap(env.step, (0, 0, None)))(state, action, pool)
    np.testing.assert_array_equal(after.broken, [False, True])
    np.testing.assert_array_equal(after.terminated, [False, True])
    np.testing.assert_array_equal(after.obs[1], state.obs[1])
    assert after.reward[1] == 0


@pytest.mark.parametrize(("limit", "kept"), [(0.0, 5), (1e9, NUM_STEPS)])
def test_what_the_replay_has_no_room_for_is_counted(limit, kept):
    """Six observations are kept apart for 20 steps, the last of them for the end."""
    _, worker, metrics = collected(FallingPoint(limit=limit))
    assert float(metrics["collect/lost"]) == NUM_ENVS * (NUM_STEPS - kept)
    first = held(worker.replay).obs[:, :kept]
    assert all(len(np.unique(row, axis=0)) == kept for row in first)
