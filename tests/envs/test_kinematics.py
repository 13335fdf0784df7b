"""Places of bodies, against C MuJoCo."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import HAS_METAWORLD
from mujoco import mjx

from cemrl_jax.envs.engines import kinematics
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.robots import Ant, Humanoid, Walker2d

ROBOTS = [Ant, Humanoid, Walker2d, *([Sawyer] if HAS_METAWORLD else [])]
FIELDS = ("xpos", "xquat", "xmat", "xanchor", "xaxis", "xipos", "ximat")
FIELDS += ("geom_xpos", "geom_xmat", "site_xpos", "site_xmat")


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.__name__)
def test_places_are_those_of_mujoco(robot):
    simulator = robot().on_engine("mjx").simulator
    model, rng = simulator.model, np.random.default_rng(0)
    assert kinematics.handles(model)
    host = mujoco.MjData(model)
    host.qpos[:] = rng.normal(size=model.nq)
    host.mocap_pos[:] += 0.1
    data = mjx.make_data(simulator.mjx_model).replace(
        qpos=jnp.array(host.qpos, jnp.float32),
        mocap_pos=jnp.array(host.mocap_pos, jnp.float32),
    )
    found = jax.jit(kinematics.places)(simulator.mjx_model, data)
    mujoco.mj_normalizeQuat(model, host.qpos)
    mujoco.mj_kinematics(model, host)
    np.testing.assert_allclose(found.qpos, host.qpos, rtol=0, atol=1e-6)
    for name in FIELDS:
        ours, theirs = getattr(found, name), getattr(host, name)
        theirs = theirs.reshape(ours.shape)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5, err_msg=name)
