"""When tasks change: our environment on the recorded ways, with the recorded draws.

A robot without physics is where the recorded one was; the schedule gets the recorded
draws; and where a new task is drawn, the pool holds the recorded one alone.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import run
from closeness import FORWARD, assert_close
from recordings import cases

from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.base import ELAPSED
from cemrl_jax.envs.base import FORWARD as AHEAD
from cemrl_jax.envs.schedules import Location, Timed
from cemrl_jax.envs.tasks import Direction, Velocity
from cemrl_jax.envs.tasks.pools import reward_tasks

POINT_DRAWS = ("change_point_draw_0", "change_point_draw_1")
every_case = pytest.mark.parametrize("case", cases("envs", having="table"), ids=str)


@dataclasses.dataclass
class RecordedWay:
    """A robot that is where the recorded one was; its state is the step's number."""

    x: Any

    def reset(self, key):
        return jnp.int32(0)

    def step(self, physics, action, overrides):
        return physics + 1

    def reward(self, before, after, action, task):
        return jnp.zeros(())

    def observe(self, physics):
        return jnp.zeros(1)

    def x_position(self, physics):
        return jnp.asarray(self.x)[physics]

    def terminated(self, physics):
        return jnp.bool_(False)


@dataclasses.dataclass
class RecordedPlaces:
    """`Location` with recorded draws; the state adds the step's number."""

    inner: Location
    first: Any
    draws: Any

    def init(self, key):
        return self.inner.first_points(jnp.asarray(self.first)), jnp.int32(0)

    def update(self, key, state, x):
        points, number = state
        event, points = self.inner.advance(points, x, jnp.asarray(self.draws)[number])
        return event, (points, number + 1)


@dataclasses.dataclass
class RecordedTimes:
    """`Timed` with recorded draws.

    The original's time turns a direction as a change point ahead does, +1 into -1 only.
    Ours turns both ways, on purpose: for directions it is reported as a point ahead.
    """

    inner: Timed
    draws: Any
    one_way: bool

    def init(self, key):
        return self.inner.init(key), jnp.int32(0)

    def update(self, key, state, x):
        steps, number = state
        event, steps = self.inner.advance(steps, jnp.asarray(self.draws)[number])
        if self.one_way:
            event = jnp.where(event == ELAPSED, AHEAD, event)
        return event, (steps, number + 1)


def columns(case):
    return dict(zip(case.meta["columns"], case["table"].T))


def is_direction(case):
    return "direction" in case.name


def schedule(case):
    table, meta = columns(case), case.meta
    if meta["change_mode"] == "time":
        draws = table["time_mode_uniform_draw"]
        inner = Timed(meta["change_steps"], meta["change_prob"])
        return RecordedTimes(inner, draws, is_direction(case))
    ahead, behind = (np.nan_to_num(table[name]) for name in POINT_DRAWS)
    # In a step that passes one point, its draw is the first, whichever point it is.
    both = table["number_of_change_point_draws"] > 1
    draws = np.stack([ahead, np.where(both, behind, ahead)], -1)
    basis = meta["positive_change_point_basis"]
    assert basis == -meta["negative_change_point_basis"]
    inner = Location(basis, meta["change_point_interval"])
    return RecordedPlaces(inner, case["initial_change_point_draws"], draws)


def pools(case):
    """Returns the recorded choice of each step, a pool of one task `[N, 1]`."""
    specs = {"train": case["train_specs"], "test": case["test_specs"]}
    specs = specs.get(case.meta["meta_mode"], np.zeros(1))
    choice = np.nan_to_num(columns(case)["task_choice_0"]).astype(int)
    choice = np.where(choice < len(specs), choice, 0)
    return jax.vmap(lambda spec: reward_tasks("velocity", spec[None]))(
        jnp.asarray(specs[choice])
    )


@functools.cache
def walked(case):
    """Returns the environment before and after each step, `[N]`."""
    distribution = Direction() if is_direction(case) else Velocity()
    frozen = case.meta["meta_mode"] == "train_test" and not is_direction(case)
    with jax.enable_x64(True):
        way = RecordedWay(columns(case)["x"])
        env = NonStationaryEnv(way, distribution, schedule(case))  # pyright: ignore
        spec = jnp.asarray([case.meta["initial_task"]], jnp.float64)
        start = jax.tree.map(lambda leaf: leaf[0], reward_tasks("direction", spec))

        def step(state, pool):
            after = env.step(state, jnp.zeros(1), pool, frozen)
            after = after.replace(obs=state.obs, reward=state.reward)
            return after, (state, after)

        def walk(pools):
            return jax.lax.scan(step, env.reset(jax.random.key(0), start), pools)[1]

        return jax.device_get(run(walk, pools(case)))


@every_case
def test_task_of_every_step_agrees(case):
    (before, after), table = walked(case), columns(case)
    assert_close(before.task.spec, table["task_before"], FORWARD, "before")
    assert_close(after.task.spec, table["task_after"], FORWARD, "after")


@every_case
def test_state_of_the_schedule_agrees_at_every_step(case):
    (before, after), table = walked(case), columns(case)
    if case.meta["change_mode"] == "time":
        steps = before.schedule[0]
        assert np.array_equal(steps, table["steps_counter_before"])
        return
    for number, side in enumerate(("positive", "negative")):
        points = after.schedule[0][:, number]
        assert_close(points, table[f"{side}_change_point_after"], FORWARD, side)


@every_case
def test_direction_keeps_its_label(case):
    if not is_direction(case):
        pytest.skip("velocities have one label")
    _, after = walked(case)
    changed = after.task.spec != case.meta["initial_task"]
    label = after.task.spec < 0
    assert np.array_equal(after.task.base[changed], label[changed])
