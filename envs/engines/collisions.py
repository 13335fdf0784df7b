"""One contact for a mesh and what it meets, where the model asks for it.

MJX finds up to four points where a mesh meets a box or another mesh. C MuJoCo finds
the deepest, unless it may look for several; with the flag that forbids it
(`multiccd`), four in their place push a hand that presses a button 8 mm too far.
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

from cemrl_jax.envs.engines import cones

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco.mjx._src import collision_driver

ROWS = (
    *("efc_J", "efc_D", "efc_aref", "efc_pos", "efc_margin"),
    *("efc_frictionloss", "efc_force", "efc_type"),
)
"""Fields of MJX's data that have an entry for each constraint row."""


def handles(model: Any) -> bool:
    """Returns whether an MJX model allows one contact of a mesh and a box or mesh."""
    flag = mujoco.mjtDisableBit.mjDSBL_MULTICCD
    if not model.opt.disableflags & flag or not cones.handles(model):
        return False
    return any(one for one, _ in _pairs(model))


def fit(model: Any, data: Any) -> Any:
    """Returns MJX's data with room for the contacts that `collide` leaves."""
    made = data._impl
    kept = [x[:, 0] if one else x.reshape(-1) for one, x in _pairs(model)]
    kept = np.concatenate(kept)
    dim = made.contact.dim[kept]
    num_plain = made.nefc - int(made.contact.dim.sum())
    num_rows = num_plain + int(dim.sum())
    contact = jax.tree.map(lambda x: x[kept], made.contact)
    contact = contact.replace(dim=dim, efc_address=num_plain + np.cumsum(dim) - dim)
    rows = {name: getattr(made, name)[:num_rows] for name in ROWS}
    made = made.replace(contact=contact, ncon=len(kept), nefc=num_rows, **rows)
    return data.replace(_impl=made)


def collide(model: Any, data: Any) -> Any:
    """Finds contacts as `mjx.collision` does, and keeps the deepest where one counts.

    Args:
      model: of MJX.
      data: as `fit` made it.
    """
    found = collision_driver.collision(model, data)._impl.contact
    kept = [
        points[:, 0] + jnp.argmin(found.dist[points], 1) if one else points.reshape(-1)
        for one, points in _pairs(model)
    ]
    places = jnp.concatenate(kept)
    contact = jax.tree.map(lambda x: x[places], found)
    return data.tree_replace({"_impl.contact": contact})


def _pairs(model: Any) -> Iterator[tuple[bool, np.ndarray]]:
    """Yields, for each kind of pair, if one contact counts, and contacts `[P, points]`.

    Contacts lie by their number of rows, then by kind of pair.
    """
    box, mesh = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_MESH)
    groups = collision_driver._geom_groups(model)
    functions: dict[Any, Any] = collision_driver._COLLISION_FUNC
    first = 0
    for key in sorted(groups, key=lambda key: key.condim):
        shape = (len(groups[key]), functions[key.types].ncon)
        points = first + np.arange(np.prod(shape)).reshape(shape)
        first += points.size
        yield key.types[0] in (box, mesh) and key.types[1] == mesh, points
