"""The motion of a tree of bodies: every number an array of its own.

MJX loops over levels of the tree and gathers and scatters rows in between, each a
kernel or two. Written out body by body on scalars there is nothing to gather: XLA fuses
all of it, vectorised over environments. Entries that the model fixes at zero or one
(most of the axes of a planar robot) are Python numbers and cost nothing.

Formulas, frames and names are MuJoCo's (documentation, "Computation"): spatial vectors
are six numbers, rotation first, about the centre of mass of the whole tree.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import dataclasses
from typing import Any

import mujoco
import numpy as np
from jax import Array

from cemrl_jax.envs.engines import scalars
from cemrl_jax.envs.engines.scalars import Matrix, Scalar, Vector

_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)
_AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_NOTHING: Vector = (0.0,) * 6


def handles(model: mujoco.MjModel) -> bool:
    """Returns whether a model is a tree of slides and hinges, as planar robots are.

    Free bodies have no constant axes. Written out, the ant's program is five times as
    long, and XLA for CPUs, which computes a value again for each of its readers, takes
    minutes to compile it.
    """
    return (
        bool(np.isin(model.jnt_type, (_SLIDE, _HINGE)).all())
        and model.nmocap == 0
        and bool((model.body_mass[1:] > 0).all())
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """A model whose fields may have been changed.

    Attributes:
      host: the model.
      overrides: arrays that take the place of its fields, by name.
    """

    host: mujoco.MjModel
    overrides: dict[str, Array]

    def __getitem__(self, name: str) -> Any:
        """Returns the entries of a field in nested tuples."""
        return scalars.unpack(self.overrides.get(name, getattr(self.host, name)))

    def joints(self, body: int) -> range:
        """Returns the joints of a body."""
        first = self.host.body_jntadr[body]
        return range(first, first + self.host.body_jntnum[body])

    def dofs(self, body: int) -> range:
        """Returns the degrees of freedom of a body."""
        first = self.host.body_dofadr[body]
        return range(first, first + self.host.body_dofnum[body])

    def above(self, body: int) -> list[int]:
        """Returns the degrees of freedom that move a body."""
        found: list[int] = []
        while body:
            found = [*self.dofs(body), *found]
            body = self.host.body_parentid[body]
        return found


@dataclasses.dataclass(frozen=True)
class Places:
    """Where everything is; lists by body, joint or degree of freedom.

    Attributes:
      xpos: bodies, m.
      xmat: their rotations.
      xipos: their centres of mass, m.
      subtree_com: centres of mass of the bodies with all that hangs on them, m.
      cinert: inertias about the tree's centre of mass: xx, yy, zz, xy, xz, yz, mass
        times offset, mass.
      cdof: axes of motion `[6]`.
    """

    xpos: list[Vector]
    xmat: list[Matrix]
    xipos: list[Vector]
    subtree_com: list[Vector]
    cinert: list[Vector]
    cdof: list[Vector]


def fields(model: Model, qpos: Array, qvel: Array) -> dict[str, Array]:
    """Computes what depends on the state alone.

    Args:
      model: the model.
      qpos: `[nq]` positions.
      qvel: `[nv]` velocities.

    Returns:
      Arrays by their names in `mjx.Data`.
    """
    at = _places(model, scalars.unpack(qpos))
    rates = scalars.unpack(qvel)
    cvel, cdof_dot = _velocities(model, at, rates)
    found = {
        **vars(at),
        "cvel": cvel,
        "qfrc_bias": _bias(model, at, rates, cvel, cdof_dot),
        "M": _inertia_matrix(model, at),
        **_geoms(model, at),
    }
    own = {"cinert": "_impl.cinert", "M": "_impl.M"}  # of MJX's back end
    return {own.get(name, name): scalars.pack(x) for name, x in found.items()}


def _geoms(model: Model, at: Places) -> dict[str, list[Any]]:
    """Returns positions and rotations of geoms."""
    bodies = model.host.geom_bodyid
    pos, quat = model["geom_pos"], model["geom_quat"]
    return {
        "geom_xpos": [
            _place(at.xpos[b], at.xmat[b], pos[i]) for i, b in enumerate(bodies)
        ],
        "geom_xmat": [
            scalars.multiply(at.xmat[b], scalars.rotation(quat[i]))
            for i, b in enumerate(bodies)
        ],
    }


def _places(model: Model, qpos: Vector) -> Places:
    """Computes where everything is."""
    xpos, xmat, anchors, axes = _kinematics(model, qpos)
    bodies = range(model.host.nbody)
    inner_pos, inner_quat = model["body_ipos"], model["body_iquat"]
    xipos = [_place(xpos[i], xmat[i], inner_pos[i]) for i in bodies]
    ximat = [scalars.multiply(xmat[i], scalars.rotation(inner_quat[i])) for i in bodies]
    centres = _centres(model, xipos)
    roots = [centres[model.host.body_rootid[i]] for i in bodies]
    mass, inertia = model["body_mass"], model["body_inertia"]
    cinert = [
        _inertia(mass[i], inertia[i], ximat[i], scalars.subtract(xipos[i], roots[i]))
        for i in bodies
    ]
    cdof: list[Vector] = []
    for i in bodies:
        for joint in model.joints(i):
            offset = scalars.subtract(roots[i], anchors[joint])
            if model.host.jnt_type[joint] == _SLIDE:
                cdof.append((0.0, 0.0, 0.0, *axes[joint]))
            else:
                lever = scalars.cross(axes[joint], offset)
                cdof.append((*axes[joint], *lever))
    return Places(xpos, xmat, xipos, centres, cinert, cdof)


def _place(position: Vector, rotation: Matrix, inner: Vector) -> Vector:
    return scalars.add(position, scalars.apply(rotation, inner))


def _kinematics(
    model: Model, qpos: Vector
) -> tuple[list[Vector], list[Matrix], list[Vector], list[Vector]]:
    """Returns positions and rotations of bodies, anchors and axes of joints."""
    local_pos, local_quat = model["body_pos"], model["body_quat"]
    joint_pos, joint_axis, qpos0 = model["jnt_pos"], model["jnt_axis"], model["qpos0"]
    xpos: list[Vector] = [(0.0, 0.0, 0.0)]
    xmat: list[Matrix] = [_AXES]
    anchors: list[Vector] = []
    axes: list[Vector] = []
    for body in range(1, model.host.nbody):
        parent = model.host.body_parentid[body]
        pos = _place(xpos[parent], xmat[parent], local_pos[body])
        mat = scalars.multiply(xmat[parent], scalars.rotation(local_quat[body]))
        for joint in model.joints(body):
            kind, first = model.host.jnt_type[joint], model.host.jnt_qposadr[joint]
            moved = scalars.minus(qpos[first], qpos0[first])
            axis = scalars.apply(mat, joint_axis[joint])
            anchor = _place(pos, mat, joint_pos[joint])
            if kind == _SLIDE:
                pos = scalars.add(pos, scalars.scale(axis, moved))
            else:
                mat = scalars.multiply(mat, scalars.turn(joint_axis[joint], moved))
                arm = scalars.apply(mat, joint_pos[joint])
                pos = scalars.subtract(anchor, arm)
            anchors.append(anchor)
            axes.append(axis)
        xpos.append(pos)
        xmat.append(mat)
    return xpos, xmat, anchors, axes


def _centres(model: Model, xipos: list[Vector]) -> list[Vector]:
    """Returns the centres of mass of the bodies' subtrees."""
    mass = list(model["body_mass"])
    moment = [scalars.scale(p, m) for p, m in zip(xipos, mass)]
    for body in range(model.host.nbody - 1, 0, -1):
        parent = model.host.body_parentid[body]
        moment[parent] = scalars.add(moment[parent], moment[body])
        mass[parent] = scalars.plus(mass[parent], mass[body])
    return [scalars.scale(p, 1 / m) for p, m in zip(moment, mass)]


