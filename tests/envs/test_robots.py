"""Robots: observations, rewards and falls, evaluated at given states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import NUM_ENVS, world

from cemrl_jax.envs import ROBOTS
from cemrl_jax.envs.engines import PhysicsState
from cemrl_jax.envs.robots import Ant, HalfCheetah, Hopper, Humanoid, Walker2d

MJX = [name for name in ROBOTS if name not in ("point", "sawyer")]


def state_of(robot, changes=None, velocity=0.0):
    """The model's initial pose with some entries of qpos changed, at rest."""
    model = robot.simulator.model
    qpos = np.array(model.qpos0, np.float32)
    for index, value in (changes or {}).items():
        qpos[index] = value
    shapes = {
        "xpos": (model.nbody, 3),
        "subtree_com": (model.nbody, 3),
        "cinert": (model.nbody, 10),
        "cvel": (model.nbody, 6),
        "qfrc_actuator": (model.nv,),
        "cfrc_ext": (model.nbody, 6),
    }
    readings = {
        name: jnp.full(shape, number + 100.0)
        for number, (name, shape) in enumerate(shapes.items())
    }
    qvel = jnp.full(model.nv, velocity)
    return PhysicsState(jnp.asarray(qpos), qvel, jnp.zeros(model.nv), readings)


@pytest.mark.parametrize(
    ("robot", "changes", "fallen"),
    [
        (HalfCheetah(can_fall=True), {2: 2.4}, False),
        (HalfCheetah(can_fall=True), {2: 2.6}, True),
        (HalfCheetah(can_fall=True), {2: -2.6}, True),
        (HalfCheetah(), {2: 2.6}, False),
        (Ant(), {2: 0.31}, False),
        (Ant(), {2: 0.29}, True),
        (Ant(), {2: 10.1}, True),
        (Ant(can_fall=False), {2: 0.29}, False),
        (Hopper(), {}, False),
        (Hopper(), {1: 0.69}, True),
        (Hopper(), {2: 0.21}, True),
        (Hopper(), {2: -0.21}, True),
        (Hopper(), {4: 101.0}, True),
        (Hopper(can_fall=False), {1: 0.1}, False),
        (Walker2d(), {}, False),
        (Walker2d(), {1: 0.79}, True),
        (Walker2d(), {1: 2.01}, True),
        (Walker2d(), {2: 1.01}, True),
        (Walker2d(can_fall=False), {2: 1.01}, False),
        (Humanoid(), {}, False),
        (Humanoid(), {2: 0.99}, True),
        (Humanoid(), {2: 2.01}, True),
        (Humanoid(can_fall=False), {2: 0.5}, False),
    ],
)
def test_falls_are_those_of_the_original(robot, changes, fallen):
    terminated = robot.terminated(state_of(robot, changes))
    assert terminated.dtype == bool
    assert terminated == fallen


@pytest.mark.parametrize(
    ("robot", "parts"),
    [
        (HalfCheetah(), [("q", 8), (100, 3), ("v", 9)]),
        (Ant(), [("q", 13), (100, 3), ("v", 14)]),
        (Ant(torso_last=True), [("q", 13), ("v", 14), (100, 3)]),
        (Hopper(), [("q", 5), (100, 3), (10, 6)]),
        (Walker2d(), [("q", 8), (10, 9)]),
        (
            Humanoid(),
            [("q", 22), ("v", 23), (102, 140), (103, 84), (104, 23), (105, 84)],
        ),
        (
            Humanoid(contact_forces=False),
            [("q", 22), ("v", 23), (102, 140), (103, 84), (104, 23), (0, 84)],
        ),
    ],
)
def test_the_parts_of_an_observation_are_in_the_original_order(robot, parts):
    state = state_of(robot, velocity=50.0)
    pieces = []
    for value, size in parts:
        if value == "q":
            pieces.append(state.qpos[-size:])
        else:
            pieces.append(jnp.full(size, 50.0 if value == "v" else value))
    np.testing.assert_array_equal(robot.observe(state), jnp.concatenate(pieces))


@pytest.mark.parametrize("name", MJX)
def test_the_mean_velocity_of_a_step_is_way_over_time(name):
    robot = ROBOTS[name]()
    before, after = state_of(robot), state_of(robot, {0: 0.1})
    centre = after.readings["subtree_com"].at[0, 0].add(0.1)
    after = after.replace(readings={**after.readings, "subtree_com": centre})
    motion = robot.motion(before, after, jnp.zeros(robot.action_size))
    assert motion.x_velocity == pytest.approx(0.1 / robot.control_dt, rel=1e-4)
    assert motion.velocity[1] == 0
    assert motion.x_position == pytest.approx(0.1)


