"""Environments: our formulas at the recorded states, and when tasks change.

Recorded physics come from model files without our edit of the contact margins, so each
row gives the state before and after a step, and our robots only say what they observe,
earn and whether they fell. In 64 bits: a velocity is a small difference of positions.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import run
from closeness import FORWARD, assert_close
from recordings import cases

from cemrl_jax.envs import ROBOTS
from cemrl_jax.envs.base import Task
from cemrl_jax.envs.engines import PhysicsState
from cemrl_jax.envs.robots.locomotion import kind_of, reward
from cemrl_jax.envs.tasks.multi_task import VARIANTS

ROBOT_OF = {
    "cheetah": ("half_cheetah", {}),
    "ant_vel": ("ant", {"torso_last": True}),
    "ant_dir": ("ant", {}),
    "hopper": ("hopper", {}),
    "walker": ("walker2d", {}),
    "humanoid": ("humanoid", {}),
}
"""How the name of a case begins -> our robot and its settings."""
REWARD_OF = {"humanoid_dir": "planar_angle", "_vel": "velocity", "_dir": "direction"}
"""What the name of a case holds -> the reward of its tasks."""
MUCH_LAG = 0.01  # m
CLIPPED = ("hopper", "walker")
MAX_OBSERVED = 10.0

all_cases = cases("envs")


def lag(case):
    """Returns by how much the torso position is older than the state `[N]`, m."""
    change = case["torso_xpos_after"] - case["torso_xpos_after_forward"]
    return np.linalg.norm(change, axis=-1)


every_case = pytest.mark.parametrize("case", all_cases, ids=str)


def robot_of(case, **settings):
    for start, (name, fixed) in ROBOT_OF.items():
        if case.name.startswith(start) and name in ROBOTS:
            robot = ROBOTS[name](can_fall=True, **fixed, **settings)
            if "alive_bonus" in case:
                robot.alive_bonus = float(np.unique(case["alive_bonus"]).item())
            return robot
    pytest.fail(f"no robot for case {case}")


def tasks(case):
    """Returns the tasks in force `[N]`."""
    spec, base = case["spec"], case["base_task"]
    kinds = [kind for part, kind in REWARD_OF.items() if part in case.name]
    if kinds:
        kind = np.full(spec.shape, kind_of(kinds[0]))
    else:  # multi-task: base tasks are numbered from 1
        kind = np.array([kind_of(name) for name in VARIANTS])[base - 1]
    arrays: Any = {"kind": kind, "base": base, "spec": spec, "number": base}
    return Task(**arrays, overrides={})


def state(case, robot, when):
    """Returns the recorded states `[N]` before or after the steps."""
    readings = {}
    for name in robot.simulator.readings:
        readings[name] = np.zeros((len(case["spec"]), robot.simulator.model.nbody, 3))
        if name == "xpos":
            torso = robot.simulator.body("torso")
            readings[name][:, torso] = case[f"torso_xpos_{when}"]
        elif name == "subtree_com":
            readings[name][:, 0, :2] = case[f"com_xy_{when}"]
        else:  # of the time after the step only; nothing looks at them before
            readings[name] = case[f"{name}_after"]
    return PhysicsState(
        qpos=case[f"qpos_{when}"],
        qvel=case[f"qvel_{when}"],
        warmstart=np.zeros_like(case["qvel_before"]),
        readings=readings,
    )


def look(case, robot):
    """Returns observation, reward and fall of every step."""

    def one(before, after, action, task):
        motion = robot.motion(before, after, action)
        return robot.observe(after), reward(task, motion), robot.terminated(after)

    with jax.enable_x64(True):
        before, after = (state(case, robot, when) for when in ("before", "after"))
        return run(jax.vmap(one), before, after, case["action"], tasks(case))


@functools.cache
def looked(case):
    return look(case, robot_of(case))


def expected_reward(case, name="reward"):
    """Returns the recorded reward, but for goals the one that we changed on purpose.

    The original's is x - goal; ours is minus the distance.
    """
    forward = case["terms"][:, 0]
    is_goal = tasks(case).kind == kind_of("goal")
    return case[name] + np.where(is_goal, -np.abs(forward) - forward, 0)


@every_case
def test_controls_agree(case):
    with jax.enable_x64(True):
        control = run(jax.vmap(robot_of(case).simulator.control), case["action"])
    assert_close(control, case["action_scaled"], FORWARD)


@every_case
def test_observations_agree(case):
    assert_close(looked(case)[0], case["obs"], FORWARD)


@pytest.mark.parametrize(
    "case", [case for case in all_cases if case.name.startswith(CLIPPED)], ids=str
)
def test_fast_joints_are_observed_clipped(case):
    """Not every recorded robot is that fast: ten times the recorded velocities."""
    robot, fast = robot_of(case), 10 * case["qvel_after"]
    expected = case["obs"].copy()
    expected[:, -fast.shape[1] :] = np.clip(fast, -MAX_OBSERVED, MAX_OBSERVED)
    assert (np.abs(fast) > MAX_OBSERVED).any()
    with jax.enable_x64(True):
        after = state(case, robot, "after").replace(qvel=fast)
        obs = run(jax.vmap(robot.observe), after)
    assert_close(obs, expected, FORWARD)


@every_case
def test_rewards_agree(case):
    assert_close(looked(case)[1], expected_reward(case), FORWARD)


@every_case
def test_falls_agree(case):
    assert np.array_equal(looked(case)[2], case["done"].astype(bool))


@every_case
def test_rewards_without_contact_forces_agree(case):
    if "reward_without_contact_forces" not in case:
        pytest.skip("the robot does not pay for contact forces")
    robot = robot_of(case, contact_forces=False)
    expected = expected_reward(case, "reward_without_contact_forces")
    assert_close(look(case, robot)[1], expected, FORWARD)


@every_case
def test_robot_that_cannot_fall_never_terminates(case):
    robot = robot_of(case)
    robot.can_fall = False
    assert case["done"].any()
    assert not np.any(look(case, robot)[2])


def flying(case):
    """Which steps lag much and touch nothing, so that the margins do not matter."""
    touches = case["ncon_before"] + case["ncon_after"]
    return (lag(case) > MUCH_LAG) & (touches == 0)


def laggards():
    """Returns the cases of each robot that have such steps."""
    groups = {}
    for case in all_cases:
        if flying(case).any():
            start = next(start for start in ROBOT_OF if case.name.startswith(start))
            groups.setdefault(start, []).append(case)
    return groups


@pytest.mark.parametrize("group", laggards().values(), ids=lambda group: str(group[0]))
def test_torso_position_is_one_sub_step_old(group):
    robot = robot_of(group[0])

    def rows(select):
        parts = []
        for case in group:
            keep = flying(case)
            parts += [[leaf[keep] for leaf in jax.tree.leaves(select(case))]]
        leaves = [jnp.asarray(np.concatenate(x), jnp.float32) for x in zip(*parts)]
        return jax.tree.unflatten(jax.tree.structure(select(group[0])), leaves)

    before = rows(lambda case: state(case, robot, "before"))
    step = functools.partial(robot.step, overrides={})
    after = run(jax.vmap(step), before, rows(lambda case: case["action"]))
    recorded = rows(lambda case: case["torso_xpos_after"])
    error = np.linalg.norm(jax.vmap(robot.torso)(after) - recorded, axis=-1)
    assert (error < 0.1 * rows(lag)).all()
