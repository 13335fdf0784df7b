"""Meta-World's arm as an environment: its model, its start, its tasks."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import importlib.util

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import tiny_config
from metaworld_policies import drive

from cemrl_jax.analysis import strip
from cemrl_jax.config import ConfigError, EnvConfig
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.groups import Groups, make_groups
from cemrl_jax.envs.metaworld import models, starts
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.scene import SOURCES
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Sequence, Stationary
from cemrl_jax.envs.tasks import Velocity

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="no metaworld"
)
NUM_STEPS = 500


def environment(names, engine="mujoco", schedule=None):
    robot = Sawyer().on_engine(engine)
    return NonStationaryEnv(robot, Manipulation(names), schedule or Stationary())


def solved(name, engine, num_vectors=50, num_steps=NUM_STEPS):
    """How many random vectors the package's scripted policy solves in our arm.

    It drives the gymnasium adapter.
    """
    success = np.zeros(num_vectors, bool)
    for _, info in drive(name, engine, num_vectors, num_steps):
        success |= info["success"]
    return int(success.sum())


@pytest.mark.parametrize("structure", models.STRUCTURES, ids=lambda x: x.names[0])
def test_explicit_pairs_are_the_collisions_of_the_package(structure):
    file, name = models.SawyerFile(structure.file, 5, 4, 8, ()), structure.names[-1]
    start, thing = starts.poses()[name], SOURCES[name].position
    lift = 0.15 if name.startswith("button") else 0.0
    paths = []
    for model in (file.compile(), file.compile(file.make_pairs)):
        data, rng = mujoco.MjData(model), np.random.default_rng(0)
        data.qpos[:], data.qvel[:] = start.qpos, start.qvel
        data.mocap_pos[0], path = start.hand, []
        for step in range(100):  # to the thing, a button's from above, and about
            aim = getattr(data, thing.kind)(thing.name).xpos.copy()
            aim[2] += lift * (step < 60)
            way = np.clip(aim - data.mocap_pos[0], -0.01, 0.01) if step else np.zeros(3)
            way += rng.uniform(-0.01, 0.01, 3)
            data.mocap_pos[0] = np.clip(data.mocap_pos[0] + way, *structure.hand_box)
            data.mocap_quat[0], data.ctrl[:] = models.MOCAP_QUATERNION, [1, -1]
            mujoco.mj_step(model, data, 5)
            path.append(data.qpos.copy())
        paths.append(path)
    np.testing.assert_allclose(*paths, rtol=0, atol=1e-7)
    assert np.ptp(np.array(paths[0])[:, 9:], 0).max() > 1e-3  # something was moved


@pytest.mark.parametrize("structure", models.STRUCTURES, ids=lambda x: x.names[0])
def test_what_mjx_needs_leaves_masses_and_derived_constants(structure):
    file = models.SawyerFile(structure.file, 5, 4, 8, ())
    ours, mjx = file.compile(), file.compile(file.edit_for_mjx)
    moves = ours.body_weldid > 0
    for field in ("body_mass", "body_inertia", "body_invweight0", "body_ipos"):
        pair = [getattr(model, field)[moves] for model in (ours, mjx)]
        np.testing.assert_array_equal(*pair, err_msg=field)
    np.testing.assert_array_equal(ours.dof_invweight0, mjx.dof_invweight0)
    assert ours.npair == 0
    assert mjx.npair == sum(map(len, models.contacts()[structure.file].values()))
    assert not mjx.geom_contype.any()


def frame(model, geom):
    """Position and rotation matrix of a geom in its body."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, model.geom_quat[geom])
    return model.geom_pos[geom], matrix.reshape(3, 3)


@pytest.mark.parametrize("structure", models.STRUCTURES, ids=lambda x: x.names[0])
def test_a_prism_stands_where_its_cylinder_does(structure):
    file = models.SawyerFile(structure.file, 5, 4, 8, ())
    model = file.compile(file.edit_for_mjx)
    names = [model.geom(geom).name for geom in range(model.ngeom)]
    for prism in [name for name in names if " prism " in name]:
        cylinder, margin = prism.split(" prism ")
        (place, turn), (origin, axes) = (
            frame(model, model.geom(name).id) for name in (prism, cylinder)
        )
        mesh = model.mesh(model.geom(prism).dataid[0])
        first = mesh.vertadr[0]
        corners = model.mesh_vert[first : first + mesh.vertnum[0]]
        x, y, z = axes.T @ (place + corners @ turn.T - origin).T
        radius, half = model.geom(cylinder).size[:2] + float(margin)
        np.testing.assert_allclose(np.abs(z), half, atol=1e-6)
        np.testing.assert_allclose(np.hypot(x, y), radius, rtol=0.03)


