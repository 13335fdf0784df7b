import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FallingPoint, random_transitions, tiny_agent, with_noise

from cemrl_jax.agents.base import Belief
from cemrl_jax.agents.cemrl.encoders import MERGES
from cemrl_jax.agents.cemrl.losses import infer_task
from cemrl_jax.data import normalizer, replay
from cemrl_jax.data.rollout import deal_tasks, returns, rollout
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.schedules import Stationary, Timed
from cemrl_jax.envs.tasks import Velocity

NUM_ENVS, NUM_STEPS = 6, 24
EARLY = 1e6  # a limit that no point reaches


@dataclasses.dataclass(frozen=True)
class Counting:
    """Pushes forward, a little harder with every transition that it has seen."""

    def start(self, num_envs: int) -> Any:
        return jnp.zeros(num_envs)

    sees_task = False

    def act(self, window: Any, obs: Any, key: Any, task: Any) -> Any:
        del obs, key
        assert task is None
        return (0.5 + 0.01 * window)[:, None]

    def observe(self, window: Any, transition: Any) -> Any:
        assert transition.task is None
        return window + 1

    def believe(self, window: Any, task: Any) -> Belief:
        del task
        z, one = window[:, None], jnp.ones((*window.shape, 1))
        zeros = jnp.zeros(window.shape, jnp.int32)
        return Belief(z=z, z_std=jnp.zeros_like(z), probs=one, inferred=zeros)

    def restart(self, window: Any, fresh: Any, restarted: Any) -> Any:
        return jnp.where(restarted, fresh, window)


