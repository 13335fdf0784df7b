"""Task distributions: ranges, labels, what an event does, overrides of the model."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs import TASKS
from cemrl_jax.envs.base import BACKWARD, ELAPSED, FORWARD
from cemrl_jax.envs.robots import Ant, HalfCheetah, Point
from cemrl_jax.envs.robots.locomotion import REWARDS, Motion, reward
from cemrl_jax.envs.tasks import (
    Cripple,
    Direction,
    Dynamics,
    Goal,
    MultiTask,
    PlanarAngle,
    Velocity,
)

TRAIN, TEST = jax.random.split(jax.random.key(0))
RANDOMISED = {
    "velocity": Velocity(),
    "planar_angle": PlanarAngle(0.0, math.pi),
    "goal": Goal(),
    "goal_planar": Goal(planar=True),
    "dynamics": Dynamics().bind(HalfCheetah()),
    "dynamics_part": Dynamics(scope="part").bind(HalfCheetah()),
}


def sample(distribution, key, num_tasks):
    return jax.jit(lambda key: distribution.sample(key, num_tasks))(key)


def extrapolate(distribution, key, num_tasks):
    return jax.jit(lambda key: distribution.extrapolate(key, num_tasks))(key)


def numbers(pool):
    leaves = [pool.spec.reshape(len(pool.kind), -1)]
    leaves += [leaf.reshape(len(pool.kind), -1) for leaf in pool.overrides.values()]
    return np.concatenate(leaves, 1)


@pytest.mark.parametrize("name", RANDOMISED)
def test_train_test_and_extrapolation_pools_are_disjoint(name):
    distribution = RANDOMISED[name]
    pools = [
        numbers(sample(distribution, TRAIN, 100)),
        numbers(sample(distribution, TEST, 30)),
        numbers(extrapolate(distribution, TEST, 30)),
    ]
    rows = np.concatenate(pools)
    assert len(np.unique(rows, axis=0)) == 160
    np.testing.assert_array_equal(pools[0], numbers(sample(distribution, TRAIN, 100)))


def test_extrapolation_is_outside_the_training_range():
    velocity = extrapolate(Velocity(0.5, 3.0), TEST, 50).spec
    assert ((velocity >= 3.0) & (velocity <= 4.25)).all()
    angle = extrapolate(PlanarAngle(0.0, 1.0), TEST, 50).spec
    assert ((angle >= 1.0) & (angle <= 2 * math.pi)).all()
    goal = jnp.abs(extrapolate(Goal(5.0), TEST, 50).spec)
    assert ((goal >= 5.0) & (goal <= 7.5)).all()
    place = jnp.linalg.norm(extrapolate(Goal(5.0, planar=True), TEST, 50).spec, axis=-1)
    assert ((place >= 4.999) & (place <= 7.501)).all()
    mass = Dynamics(("body_mass",), (1.5,)).bind(HalfCheetah())
    factor = extrapolate(mass, TEST, 50).overrides["body_mass"][:, 1:]
    factor = factor / HalfCheetah().parameters["body_mass"][1:]
    assert (jnp.abs(jnp.log(factor)) >= 3 * math.log(1.5) - 1e-4).all()
    with pytest.raises(ValueError, match="whole circle"):
        extrapolate(PlanarAngle(), TEST, 1)
    with pytest.raises(ValueError, match="width of a single one"):
        extrapolate(Velocity(2.0, 2.0), TEST, 1)


def test_samples_stay_within_their_range():
    velocity = sample(Velocity(0.5, 3.0), TRAIN, 1000).spec
    assert velocity.min() >= 0.5
    assert velocity.max() <= 3.0
    assert velocity.std() == pytest.approx(2.5 / math.sqrt(12), rel=0.05)
    place = sample(Goal(5.0, planar=True), TRAIN, 1000).spec
    assert place.shape == (1000, 2)
    assert jnp.linalg.norm(place, axis=-1).max() <= 5.0
    inner = (jnp.linalg.norm(place, axis=-1) < 2.5).mean()
    assert inner == pytest.approx(0.25, abs=0.04)  # uniform over the area


def test_multi_task_labels_kinds_from_zero_in_equal_shares():
    family = MultiTask(("jumping", "velocity", "flipping"))
    pool = sample(family, TRAIN, 60)
    np.testing.assert_array_equal(np.bincount(pool.base), [20, 20, 20])
    assert family.num_base_tasks == 3
    kinds = [list(REWARDS)[kind] for kind in pool.kind[:3]]
    assert kinds == ["jumping", "velocity", "flipping"]
    assert set(np.asarray(pool.spec[2::3])) == {-1.0, 1.0}
    velocities = pool.spec[1::3]
    assert ((velocities >= 1) & (velocities <= 3)).all()


def motion(**values):
    zero = jnp.float32(0)
    default = {
        "position": jnp.zeros(2),
        "velocity": jnp.zeros(2),
        "height": zero,
        "pitch_velocity": zero,
        "cost": zero,
        "bonus": zero,
        "direction_weight": jnp.float32(1),
    }
    return Motion(**{**default, **values})


@pytest.mark.parametrize(
    ("variant", "spec", "values", "expected"),
    [
        ("velocity", 2.0, {"velocity": jnp.array([0.5, 9.0])}, -1.5),
        ("direction", -1.0, {"velocity": jnp.array([0.5, 9.0])}, -0.5),
        ("goal", 3.0, {"position": jnp.array([5.0, 9.0])}, -2.0),
        ("goal", [3.0, 4.0], {"position": jnp.zeros(2)}, -5.0),
        ("flipping", -1.0, {"pitch_velocity": jnp.float32(2)}, -2.0),
        ("jumping", 0.0, {"height": jnp.float32(0.7)}, 0.7),
        ("planar_angle", math.pi / 2, {"velocity": jnp.array([5.0, 2.0])}, 2.0),
    ],
)
def test_rewards_of_a_known_motion(variant, spec, values, expected):
    task = (
        Velocity()
        .sample(TRAIN, 1)
        .replace(kind=jnp.int32(list(REWARDS).index(variant)), spec=jnp.array(spec))
    )
    values = {**values, "cost": jnp.float32(0.25), "bonus": jnp.float32(1)}
    assert reward(task, motion(**values)) == pytest.approx(expected + 0.75, abs=1e-5)


@pytest.mark.parametrize(
    ("event", "before", "after"),
    [
        (FORWARD, 1.0, -1.0),
        (FORWARD, -1.0, -1.0),
        (BACKWARD, -1.0, 1.0),
        (BACKWARD, 1.0, 1.0),
        (ELAPSED, 1.0, -1.0),
        (ELAPSED, -1.0, 1.0),
    ],
)
def test_direction_turns_round_at_its_own_end_and_by_time(event, before, after):
    family = Direction()
    pool = sample(family, TRAIN, 2)
    index = 0 if before < 0 else 1
    task = jax.tree.map(lambda leaf: leaf[index], pool)
    assert task.spec == before
    changed = family.change(TEST, pool, task, jnp.int32(event))
    assert changed.spec == after
    assert changed.base == (after < 0)


def test_one_sided_directions_all_start_alike():
    pool = sample(Direction(starts=(-1.0,)), TRAIN, 5)
    np.testing.assert_array_equal(pool.spec, -1.0)


def test_dynamics_multiplies_each_number_by_its_own_factor():
    robot = HalfCheetah()
    pool = sample(Dynamics().bind(robot), TRAIN, 200)
    for name, base in zip(Dynamics().parameters, Dynamics().bases):
        nominal = robot.parameters[name]
        assert pool.overrides[name].shape == (200, *nominal.shape)
        factors = np.log(pool.overrides[name][:, nominal != 0] / nominal[nominal != 0])
        factors /= math.log(base)
        assert np.abs(factors).max() <= 3 + 1e-4
        assert factors.std() == pytest.approx(3 / math.sqrt(3), rel=0.05)
        assert len(np.unique(factors[0])) == factors.shape[1]


def test_dynamics_by_part_multiplies_all_numbers_of_a_body_alike():
    robot = HalfCheetah()
    pool = sample(Dynamics(scope="part").bind(robot), TRAIN, 10)
    inertia = (
        pool.overrides["body_inertia"][:, 1:] / robot.parameters["body_inertia"][1:]
    )
    np.testing.assert_allclose(inertia, inertia[..., :1].repeat(3, -1), rtol=1e-5)
    friction = pool.overrides["geom_friction"] / robot.parameters["geom_friction"]
    torso = np.flatnonzero(robot.parts["geom_friction"] == 1)
    assert len(torso) > 1
    np.testing.assert_allclose(friction[:, torso[0]], friction[:, torso[1]], rtol=1e-5)


def test_dynamics_of_a_single_element_change_only_that_one():
    robot = HalfCheetah()
    family = Dynamics(("body_mass", "dof_damping"), (1.5, 1.3), scope="single")
    family = family.bind(robot)
    assert family.num_base_tasks == 7 + 6
    pool = sample(family, TRAIN, 26)
    np.testing.assert_array_equal(pool.base[:13], np.arange(13))
    mass = pool.overrides["body_mass"] / np.maximum(robot.parameters["body_mass"], 1e-9)
    changed = np.abs(mass[:, 1:] - 1) > 1e-6
    np.testing.assert_array_equal(changed[:7], np.eye(7, dtype=bool))
    assert not changed[7:13].any()
    damping = pool.overrides["dof_damping"][:, 3:] / robot.parameters["dof_damping"][3:]
    np.testing.assert_array_equal(np.abs(damping[7:13] - 1) > 1e-6, np.eye(6) > 0)
    assert (np.abs(damping[:7] - 1) < 1e-6).all()


def test_a_crippled_joint_has_no_gear_and_the_healthy_robot_is_base_zero():
    family = Cripple(joints=(0, 2)).bind(Ant())
    pool = sample(family, TRAIN, 6)
    gear = Ant().parameters["actuator_gear"][:, 0]
    np.testing.assert_array_equal(pool.base, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(pool.overrides["actuator_gear"][0, :, 0], gear)
    np.testing.assert_array_equal(
        pool.overrides["actuator_gear"][2, :, 0], gear * (np.arange(8) != 2)
    )
    others = extrapolate(family, TEST, 6).overrides["actuator_gear"][..., 0] == 0
    np.testing.assert_array_equal(np.argmax(others, 1), [1, 3, 4, 5, 6, 7])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cripple((9,)).bind(HalfCheetah()), "below 6"),
        (lambda: Cripple().bind(Point()), "it has gain"),
        (lambda: Dynamics(("mass",), (2.0,)).bind(HalfCheetah()), "it has body_mass"),
        (lambda: sample(Dynamics(), TRAIN, 1), "bind"),
    ],
)
def test_tasks_that_a_robot_cannot_have_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("distribution", "field"),
    [
        (Velocity(3.0, 1.0), "low"),
        (Direction(()), "starts"),
        (PlanarAngle(0.0, 7.0), "high"),
        (Goal(-1.0), "distance"),
        (MultiTask(("flying",)), "variants"),
        (MultiTask(min_velocity=5.0), "min_velocity"),
        (Dynamics(bases=(2.0,)), "bases"),
        (Dynamics(scope="all"), "scope"),
        (Dynamics(log_limit=0.0), "log_limit"),
        (Cripple(()), "joints"),
        (Cripple(direction=0.5), "direction"),
    ],
)
def test_bad_settings_are_named(distribution, field):
    assert any(problem.startswith(field) for problem in distribution.validate())


@pytest.mark.parametrize("name", TASKS)
def test_defaults_are_valid(name):
    assert TASKS[name]().validate() == []


def test_a_task_knows_its_number_in_the_pool_also_after_it_has_turned():
    pool = Direction().sample(jax.random.key(0), 6)
    task = jax.tree.map(lambda leaf: leaf[1], pool)
    turned = Direction().change(jax.random.key(0), pool, task, jnp.int32(ELAPSED))
    assert (int(task.number), int(turned.number)) == (1, 0)
    one_sided = Direction(starts=(1.0,)).sample(jax.random.key(0), 2)
    first = jax.tree.map(lambda leaf: leaf[0], one_sided)
    away = Direction().change(jax.random.key(0), one_sided, first, jnp.int32(ELAPSED))
    assert int(away.number) == -1