def _inertia(mass: Scalar, inertia: Vector, axes: Matrix, offset: Vector) -> Vector:
    """Returns an inertia along its own axes as seen from `-offset` away `[10]`."""
    weighted = tuple(
        tuple(scalars.times(a, b) for a, b in zip(row, inertia)) for row in axes
    )
    moment = scalars.scale(offset, mass)
    square = scalars.dot(offset, moment)
    entries = []
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        entry = scalars.minus(
            scalars.dot(weighted[i], axes[j]), scalars.times(offset[i], moment[j])
        )
        entries.append(scalars.plus(entry, square) if i == j else entry)
    return (*entries, *moment, mass)


def _inertia_matrix(model: Model, at: Places) -> list[list[Scalar]]:
    """Returns the inertia of all degrees of freedom `[nv][nv]` (composite bodies)."""
    composite = list(at.cinert)
    for body in range(model.host.nbody - 1, 0, -1):
        parent = model.host.body_parentid[body]
        composite[parent] = scalars.add(composite[parent], composite[body])
    armature = model["dof_armature"]
    size = model.host.nv
    matrix: list[list[Scalar]] = [[0.0] * size for _ in range(size)]
    for i in range(size):
        body = model.host.dof_bodyid[i]
        momentum = _momentum(composite[body], at.cdof[i])
        for j in model.above(body):
            if j <= i:
                matrix[i][j] = matrix[j][i] = scalars.dot(at.cdof[j], momentum)
        matrix[i][i] = scalars.plus(matrix[i][i], armature[i])
    return matrix


