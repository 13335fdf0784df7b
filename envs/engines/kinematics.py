"""Where the bodies of any tree are, without work done twice.

MJX's own function computes the same numbers, but XLA joins the chain of rotations from
the root to a hand into single programs, and computes a rotation again for each of the
four numbers that need it, level by level. On a CPU a step of Meta-World's arm, ten
levels deep, took a hundred times as long. Here a barrier ends each level.

Formulas are MuJoCo's (documentation, "Computation"; `mj_kinematics`); quaternions have
their real part first.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax import math
from flax import struct
from jax import Array

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco import mjx

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)

_rotate = jax.vmap(math.rotate)
_multiply = jax.vmap(math.quat_mul)
_matrix = jax.vmap(math.quat_to_3x3)
_turn = jax.vmap(math.quat_rot_axis)


class _Places(struct.PyTreeNode):
    """Where bodies `[n]` and joints `[j]` are.

    Attributes:
      pos: `[n, 3]` bodies, m.
      quat: `[n, 4]` their rotations.
      anchor: `[j, 3]` joints, m.
      axis: `[j, 3]` their axes.
    """

    pos: Array
    quat: Array
    anchor: Array
    axis: Array


def handles(model: mujoco.MjModel) -> bool:
    """Returns whether a model has no joints but free ones, slides and hinges."""
    return bool(np.isin(model.jnt_type, (_FREE, _SLIDE, _HINGE)).all())


def places(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Computes where bodies, joints, geoms and sites are, as `mjx.kinematics` does."""
    qpos = _unit_rotations(model, data.qpos)
    bodies, joints = np.zeros(1, int), np.zeros(0, int)
    none = jnp.zeros((0, 3))
    found = _Places(model.body_pos[:1], model.body_quat[:1], none, none)
    for level in _levels(model):
        row = np.searchsorted(bodies, model.body_parentid[level])
        parents = (found.pos[row], found.quat[row])
        own, chosen = _level(model, qpos, level, *parents)
        bodies, joints = np.append(bodies, level), np.append(joints, chosen)
        found = jax.tree.map(lambda *x: jnp.concatenate(x), found, own)
        order = np.argsort(bodies)
        bodies = bodies[order]
        found = found.replace(pos=found.pos[order], quat=found.quat[order])
        found = jax.lax.optimization_barrier(found)
    order = np.argsort(joints)
    pos, quat = found.pos, found.quat
    if model.nmocap:
        moved = model.body_mocapid >= 0
        pos = pos.at[moved].set(data.mocap_pos)
        quat = quat.at[moved].set(_normal(data.mocap_quat))
    place = lambda of, p, q: _inside(pos[of], quat[of], p, q)  # noqa: E731
    inertias = place(slice(None), model.body_ipos, model.body_iquat)
    geoms = place(model.geom_bodyid, model.geom_pos, model.geom_quat)
    sites = place(model.site_bodyid, model.site_pos, model.site_quat)
    return data.replace(
        qpos=qpos,
        xpos=pos,
        xquat=quat,
        xmat=_matrix(quat),
        xanchor=found.anchor[order],
        xaxis=found.axis[order],
        xipos=inertias[0],
        ximat=inertias[1],
        geom_xpos=geoms[0],
        geom_xmat=geoms[1],
        site_xpos=sites[0],
        site_xmat=sites[1],
    )


def _levels(model: mjx.Model) -> Iterator[np.ndarray]:
    """Yields bodies by their distance from the world, which is left out."""
    level = np.zeros(1, int)
    while True:
        level = np.nonzero(np.isin(model.body_parentid[1:], level))[0] + 1
        if not level.size:
            return
        yield level


def _level(
    model: mjx.Model, qpos: Array, bodies: np.ndarray, pos: Array, quat: Array
) -> tuple[_Places, np.ndarray]:
    """Places bodies on their parents, which are at `pos` and `quat`.

    A body's joints move it in turn.

    Returns:
      Their places, and the numbers of the joints in the order in which they stand.
    """
    pos = pos + _rotate(model.body_pos[bodies], quat)
    quat = _multiply(quat, model.body_quat[bodies])
    anchors, axes, chosen = [jnp.zeros((0, 3))], [jnp.zeros((0, 3))], [np.zeros(0, int)]
    for turn in range(model.body_jntnum[bodies].max()):
        for kind in (_FREE, _SLIDE, _HINGE):
            joints = model.body_jntadr[bodies] + turn
            there = model.body_jntnum[bodies] > turn
            row = np.nonzero(there & (model.jnt_type[joints] == kind))[0]
            if not row.size:
                continue
            joints = joints[row]
            moved = _moved(model, qpos, kind, joints, pos[row], quat[row])
            pos, quat = pos.at[row].set(moved.pos), quat.at[row].set(moved.quat)
            anchors.append(moved.anchor)
            axes.append(moved.axis)
            chosen.append(joints)
    own = _Places(pos, quat, jnp.concatenate(anchors), jnp.concatenate(axes))
    return own, np.concatenate(chosen)


def _moved(
    model: mjx.Model, qpos: Array, kind: int, joints: np.ndarray, pos: Array, quat: Any
) -> _Places:
    """Moves bodies by a joint `[n]` of one kind each."""
    first = model.jnt_qposadr[joints]
    if kind == _FREE:
        up = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (len(joints), 3))
        place = qpos[first[:, None] + np.arange(3)]
        return _Places(place, qpos[first[:, None] + np.arange(3, 7)], place, up)
    anchor = pos + _rotate(model.jnt_pos[joints], quat)
    axis = _rotate(model.jnt_axis[joints], quat)
    way = qpos[first] - model.qpos0[first]
    if kind == _SLIDE:
        return _Places(pos + axis * way[:, None], quat, anchor, axis)
    quat = _multiply(quat, _turn(model.jnt_axis[joints], way))
    return _Places(anchor - _rotate(model.jnt_pos[joints], quat), quat, anchor, axis)


def _inside(pos: Array, quat: Array, at: Array, turned: Array) -> tuple[Array, Array]:
    """Returns places and rotations `[n, 3, 3]` of what bodies `[n]` carry."""
    return pos + _rotate(at, quat), _matrix(_multiply(quat, turned))


def _unit_rotations(model: mjx.Model, qpos: Array) -> Array:
    """Returns positions in which the rotations of free bodies have length one."""
    first = model.jnt_qposadr[model.jnt_type == _FREE]
    rows = first[:, None] + np.arange(3, 7)
    return qpos.at[rows].set(_normal(qpos[rows])) if rows.size else qpos


def _normal(quat: Array) -> Array:
    return quat / jnp.linalg.norm(quat, axis=-1, keepdims=True)
