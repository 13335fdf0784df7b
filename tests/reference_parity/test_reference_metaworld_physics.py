"""One control step of Meta-World's arm against recordings of the official package.

The package steps MuJoCo 3.3. C MuJoCo 4 differs by a term of its weld (its changelog:
"centripetal/Coriolis acceleration"), which MJX leaves out as 3.3 did; MJX differs by
float32 and by the points at which the puck touches table and fingers.
"""

import functools
import importlib.util
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.metaworld.arm import Sawyer, Workplace
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.metaworld.vectors import FIRST_KIND, NAMES, VECTORS
from cemrl_jax.envs.schedules import Stationary

FILE = (
    pathlib.Path(os.environ.get("CEMRL_REFERENCE_DATA", "/nowhere/golden")).parent
    / "metaworld"
    / "recordings.npz"
)
pytestmark = [
    pytest.mark.skipif(not FILE.exists(), reason="no recordings of Meta-World"),
    pytest.mark.skipif(
        importlib.util.find_spec("metaworld") is None, reason="no metaworld"
    ),
]
LIMITS = {  # hand, object: 95th percentile of the error, m
    ("reach", "mjx"): (2e-6, 3e-4),
    ("push", "mjx"): (2e-6, 3e-4),
    ("pick-place", "mjx"): (2e-6, 3e-4),
    ("reach", "mujoco"): (8e-5, 1e-5),
    ("push", "mujoco"): (8e-4, 8e-4),
    ("pick-place", "mujoco"): (8e-4, 8e-4),
}


@functools.cache
def recording(name):
    with np.load(FILE) as file:
        prefix = f"{name}-v3/"
        return {x[len(prefix) :]: file[x] for x in file.files if x.startswith(prefix)}


def environment(name, engine):
    robot = Sawyer().on_engine(engine)
    return NonStationaryEnv(robot, Manipulation((name,)), Stationary())


def task_of(env, name, vectors):
    task = env.distribution.sample(jax.random.key(0), len(vectors))
    specs = [jnp.concatenate(VECTORS[name].places(jnp.float32(v))) for v in vectors]
    kinds = jnp.full(len(vectors), FIRST_KIND + NAMES.index(name))
    return task.replace(spec=jnp.stack(specs), kind=kinds)


def one_step_errors(name, engine):
    """Distances `[2, N]` of hand and object from where the package has them, m."""
    env, data = environment(name, engine), recording(name)
    tasks = task_of(env, name, data["random_vector"][data["episode"]])
    robot: Any = env.robot
    model = robot.simulator.model
    sizes = np.cumsum([model.nq, model.nv, model.nv])
    qpos, qvel, warmstart, mocap = np.split(np.float32(data["state"]), sizes, 1)

    @jax.jit
    @jax.vmap
    def step(qpos, qvel, warmstart, mocap, action, task):
        start = env.world.reset(jax.random.key(0), task)
        body = start.body.replace(
            qpos=qpos, qvel=qvel, warmstart=warmstart, mocap=mocap[None]
        )
        start = Workplace(body, start.fixture, start.previous)
        after = env.world.step(start, action, task)
        return env.world.observe(after, task)

    actions = np.float32(data["action"])
    found = step(qpos, qvel, warmstart, mocap, actions, tasks)
    away = np.asarray(found)[:, :7] - data["next_obs"][:, :7]
    return np.linalg.norm(away[:, :3], axis=1), np.linalg.norm(away[:, 4:7], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), LIMITS)
def test_a_control_step_is_as_close_as_the_engine_allows(name, engine):
    for errors, limit in zip(one_step_errors(name, engine), LIMITS[name, engine]):
        assert np.percentile(errors, 95) < limit


if __name__ == "__main__":
    for name, engine in LIMITS:
        for what, errors in zip(("hand", "object"), one_step_errors(name, engine)):
            parts = np.percentile(errors, [50, 95, 99, 100])
            print(name, engine, what, *(f"{x:.1e}" for x in parts), flush=True)