def _velocities(
    model: Model, at: Places, qvel: Vector
) -> tuple[list[Vector], list[Vector]]:
    """Returns velocities of bodies (cvel) and of axes of motion (cdof_dot) `[6]`."""
    cvel: list[Vector] = [_NOTHING]
    cdof_dot: list[Vector] = []
    for body in range(1, model.host.nbody):
        velocity = cvel[model.host.body_parentid[body]]
        for dof in model.dofs(body):
            cdof_dot.append(_cross_motion(velocity, at.cdof[dof]))
            velocity = _plus_motion(velocity, at.cdof[dof], qvel[dof])
        cvel.append(velocity)
    return cvel, cdof_dot


def _bias(
    model: Model,
    at: Places,
    qvel: Vector,
    cvel: list[Vector],
    cdof_dot: list[Vector],
) -> list[Scalar]:
    """Returns gravity's and velocities' forces on the degrees of freedom `[nv]`."""
    gravity = scalars.unpack(-model.host.opt.gravity)
    acceleration: list[Vector] = [(0.0, 0.0, 0.0, *gravity)]
    force: list[Vector] = [_NOTHING]
    for body in range(1, model.host.nbody):
        rate = acceleration[model.host.body_parentid[body]]
        for dof in model.dofs(body):
            rate = _plus_motion(rate, cdof_dot[dof], qvel[dof])
        acceleration.append(rate)
        momentum = _momentum(at.cinert[body], cvel[body])
        force.append(
            scalars.add(
                _momentum(at.cinert[body], rate), _cross_force(cvel[body], momentum)
            )
        )
    for body in range(model.host.nbody - 1, 0, -1):
        parent = model.host.body_parentid[body]
        force[parent] = scalars.add(force[parent], force[body])
    bodies = model.host.dof_bodyid
    return [scalars.dot(at.cdof[i], force[bodies[i]]) for i in range(model.host.nv)]


def _plus_motion(velocity: Vector, axis: Vector, rate: Scalar) -> Vector:
    return scalars.add(velocity, scalars.scale(axis, rate))


def _momentum(inertia: Vector, motion: Vector) -> Vector:
    """Returns an inertia `[10]` times a motion `[6]`."""
    xx, yy, zz, xy, xz, yz, *moment, mass = inertia
    turn, way = motion[:3], motion[3:]
    matrix = ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))
    moment = tuple(moment)
    return (
        *scalars.add(scalars.apply(matrix, turn), scalars.cross(moment, way)),
        *scalars.subtract(scalars.scale(way, mass), scalars.cross(moment, turn)),
    )


def _cross_motion(u: Vector, v: Vector) -> Vector:
    """Returns how a motion `v` changes as its frame moves with `u`."""
    way = scalars.add(scalars.cross(u[3:], v[:3]), scalars.cross(u[:3], v[3:]))
    return (*scalars.cross(u[:3], v[:3]), *way)


def _cross_force(v: Vector, force: Vector) -> Vector:
    """Returns how a force changes as its frame moves with `v`."""
    turn = scalars.add(scalars.cross(v[:3], force[:3]), scalars.cross(v[3:], force[3:]))
    return (*turn, *scalars.cross(v[:3], force[3:]))
