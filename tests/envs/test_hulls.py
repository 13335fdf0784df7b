"""Where two hulls meet on MJX, against C MuJoCo."""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from cemrl_jax.envs.engines import ModelFile, collisions, mjx

NUM_POSES = 200
MEET = """
<mujoco>
  <option cone="elliptic"><flag multiccd="disable"/></option>
  <asset>
    <mesh name="stone" vertex="{stone}"/>
    <mesh name="prism" vertex="{prism}"/>
  </asset>
  <worldbody>
    <body><freejoint/><geom type="mesh" mesh="stone"/></body>
    <body><freejoint/><geom type="{type}" {shape}/></body>
  </worldbody>
</mujoco>
"""
OTHERS = {
    "a prism": ("mesh", 'mesh="prism"'),
    "a box": ("box", 'size=".03 .02 .05"'),
    "its like": ("mesh", 'mesh="stone"'),
}


def stone() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 3)) * [0.05, 0.025, 0.015]


def prism() -> np.ndarray:
    angle = 2 * np.pi * np.arange(16) / 16
    circle = 0.03 * np.stack([np.cos(angle), np.sin(angle)], 1)
    ends = [np.column_stack([circle, np.full(16, z)]) for z in (-0.05, 0.05)]
    return np.concatenate(ends)


@pytest.fixture(params=OTHERS)
def simulator(request, tmp_path):
    """Two bodies that float."""
    kind, shape = OTHERS[request.param]
    points = {"stone": stone(), "prism": prism()}
    points = {name: " ".join(map(str, x.ravel())) for name, x in points.items()}
    path = tmp_path / "meet.xml"
    path.write_text(MEET.format(type=kind, shape=shape, **points))
    return mjx.load(ModelFile(str(path), 1, 8, 8, ()))


def poses() -> np.ndarray:
    """The first is at the origin, the second near it; both are turned."""
    rng = np.random.default_rng(1)
    quat = rng.normal(size=(2, NUM_POSES, 4))
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    way = rng.normal(size=(NUM_POSES, 3))
    way *= (
        rng.uniform(0.03, 0.12, (NUM_POSES, 1)) / np.linalg.norm(way, axis=1)[:, None]
    )
    return np.concatenate([np.zeros_like(way), quat[0], way, quat[1]], 1)


def contacts_of_mjx(simulator, qpos):
    model = simulator.mjx_model

    @jax.jit
    @jax.vmap
    def find(qpos):
        data = mjx._places(model, mjx._make_data(model).replace(qpos=qpos))
        with jax.default_matmul_precision("highest"):
            contact = collisions.collide(model, data)._impl.contact
        return contact.dist[0], contact.pos[0], contact.frame[0, 0]

    return map(np.asarray, find(jnp.float32(qpos)))


def contacts_of_c(model, qpos):
    """Distance, place and normal of each; NaN where C finds no contact."""
    data, found = mujoco.MjData(model), np.full((len(qpos), 7), np.nan)
    for number, data.qpos[:] in enumerate(qpos):
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            found[number] = contact.dist, *contact.pos, *contact.frame[:3]
    return np.split(found, [1, 4], 1)


def test_hulls_meet_where_they_do_in_c(simulator):
    qpos = poses()
    dist, pos, normal = contacts_of_mjx(simulator, qpos)
    there = contacts_of_c(simulator.model, qpos)
    touch = dist < 0
    assert 0.3 < touch.mean() < 0.9
    np.testing.assert_array_equal(touch, ~np.isnan(there[0][:, 0]))
    for own, c, room in zip((dist[:, None], pos, normal), there, (1e-6, 1e-6, 1e-5)):
        np.testing.assert_allclose(own[touch], c[touch], rtol=0, atol=room)
