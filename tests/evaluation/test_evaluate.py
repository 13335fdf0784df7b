import functools
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny_agent, with_noise

from cemrl_jax.agents.cemrl.policies import ContextPolicy
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Stationary, Timed
from cemrl_jax.envs.tasks import Dynamics, Velocity
from cemrl_jax.evaluation import cases
from cemrl_jax.evaluation.cases import CASES, EXTRAPOLATION
from cemrl_jax.evaluation.evaluate import evaluation_pools, make_evaluate

NUM_TASKS, NUM_EPISODES, NUM_STEPS = 5, 2, 12


def pool_of(first: float, num_tasks: int = NUM_TASKS) -> Task:
    pool: Any = Velocity().sample(jax.random.key(0), num_tasks)
    return pool.replace(spec=first + np.arange(num_tasks, dtype=np.float32))


POOLS = {"train": pool_of(0), "test": pool_of(10), "extrapolate": pool_of(20)}
EVERY_CASE = CASES + EXTRAPOLATION


@functools.cache
def evaluated(stationary: bool) -> Any:
    """An evaluation of a policy of noise."""
    schedule = Stationary() if stationary else Timed(min_steps=3, probability=1.0)
    env = NonStationaryEnv(Point(), Velocity(), schedule)
    agent, learner = tiny_agent()
    evaluate = jax.jit(
        make_evaluate(env, agent.policy, NUM_STEPS, NUM_EPISODES, EVERY_CASE)
    )
    return jax.device_get(evaluate(with_noise(learner), POOLS, jax.random.key(0)))


@pytest.mark.parametrize(
    ("schedule", "protocol"), [(Stationary(), "fixed"), (Timed(), "changing")]
)
def test_the_best_checkpoint_is_chosen_on_validation_tasks_as_in_training(
    schedule, protocol
):
    first, second = cases.headline(schedule)
    assert first.metric == f"validation/{protocol}_deterministic_return"
    assert second.metric == f"test/{protocol}_deterministic_return"
    assert {first, *CASES} == set(cases.complete(schedule))


def test_a_trace_has_the_physics_of_its_task():
    """Tasks of an evaluation change, and its episodes hold their numbers only."""
    tasks: Any = Dynamics(parameters=("gain",), bases=(1.5,)).bind(Point())
    env = NonStationaryEnv(Point(), tasks, Timed(min_steps=3, probability=1.0))
    pools = {
        name: tasks.sample(jax.random.key(number), NUM_TASKS)
        for number, name in enumerate(("train", "test"))
    }
    agent, learner = tiny_agent()
    evaluate = jax.jit(make_evaluate(env, agent.policy, NUM_STEPS, NUM_EPISODES))
    result = jax.device_get(evaluate(with_noise(learner), pools, jax.random.key(0)))
    for case in CASES:
        number = result.transitions[case.metric].task.number
        gain = np.asarray(pools[case.pool].overrides["gain"])[number]
        seen = result.traces[case.metric].parameters
        assert len(np.unique(seen)) >= NUM_TASKS
        np.testing.assert_array_equal(seen[..., -1], gain.reshape(number.shape))


def test_training_does_not_evaluate_extrapolation():
    assert {case.pool for case in CASES} == {"test", "train"}
    protocols = {case.protocol for case in EXTRAPOLATION}
    assert protocols == {"fixed", "changing"}


@pytest.mark.parametrize("stationary", [True, False])
def test_every_case_runs_every_task_of_its_pool(stationary):
    result = evaluated(stationary)
    assert set(result.returns) == {case.metric for case in EVERY_CASE}
    for case in EVERY_CASE:
        starts = result.transitions[case.metric].task.spec[:, 0]
        expected = np.repeat(np.asarray(POOLS[case.pool].spec), NUM_EPISODES)
        np.testing.assert_array_equal(np.sort(starts), np.sort(expected))
        assert result.returns[case.metric].shape == (NUM_TASKS * NUM_EPISODES,)


def test_fixed_tasks_stay_and_changing_ones_are_drawn_from_the_same_pool():
    result = evaluated(False)
    for case in EVERY_CASE:
        spec = result.transitions[case.metric].task.spec
        if case.protocol == "fixed":
            assert np.all(spec == spec[:, :1])
        else:
            assert np.any(spec != spec[:, :1])
            assert set(np.unique(spec)) <= set(np.asarray(POOLS[case.pool].spec))


def test_returns_are_the_sums_of_rewards():
    result = evaluated(False)
    for name, values in result.returns.items():
        expected = result.transitions[name].reward.sum(1)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert float(result.metrics[name]) == pytest.approx(values.mean(), rel=1e-5)


def test_the_steps_in_which_another_task_begins_are_known():
    result = evaluated(False)
    for case in EVERY_CASE:
        spec = result.transitions[case.metric].task.spec
        seen = result.traces[case.metric]
        np.testing.assert_array_equal(seen.changed[:, 1:], spec[:, 1:] != spec[:, :-1])
        assert not seen.changed[:, 0].any()
        assert seen.alive.all()
        assert seen.z.shape == (*spec.shape, 1)
        assert (seen.z[:, 0] == seen.z[0, 0]).all()  # nothing is known at the start
        assert len(np.unique(seen.z)) > 10


def test_without_changes_both_protocols_are_the_same_episodes():
    result = evaluated(True)
    for case in EVERY_CASE:
        fixed = case.metric.replace("changing", "fixed")
        np.testing.assert_array_equal(
            result.returns[case.metric], result.returns[fixed]
        )


def test_stochastic_actions_have_noise_and_deterministic_ones_have_none():
    """From the same observation at the start, where nothing is known of the task."""
    result = evaluated(False)
    agent, learner = tiny_agent()
    learner = with_noise(learner)
    for case in EVERY_CASE:
        data = result.transitions[case.metric]
        policy = ContextPolicy(agent, learner, deterministic=True)
        obs = data.obs[:, 0]
        window = policy.start(len(obs))
        quiet = np.asarray(policy.act(window, obs, jax.random.key(0), None))
        same = np.isclose(data.action[:, 0], quiet, atol=1e-4).all(-1)
        assert same.all() if case.mode == "deterministic" else not same.any()


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [(8, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (2, [0, 1, 0, 1, 0])],
)
def test_as_many_training_tasks_as_test_tasks_are_evaluated(num_train, expected):
    pools = evaluation_pools({"train": pool_of(0, num_train), "test": pool_of(10)})
    np.testing.assert_array_equal(pools["train"].spec, expected)
    np.testing.assert_array_equal(pools["test"].spec, 10 + np.arange(5))
