"""The contacts that matter, where MJX would find many more and take its time.

MJX ignores the flag `multiccd`: it finds up to four points where a mesh meets a box or
another mesh. C MuJoCo finds the deepest alone if the flag is off, and four in its place
push a hand that presses a button 8 mm too far. So `hulls` finds that one. MJX also
looks for points of each pair that might touch, and keeps rows for them. Few do at a
time: of boxes only the nearest pairs are looked at, and the solver is given the deepest
points.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import Array

from cemrl_jax.envs.engines import cones, hulls

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco.mjx._src import collision_driver, collision_types, math, mesh

MOST = 64
"""Contacts with as many rows each that the solver is given, at most. In recorded steps
of Meta-World's tasks the pairs that touch have up to 61 points."""
NEAREST = 20
"""Pairs of boxes that are looked at, of each group that MJX makes. In recorded steps of
Meta-World's tasks up to 15 are near enough to touch, of up to 66."""
ROWS = (
    *("efc_J", "efc_D", "efc_aref", "efc_pos", "efc_margin"),
    *("efc_frictionloss", "efc_force", "efc_type"),
)
"""Fields of MJX's data that have an entry for each constraint row."""
BOX, MESH = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_MESH)
_Found = tuple[Array, Array, Array]
"""Distances `[N]`, places `[N, 3]` and frames `[N, 3, 3]` of contacts."""
_FUNCTIONS: dict[Any, Any] = collision_driver._COLLISION_FUNC


def handles(model: Any) -> bool:
    """Returns whether an MJX model has elliptic cones and the flag `multiccd` off."""
    flag = mujoco.mjtDisableBit.mjDSBL_MULTICCD
    return bool(model.opt.disableflags & flag) and cones.handles(model)


def fit(model: Any, data: Any) -> Any:
    """Returns MJX's data with room for the contacts that `collide` leaves."""
    made, counts = data._impl, {}
    for key, pairs in collision_driver._geom_groups(model).items():
        num_points = 1 if _of_hulls(key) else _FUNCTIONS[key.types].ncon
        num_pairs = min(NEAREST, len(pairs)) if _of_boxes(key) else len(pairs)
        condim = int(key.condim)
        counts[condim] = counts.get(condim, 0) + num_pairs * num_points
    dims = sorted(counts)
    dim = np.repeat(dims, [min(MOST, counts[condim]) for condim in dims])
    num_plain = made.nefc - int(made.contact.dim.sum())
    num_rows = num_plain + int(dim.sum())
    contact = jax.tree.map(lambda x: x[: len(dim)], made.contact)
    contact = contact.replace(dim=dim, efc_address=num_plain + np.cumsum(dim) - dim)
    rows = {name: getattr(made, name)[:num_rows] for name in ROWS}
    made = made.replace(contact=contact, ncon=len(dim), nefc=num_rows, **rows)
    return data.replace(_impl=made)


def collide(model: Any, data: Any) -> Any:
    """Finds contacts as `mjx.collision` does, and keeps those that count.

    Args:
      model: of MJX.
      data: as `fit` made it.
    """
    groups = collision_driver._contact_groups(model, data)
    met = _meet(model, data, groups)
    by_rows: dict[int, list[Any]] = {}
    for key, contact in groups.items():
        if key in met:
            dist, pos, frame = met[key]
        else:
            find = _FUNCTIONS[key.types]
            if _of_boxes(key) and len(contact.geom) > NEAREST:
                near = contact.includemargin - _apart(model, data, contact.geom)
                contact = _largest(contact, near, NEAREST)
            dist, pos, frame = find(model, data, key, contact.geom)
            repeat = functools.partial(jnp.repeat, repeats=find.ncon, axis=0)
            contact = jax.tree.map(repeat, contact)
        contact = contact.replace(dist=dist, pos=pos, frame=frame)
        by_rows.setdefault(int(key.condim), []).append(contact)
    kept = [_joined(by_rows[condim]) for condim in sorted(by_rows)]
    kept = [_largest(x, x.includemargin - x.dist, MOST) for x in kept]
    return data.tree_replace({"_impl.contact": _joined(kept)})