def pool_of(*specs: float) -> Task:
    pool = Velocity().sample(jax.random.key(0), len(specs))
    return pool.replace(spec=jnp.array(specs, jnp.float32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(limit: float, min_steps: int | None, tasks, pool, frozen):
    schedule = Stationary() if min_steps is None else Timed(min_steps, 1.0)
    env = NonStationaryEnv(FallingPoint(limit=limit), Velocity(), schedule)
    key = jax.random.key(1)
    return rollout(env, Counting(), tasks, pool, key, NUM_STEPS, frozen).transitions


def run(
    limit: float, min_steps: int | None, tasks=None, pool=None, frozen: Any = False
):
    """Transitions `[E, L]` of the counting policy, on the host."""
    tasks = pool_of(0, 1, 2, 3, 4, 5)
    pool = pool_of(7.0) if pool is None else pool
    return jax.device_get(_run(limit, min_steps, tasks, pool, jnp.asarray(frozen)))


@dataclasses.dataclass(frozen=True)
class Told:
    """Is told the task, and pushes as it asks; counts episodes over falls."""

    @property
    def sees_task(self) -> bool:
        return True

    def start(self, num_envs: int) -> Any:
        return jnp.zeros(num_envs)

    def act(self, episodes: Any, obs: Any, key: Any, task: Any) -> Any:
        del obs, key
        return (0.1 * task.spec + 0.05 * episodes)[:, None]

    def observe(self, episodes: Any, transition: Any) -> Any:
        assert transition.task.spec.shape == episodes.shape
        return episodes

    def believe(self, memory: Any, task: Any, /) -> Belief:
        return Counting().believe(memory, task)

    def restart(self, episodes: Any, fresh: Any, restarted: Any) -> Any:
        del fresh
        return episodes + restarted


def test_a_policy_that_says_so_sees_the_task_and_may_keep_its_memory_over_falls():
    """Others get None for it, see `Counting`."""
    env = NonStationaryEnv(FallingPoint(limit=0.05), Velocity(), Timed(6, 1.0))
    tasks = pool_of(0, 1, 2, 3, 4, 5)
    roll = jax.jit(lambda: rollout(env, Told(), tasks, tasks, jax.random.key(1), 24))
    data = jax.device_get(roll().transitions)
    before = np.concatenate([np.arange(6.0)[:, None], data.task.spec[:, :-1]], 1)
    falls = np.cumsum(data.terminated, 1) - data.terminated
    assert falls.max() > 0
    assert (np.diff(data.task.spec, axis=1) != 0).any()
    np.testing.assert_allclose(data.action[..., 0], 0.1 * before + 0.05 * falls)


# ---------------------------------------------------------------- episodes


def test_each_transition_starts_where_the_one_before_ended():
    result = run(EARLY, None)
    np.testing.assert_array_equal(result.obs[:, 1:], result.next_obs[:, :-1])
    np.testing.assert_array_equal(result.step, [np.arange(NUM_STEPS)] * NUM_ENVS)
    assert not result.terminated.any()


def test_environments_start_in_different_states():
    assert len(np.unique(run(EARLY, None).obs[:, 0, 1])) == NUM_ENVS


def test_rewards_are_those_of_the_task_in_force():
    result = run(EARLY, None)
    speed = (result.next_obs - result.obs)[..., 0] * 10 / 0.05
    cost = 0.01 * result.action[..., 0] ** 2
    expected = -np.abs(speed - result.task.spec) - cost
    np.testing.assert_allclose(result.reward, expected, atol=1e-3)


# ---------------------------------------------------------------- falls


def falls_of(result) -> list[tuple[int, int]]:
    """Environment and time of each fall that is followed by a transition."""
    return [tuple(place) for place in np.argwhere(result.terminated[:, :-1] > 0)]


def test_a_fall_restarts_from_the_first_state_of_another_environment():
    result = run(0.2, None)
    falls = falls_of(result)
    assert len(falls) > 3 * NUM_ENVS
    used = set()
    for env, time in falls:
        matches = np.all(result.obs[:, 0] == result.obs[env, time + 1], axis=-1)
        (other,) = np.flatnonzero(matches)
        assert other != env
        used.add((env, other))
    assert len(used) > NUM_ENVS  # starts vary


def test_a_fall_restarts_the_step_count_and_the_memory_and_keeps_the_task():
    result = run(0.2, None)
    for env, time in falls_of(result):
        assert result.step[env, time + 1] == 0
        np.testing.assert_allclose(result.action[env, time + 1], [0.5])
        assert result.task.spec[env, time + 1] == result.task.spec[env, time]


def test_the_transition_of_a_fall_holds_the_state_that_fell():
    result = run(0.2, None)
    for env, time in falls_of(result):
        assert abs(result.next_obs[env, time, 0] * 10) > 0.2
        assert result.obs[env, time + 1, 0] == 0


def test_a_fall_starts_the_schedule_anew():
    """A task lasts 6 steps; a point that falls earlier never sees another one."""
    steps = run(0.2, None).step.max()
    assert steps < 6
    fallen, upright = run(0.2, 6), run(EARLY, 6)
    start = np.arange(NUM_ENVS)[:, None]
    assert np.all(fallen.task.spec == start)
    changed = upright.task.spec != start
    np.testing.assert_array_equal(changed, [np.arange(NUM_STEPS) >= 7] * NUM_ENVS)


# ---------------------------------------------------------------- tasks


def test_a_change_draws_from_the_pool():
    result = run(EARLY, 3, pool=pool_of(7, 8, 9))
    assert set(np.unique(result.task.spec[:, 4:])) == {7, 8, 9}


def test_frozen_environments_keep_their_task():
    frozen = np.array([True, False, True, False, False, True])
    result = run(EARLY, 3, frozen=frozen)
    constant = np.all(result.task.spec == result.task.spec[:, :1], axis=1)
    np.testing.assert_array_equal(constant, frozen)


def test_each_environment_can_have_a_pool_of_its_own():
    pool = jax.tree.map(
        lambda leaf: jnp.stack([leaf] * NUM_ENVS), pool_of(0.0, 0.5, 0.75)
    )
    pool = pool.replace(spec=pool.spec + 10 * jnp.arange(NUM_ENVS)[:, None])
    result = run(EARLY, 3, pool=pool)
    for env in range(NUM_ENVS):
        assert set(result.task.spec[env, 4:]) <= {
            10 * env + part for part in (0.0, 0.5, 0.75)
        }


@pytest.mark.parametrize(
    ("num_tasks", "num_envs"), [(3, 3), (3, 10), (10, 4), (1, 5), (100, 160)]
)
def test_deal_tasks_deals_evenly(num_tasks, num_envs):
    pool = pool_of(*range(num_tasks))
    dealt = deal_tasks(jax.random.key(0), pool, num_envs)
    counts = np.bincount(np.asarray(dealt.spec, int), minlength=num_tasks)
    assert counts.sum() == num_envs
    assert counts.max() - counts.min() <= 1


def test_deal_tasks_deals_otherwise_with_another_key():
    pool = pool_of(*range(10))
    first, second = (deal_tasks(jax.random.key(n), pool, 10).spec for n in (0, 1))
    assert not np.array_equal(first, second)


def test_returns_stop_at_the_first_fall_and_include_it():
    transitions = random_transitions(0, 3, 4).replace(
        reward=np.array([[1.0, 2, 4, 8]] * 3),
        terminated=np.array([[0.0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]),
    )
    np.testing.assert_array_equal(returns(transitions), [15, 3, 1])


# ---------------------------------------------------------------- windows


ENCODERS = [("shared_y", merge) for merge in MERGES] + [
    ("individual_y", "add"),
    ("trajectory", "add"),
]


@pytest.mark.parametrize(("kind", "merge"), ENCODERS)
def test_acting_infers_what_encoding_the_whole_window_from_scratch_infers(kind, merge):
    """At every step, also at the start of episodes and after falls.

    The policy acts on embeddings that it keeps; training encodes windows of the
    replay. Actions without noise are equal only if both see the same task.
    """
    agent, learner = tiny_agent(
        encoder__kind=kind, encoder__merge=merge, encoder__num_classes=2
    )
    learner = with_noise(learner)
    env = NonStationaryEnv(
        FallingPoint(limit=0.3, drift=0.05), Velocity(), Timed(5, 0.5)
    )
    tasks = pool_of(-2, -1, 0, 1, 2, 3)

    @jax.jit
    def act_and_encode(learner):
        statistics = normalizer.update(
            learner.normalizer, random_transitions(0, 50), None
        )
        learner = learner.replace(normalizer=statistics)
        policy = agent.policy(learner, deterministic=True)
        data = rollout(
            env, policy, tasks, tasks, jax.random.key(2), NUM_STEPS
        ).transitions
        places = jnp.divmod(jnp.arange(NUM_ENVS * NUM_STEPS), NUM_STEPS)
        rows = replay.look_back(data, places, agent.window_steps)
        batch = agent.make_batch(learner, rows)
        posterior = agent.encode(learner.world_model.params, batch.window)
        z = infer_task(posterior)
        mean, _ = agent.actor.apply(learner.actor.params, batch.current.obs, z)
        return data, jnp.tanh(mean), z

    data, action, z = act_and_encode(learner)
    assert (np.asarray(data.step)[:, 1:] == 0).any(), "nobody fell"
    assert np.std(z) > 0.005, "z tells nothing"
    expected = np.asarray(action).reshape(data.action.shape)
    np.testing.assert_allclose(data.action, expected, rtol=1e-3, atol=1e-4)