def test_a_change_brings_another_target_and_moves_nothing():
    env = environment(("reach", "push"), schedule=Sequence((1,), (1,)))
    pool = env.distribution.sample(jax.random.key(0), 2)
    step = jax.jit(env.step)
    first = jax.tree.map(lambda leaf: leaf[0], pool)
    before = step(env.reset(jax.random.key(1), first), jnp.zeros(4), pool)
    after = step(before, jnp.zeros(4), pool)
    assert (int(before.task.base), int(after.task.base)) == (0, 1)
    np.testing.assert_allclose(after.obs[:7], before.obs[:7], atol=2e-3)
    np.testing.assert_array_equal(after.obs[18:36], before.obs[:18])
    np.testing.assert_array_equal(after.obs[36:], 0)
    assert not after.success


def test_an_action_moves_the_hand_within_its_box():
    env = environment(("reach",))
    task = jax.tree.map(lambda x: x[0], env.distribution.sample(jax.random.key(0), 1))
    step = jax.jit(env.world.step)
    state = env.world.reset(jax.random.key(0), task)
    for _ in range(60):
        state = step(state, jnp.array([2.0, 0.0, 0.0, -1.0]), task)
    seen = env.world.observe(state, task)
    assert seen[0] == pytest.approx(0.5, abs=0.03)
    assert seen[3] > 0.95
    assert state.body.mocap[0, 0] == pytest.approx(models.HAND_BOX[1][0])


def test_tasks_of_several_models_are_refused():
    with pytest.raises(ValueError, match=r"names=.*must be tasks of one phys"):
        environment(("reach", "basketball"))


def test_tasks_to_be_tested_on_have_their_own_models():
    names, others = ("door-open", "reach"), ("sweep-into", "push", "door-close")
    env = make_groups(Sawyer(), Manipulation(names, others), Stationary())
    assert isinstance(env, Groups)
    assert env.elsewhere is not None
    for number, name in enumerate(names + others):
        robot = env.models[int(env.model_of(np.array([number]))[0])].robot
        assert isinstance(robot, Sawyer)
        assert name in robot.structure.names
    assert (env.num_bases, env.elsewhere.num_bases) == (2, 3)
    pool = env.distribution.extrapolate(jax.random.key(0), 6)
    np.testing.assert_array_equal(pool.base, [2, 3, 4, 2, 3, 4])
    one_model = make_groups(Sawyer(), Manipulation(("reach",), ("push",)), Stationary())
    assert not isinstance(one_model, Groups)


def test_a_pool_must_hold_each_task_to_be_tested_on_as_often():
    tasks = Manipulation(("reach", "door-open"), ("sweep-into", "push", "door-close"))
    config = tiny_config(env=EnvConfig(Sawyer(), tasks, Stationary(), "mujoco", 4, 4))
    with pytest.raises(ConfigError, match=r"num_test_tasks=4 must be a multiple of 3"):
        config.validate(1)
    config.env.num_test_tasks = 6
    config.validate(1)


def test_robot_and_tasks_must_suit_each_other():
    with pytest.raises(ValueError, match="a sawyer needs tasks of Meta-World"):
        NonStationaryEnv(Sawyer(), Velocity(), Stationary())
    with pytest.raises(ValueError, match="Point knows no task of Meta-World"):
        NonStationaryEnv(Point(), Manipulation(), Stationary())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    models.assets.cache_clear()
    try:
        (problem,) = Sawyer().validate()
    finally:
        models.assets.cache_clear()
    assert "pip install --no-deps metaworld==3.1.1" in problem


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reach", "push", "pick-place"])
def test_the_packages_scripted_policies_solve_our_tasks(name):
    assert solved(name, "mujoco") >= 47


@pytest.mark.slow
def test_a_scripted_policy_solves_our_tasks_on_mjx():
    """One with contacts, and few vectors: on a CPU MJX is much slower than C MuJoCo."""
    assert solved("pick-place", "mjx", num_vectors=6, num_steps=200) >= 5


if __name__ == "__main__":
    import sys

    for name in sys.argv[2:]:
        print(name, sys.argv[1], solved(name, sys.argv[1]), "of 50", flush=True)


def test_the_arm_is_drawn_from_its_left_and_what_moves_in_colour():
    robot = Sawyer().suited(Manipulation(("reach",)))
    model = robot.simulator.model
    shapes = strip.silhouettes(model, np.array(model.qpos0), strip.view_of(model).axis)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    puck = data.geom("objGeom").xpos
    (red,) = [shape for shape in shapes if shape.colour == (1, 0, 0)]
    np.testing.assert_allclose(red.outline.mean(0), puck[1:], atol=0.01)
    arm = np.concatenate([shape.outline for shape in shapes if shape.colour])
    assert np.ptp(arm[:, 0]) > 0.5  # it reaches from its base to the table
    assert any(shape.colour is None for shape in shapes)  # table and walls