@pytest.mark.parametrize(
    "engine", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)]
)
def test_a_change_of_masses_does_not_throw_the_humanoid(engine):
    """Its reward looks at the centre of mass, which jumps when the masses change."""
    robot = Humanoid().on_engine(engine)
    model = robot.simulator.model
    mass = jnp.asarray(model.body_mass, jnp.float32).at[1].multiply(4)  # the torso
    qpos = jnp.asarray(model.qpos0, jnp.float32).at[0].set(5)
    qpos = qpos.at[9].set(-1.2)  # bends aside
    overrides, action = {"body_mass": mass}, jnp.zeros(17)
    old = robot.simulator.start(qpos, jnp.zeros(model.nv))
    step = jax.jit(lambda state: robot.step(state, action, overrides))
    first, read = step(old), jax.jit(robot.simulator.read)(old, overrides)
    speed = robot.motion(old, first, action).velocity
    assert (
        abs(read.readings["subtree_com"][0] - old.readings["subtree_com"][0]).max()
        > 0.05
    )
    np.testing.assert_allclose(
        speed, robot.motion(read, first, action).velocity, atol=2e-3
    )
    assert (abs(speed) < 0.5).all()


def test_without_a_change_of_masses_the_humanoids_velocity_is_that_of_the_original():
    robot = Humanoid()
    random = np.random.default_rng(0)
    before, after = state_of(robot), state_of(robot)
    inertia = jnp.asarray(random.uniform(0.1, 9, (robot.simulator.model.nbody, 10)))
    before = before.replace(readings={**before.readings, "cinert": inertia})
    after = after.replace(readings={**after.readings, "cinert": inertia})
    centre = after.readings["subtree_com"].at[0, 0].add(0.1)
    after = after.replace(readings={**after.readings, "subtree_com": centre})
    way = centre[0, :2] - before.readings["subtree_com"][0, :2]
    np.testing.assert_array_equal(
        robot.motion(before, after, jnp.zeros(17)).velocity, way / robot.control_dt
    )


@pytest.mark.parametrize(
    ("robot", "cost", "bonus", "weight"),
    [
        (HalfCheetah(), 0.05 * 6, 0, 1),
        (Hopper(alive_bonus=2.0), 1e-3 * 3, 2, 1),
        (Walker2d(), 1e-3 * 6, 1, 1),
        (Ant(contact_forces=False), 0.5 * 8, 1, 10),
        (Ant(), 0.5 * 8 + 0.5e-3 * 14 * 6, 1, 10),
        (Humanoid(contact_forces=False), 0.1 * 17 * 0.16, 5, 1.25),
        (Humanoid(), 0.1 * 17 * 0.16 + 0.5e-6 * 14 * 6 * 105**2, 5, 1.25),
    ],
)
def test_costs_and_bonuses_of_a_full_action(robot, cost, bonus, weight):
    state = state_of(robot)
    motion = robot.motion(state, state, -2 * jnp.ones(robot.action_size))
    assert motion.cost == pytest.approx(cost, rel=1e-5)
    assert motion.bonus == bonus
    assert motion.direction_weight == weight


@pytest.mark.parametrize(
    ("name", "position", "velocity", "normal"),
    [
        ("half_cheetah", 0.1, 0.1, True),
        pytest.param("ant", 0.1, 0.1, True, marks=pytest.mark.slow),
        ("hopper", 0.005, 0.005, False),
        ("walker2d", 0.005, 0.005, False),
        pytest.param("humanoid", 0.01, 0.01, False, marks=pytest.mark.slow),
    ],
)
def test_starts_are_as_noisy_as_the_original(name, position, velocity, normal):
    case = world(name)
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    physics = case.reset(keys, case.tasks).physics
    shift = physics.qpos - case.env.robot.simulator.model.qpos0
    if name in ("ant", "humanoid"):  # their quaternions are made unit ones
        shift = shift.at[:, 3:7].set(0)
    assert 0.9 * position < jnp.abs(shift).max() <= position * 1.001
    spread = velocity if normal else velocity / np.sqrt(3)
    assert physics.qvel.std() == pytest.approx(spread, rel=0.15)
