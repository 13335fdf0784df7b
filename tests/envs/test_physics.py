"""Both engines with our settings against `mj_step` with the same model."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import copy
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import ROOT
from worlds import NUM_ENVS, on_each_engine, world

from cemrl_jax.envs.engines import PhysicsState

BOUNDS = {  # largest error of qpos after one control step, m and rad: p50, p95, p99
    "half_cheetah": (5e-7, 3e-6, 2e-5),
    "hopper": (5e-7, 2e-6, 5e-6),
    "walker2d": (1e-6, 3e-6, 5e-5),
    # What remains of the ant is the direction of the friction pyramid on contacts of
    # a capsule with the plane: MJX chooses another one than C. No defect.
    "ant": (5e-5, 1e-2, 3e-2),
    # Measured over 200 steps, with 6/8 iterations: 6.5e-7, 6.0e-6, 4.6e-4 (max 2.4e-3);
    # with 4/4: 8.6e-7, 1.8e-4, 1.0e-3 (max 4.7e-3).
    "humanoid": (3e-6, 5e-5, 5e-3),
}
C_BOUNDS = (5e-7, 1e-6, 5e-6)
"""Of the C engine: its states are float32 between control steps, nothing else."""
NUM_STEPS = {"humanoid": 80}


def record(robot, num_steps):
    """Episodes of C MuJoCo, half with random and half with held actions."""
    simulator = robot.simulator
    model = copy.copy(simulator.model)
    model.opt.iterations, model.opt.ls_iterations = 100, 50
    low, high = model.actuator_ctrlrange.T
    random = np.random.default_rng(0)
    rows = []
    for episode in range(8):
        data = mujoco.MjData(model)
        data.qpos += random.uniform(-0.005, 0.005, model.nq)
        for step in range(num_steps):
            if episode % 2 == 0 or step % 20 == 0:
                action = random.uniform(-1, 1, model.nu)
            before = (data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy())
            data.ctrl[:] = low + (action + 1) / 2 * (high - low)
            for _ in range(simulator.substeps):
                mujoco.mj_step(model, data)
            after = (data.qpos.copy(), data.qvel.copy(), data.xpos.copy())
            rows.append((*before, action, *after))
    return [np.array(column, np.float32) for column in zip(*rows)]


@pytest.mark.parametrize(("name", "engine"), on_each_engine(BOUNDS))
def test_a_control_step_is_that_of_c_mujoco(name, engine):
    case = world(name, engine)
    columns = record(case.env.robot, NUM_STEPS.get(name, 200))
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    start = case.reset(keys, case.nominal_tasks)
    errors, position_errors = [], []
    for first in range(0, len(columns[0]) - NUM_ENVS + 1, NUM_ENVS):
        rows = [jnp.asarray(column[first : first + NUM_ENVS]) for column in columns]
        qpos, qvel, warmstart, action, qpos_after, _, xpos_after = rows
        physics = PhysicsState(qpos, qvel, warmstart, start.physics.readings)
        state = case.step(start.replace(physics=physics), action, case.pool)
        errors.append(np.abs(state.physics.qpos - qpos_after).max(1))
        positions = state.physics.readings["xpos"] - xpos_after
        position_errors.append(np.abs(positions).max((1, 2)))
    measured = np.percentile(np.concatenate(errors), [50, 95, 99])
    bounds = BOUNDS[name] if engine == "mjx" else C_BOUNDS
    assert (measured < bounds).all(), measured
    # Readings are as old as in C: a whole sub-step older would be 1e-2 off.
    assert np.median(np.concatenate(position_errors)) < 10 * bounds[0]


def test_margins_are_half_of_the_files():
    model = world("ant").env.robot.simulator.model
    assert model.geom_margin.max() == pytest.approx(0.005)


@pytest.mark.parametrize("engine", ["mjx", "mujoco"])
def test_a_joint_without_gear_feels_no_torque(engine):
    case = world("half_cheetah_cripple", engine)
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    state = case.reset(keys, case.tasks)
    push = case.step(state, jnp.ones((NUM_ENVS, 6)), case.pool)
    action = jnp.ones((NUM_ENVS, 6)).at[:, 2].set(-1.0)
    other = case.step(state, action, case.pool)
    same = jnp.abs(push.physics.qpos - other.physics.qpos).max(1) == 0
    np.testing.assert_array_equal(same, case.tasks.base == 3)


@pytest.mark.parametrize(
    "field", ["body_mass", "body_inertia", "dof_damping", "geom_friction"]
)
@pytest.mark.parametrize("engine", ["mjx", "mujoco"])
def test_each_parameter_of_dynamics_tasks_changes_the_motion(field, engine):
    case = world("half_cheetah", engine)
    nominal = case.nominal_tasks
    value = nominal.overrides[field].at[::2].multiply(1.2)
    changed = nominal.replace(overrides={**nominal.overrides, field: value})
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    ends = []
    for tasks in (nominal, changed):
        state = case.reset(keys, tasks).replace(task=tasks)
        for number in range(10):
            actions = case.actions(jax.random.key(number))
            state = case.step(state.replace(task=tasks), actions, case.pool)
        ends.append(state.physics.qpos)
    moved = jnp.abs(ends[0] - ends[1]).max(1) > 1e-5
    assert not moved[1::2].any()
    assert moved[::2].mean() > 0.9


@pytest.mark.parametrize(
    "engine", [pytest.param("mjx", marks=pytest.mark.slow), "mujoco"]
)
def test_compiled_steps_read_contact_forces_where_the_robot_asks_for_them(engine):
    case = world("ant", engine)
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    state = case.reset(keys, case.tasks)
    for number in range(12):  # falls to the ground
        state = case.step(state, case.actions(jax.random.key(number)), case.pool)
    forces = state.physics.readings["cfrc_ext"]
    assert forces.shape == (NUM_ENVS, case.env.robot.simulator.model.nbody, 6)
    touching = jnp.abs(forces).max((1, 2)) > 1
    assert touching.any()
    assert not touching.all()


@pytest.mark.parametrize("name", ["half_cheetah", "ant"])
def test_physics_multiplies_at_the_highest_precision(name):
    case = world(name)
    robot, key = case.env.robot, jax.random.key(0)
    start = jax.jit(robot.reset).lower(key)
    action = jnp.zeros(robot.action_size)
    step = jax.jit(robot.step).lower(jax.eval_shape(robot.reset, key), action, {})
    pattern = r"stablehlo\.dot_general.*"
    assert re.findall(pattern, step.as_text())
    for line in re.findall(pattern, start.as_text() + step.as_text()):
        assert "precision = [HIGHEST, HIGHEST]" in line


@pytest.mark.parametrize("name", ["half_cheetah", "ant"])
def test_a_step_has_no_loop_of_unknown_length_and_no_library_for_small_matrices(name):
    robot = world(name).env.robot
    state = jax.eval_shape(robot.reset, jax.random.key(0))
    action = jnp.zeros(robot.action_size)
    program = str(jax.make_jaxpr(robot.step)(state, action, {}))
    assert " scan[" in program  # the sub-steps
    for name in ("while", "cond", "cholesky", "triangular_solve"):
        assert f" {name}[" not in program, name


THOUSAND_CHEETAHS = """
import os
import jax
import jax.numpy as jnp
from cemrl_jax.envs.robots import HalfCheetah

if hasattr(os, "sched_setaffinity"):  # Linux
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
robot, keys = HalfCheetah().on_engine("mjx"), jax.random.split(jax.random.key(0), 1024)
step = jax.vmap(lambda state: robot.step(state, jnp.ones(6), {}))
run = jax.jit(lambda state: jax.lax.fori_loop(0, 20, lambda _, x: step(x), state))
print(jnp.isfinite(run(jax.jit(jax.vmap(robot.reset))(keys)).qpos).all())
"""


@pytest.mark.slow
def test_a_thousand_half_cheetahs_do_not_wait_for_each_other_on_two_cores():
    done = subprocess.run(
        [sys.executable, "-c", THOUSAND_CHEETAHS],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,  # takes half a minute
    )
    assert done.stdout.strip() == "True"