def _joined(contacts: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *contacts)


def _largest(contact: Any, values: Array, number: int) -> Any:
    """Returns the contacts whose values `[N]` are largest, as many as a number."""
    if len(values) <= number:
        return contact
    places = jax.lax.top_k(values, number)[1]
    return jax.tree.map(lambda x: jnp.asarray(x)[places], contact)


# ---------------------------------------------------------------- boxes


def _of_boxes(key: Any) -> bool:
    return tuple(key.types) == (BOX, BOX)


def _apart(model: Any, data: Any, geom: Array) -> Array:
    """Returns how far boxes are apart at least, by the axes of their faces, `[P]`."""
    pos, mat, size = (
        x[geom] for x in (data.geom_xpos, data.geom_xmat, model.geom_size)
    )
    first, second = size[:, 0], size[:, 1]
    way = (pos[:, 1] - pos[:, 0])[:, None]
    turned = jnp.abs(jnp.matrix_transpose(mat[:, 0]) @ mat[:, 1])
    own, other = jnp.abs(way @ mat[:, 0])[:, 0], jnp.abs(way @ mat[:, 1])[:, 0]
    own = own - first - (turned * second[:, None]).sum(-1)
    other = other - second - (turned * first[:, :, None]).sum(-2)
    return jnp.maximum(own, other).max(-1)


# ---------------------------------------------------------------- hulls


def _of_hulls(key: Any) -> bool:
    return key.types[0] in (BOX, MESH) and key.types[1] == MESH


def _meet(model: Any, data: Any, groups: dict[Any, Any]) -> dict[Any, _Found]:
    """Finds where hulls meet; those of as many vertices and edges all at once."""
    alike: dict[Any, list[Any]] = {}
    for key, contact in groups.items():
        if _of_hulls(key):
            pair = [_hulls(model, key, contact.geom, side) for side in (0, 1)]
            shapes = tuple(leaf.shape[1:] for leaf in jax.tree.leaves(pair))
            alike.setdefault(shapes, []).append((key, contact.geom, pair))
    found = {}
    for same in alike.values():
        keys, geoms, pairs = zip(*same)
        geom, (first, second) = jnp.concatenate(geoms), _joined(list(pairs))
        (pos, other), (mat, turn) = (
            (x[geom[:, 0]], x[geom[:, 1]]) for x in (data.geom_xpos, data.geom_xmat)
        )
        first = jax.vmap(hulls.Hull.moved)(first, pos - other, mat)
        second = jax.vmap(hulls.Hull.moved)(second, jnp.zeros_like(other), turn)
        met = jax.vmap(hulls.meet)(first, second)
        frame = jax.vmap(math.make_frame)(met.normal)
        ends = np.cumsum([len(geom) for geom in geoms])[:-1]
        parts = [jnp.split(x, ends) for x in (met.dist, met.pos + other, frame)]
        found |= dict(zip(keys, zip(*parts)))
    return found


def _hulls(model: Any, key: Any, geom: Array, side: int) -> hulls.Hull:
    """Returns the shapes `[P, ...]` of the pairs' first or second geoms."""
    if key.types[side] == BOX:
        size = model.geom_size[geom[:, side]]
        shape = mesh.box(collision_types.GeomInfo(None, None, size))
    else:
        shape = model._impl.mesh_convex[key.data_ids[side]]
    many = lambda x, rank: jnp.broadcast_to(x, (len(geom), *x.shape[-rank:]))  # noqa: E731
    vertices = many(shape.vert, 2)
    return hulls.Hull(
        centre=jnp.zeros((len(geom), 3)),
        vertices=vertices,
        corners=many(shape.face, 3),
        normals=many(shape.face_normal, 2),
        edges=vertices[:, shape.edge],
        beside=many(shape.edge_face_normal, 3),
    )
