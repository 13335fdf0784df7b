"""Constraint rows: limits of joints and contacts, in MJX's order.

MJX makes them row by row and gathers Jacobians of bodies for each. Here one degree of
freedom after the other is treated for all rows at once, so nothing is gathered.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.envs.engines.tree import Model


class Rows(struct.PyTreeNode):
    """R constraint rows.

    Attributes:
      jacobian: `[nv, R]` J, transposed; zero in rows that do not act.
      stiffness: `[R]` D.
      damping: `[R]` and
      pull: `[R]` make the acceleration that would satisfy a row softly:
        -damping J qvel - pull.
    """

    jacobian: Array
    stiffness: Array
    damping: Array
    pull: Array


class _Kind(struct.PyTreeNode):
    """Rows before their reference is known; all have the rows `[..., R]` last.

    Attributes:
      jacobian: `[nv, R]`.
      position: `[R]` distance from where the row begins to act, m or rad.
      invweight: `[R]` inverse inertia that it meets.
      solref: `[2, R]` MuJoCo's time constant and damping ratio.
      solimp: `[5, R]` MuJoCo's impedance.
    """

    jacobian: Array
    position: Array
    invweight: Array
    solref: Array
    solimp: Array


def handles(model: mujoco.MjModel) -> bool:
    """Returns whether a model has no other constraints than those here."""
    hinges = np.isin(
        model.jnt_type, (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)
    )
    return (
        model.neq == 0
        and model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
        and not model.dof_frictionloss.any()
        and not model.tendon_frictionloss.any()
        and not model.tendon_limited.any()
        and bool(hinges[model.jnt_limited > 0].all())
        and bool(np.isin(model.geom_condim, (1, 3)).all())
        and bool(np.isin(model.pair_dim, (1, 3)).all())
    )


def rows(model: Model, data: Any) -> Rows:
    """Makes the constraint rows of a state whose places and contacts are known."""
    kinds = [_limits(model, data.qpos)] if model.host.jnt_limited.any() else []
    contact = data._impl.contact
    for dim in np.unique(contact.dim):
        some = np.nonzero(contact.dim == dim)[0]
        chosen = jax.tree.map(lambda x, some=some: x[some], contact)
        kinds.append(_contacts(model, data, chosen, dim))
    kind = jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *kinds)
    stiff, damp, impedance = _spring(model.host.opt.timestep, kind)
    resistance = kind.invweight * (1 - impedance) / impedance
    acting = kind.position < 0
    return Rows(
        jacobian=jnp.where(acting, kind.jacobian, 0),
        stiffness=1 / jnp.maximum(resistance, mujoco.mjMINVAL),
        damping=damp,
        pull=stiff * impedance * jnp.where(acting, kind.position, 0),
    )


def _limits(model: Model, qpos: Array) -> _Kind:
    """Makes a row for each joint with a limit, about the nearer end."""
    host = model.host
    limited = np.nonzero(host.jnt_limited)[0]
    place = qpos[host.jnt_qposadr[limited]]
    below = place - host.jnt_range[limited, 0]
    above = host.jnt_range[limited, 1] - place
    sign = jnp.where(below < above, 1.0, -1.0)
    dofs = host.jnt_dofadr[limited]
    return _Kind(
        jacobian=jnp.where(dofs == np.arange(host.nv)[:, None], sign, 0),
        position=jnp.minimum(below, above) - host.jnt_margin[limited],
        invweight=jnp.asarray(host.dof_invweight0[dofs], jnp.float32),
        solref=jnp.asarray(host.jnt_solref[limited].T, jnp.float32),
        solimp=jnp.asarray(host.jnt_solimp[limited].T, jnp.float32),
    )


def _contacts(model: Model, data: Any, contact: Any, dim: int) -> _Kind:
    """Makes the rows of contacts without friction or of pyramids with four edges."""
    host = model.host
    moves = np.zeros((host.ngeom, host.nv), np.float32)
    for geom, body in enumerate(host.geom_bodyid):
        moves[geom, model.above(body)] = 1
    first, second = contact.geom1, contact.geom2
    apart = jnp.asarray(moves)[second] - jnp.asarray(moves)[first]
    weight = jnp.asarray(host.body_invweight0[host.geom_bodyid, 0], jnp.float32)
    invweight = weight[first] + weight[second]
    friction = contact.friction[:, :2].T
    if dim > 1:
        square = friction[0] * friction[0]
        invweight = invweight * (1 + square) * 2 * square / host.opt.impratio
    jacobian = []
    for i, body in enumerate(host.dof_bodyid):
        centre = data.subtree_com[host.body_rootid[body]]
        way = _velocity(contact.pos.T, centre, data.cdof[i])
        normal, *tangents = (
            apart[:, i] * sum(a * b for a, b in zip(contact.frame[:, k].T, way))
            for k in range(dim)
        )
        edges = [
            normal + sign * slip * tangent
            for slip, tangent in zip(friction, tangents)
            for sign in (1, -1)
        ]
        jacobian.append(jnp.stack(edges or [normal], axis=1).reshape(-1))
    edges = max(1, 2 * (dim - 1))
    return _Kind(
        jacobian=jnp.stack(jacobian),
        position=jnp.repeat(contact.dist - contact.includemargin, edges),
        invweight=jnp.repeat(invweight, edges),
        solref=jnp.repeat(contact.solref.T, edges, axis=1),
        solimp=jnp.repeat(contact.solimp.T, edges, axis=1),
    )


def _velocity(points: Array, centre: Array, axis: Array) -> list[Array]:
    """Returns how points `[3, C]` move along an axis of motion: three `[C]`."""
    arm = [points[k] - centre[k] for k in range(3)]
    return [
        axis[3 + k] + axis[i] * arm[j] - axis[j] * arm[i]
        for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1)))
    ]


def _spring(timestep: float, kind: _Kind) -> tuple[Array, Array, Array]:
    """Returns stiffness, damping and impedance of rows (mj_makeImpedance)."""
    constant, ratio = kind.solref
    low, high, width, middle, power = kind.solimp
    low, high, middle = (
        jnp.clip(x, mujoco.mjMINIMP, mujoco.mjMAXIMP) for x in (low, high, middle)
    )
    power = jnp.maximum(1, power)
    safe = high * jnp.maximum(constant, 2 * timestep)
    stiff = 1 / jnp.square(safe * ratio)
    stiff = jnp.where(constant <= 0, -constant / (high * high), stiff)
    damp = jnp.where(ratio <= 0, -ratio / high, 2 / safe)
    depth = jnp.abs(kind.position) / jnp.maximum(mujoco.mjMINVAL, width)
    near = depth**power / middle ** (power - 1)
    far = 1 - (1 - depth) ** power / (1 - middle) ** (power - 1)
    share = jnp.where(depth < middle, near, far)
    impedance = jnp.clip(low + share * (high - low), low, high)
    return stiff, damp, jnp.where(depth > 1, high, impedance)
