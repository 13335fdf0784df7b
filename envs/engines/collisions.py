"""The contacts that matter, where MJX would give the solver many more.

MJX ignores the flag `multiccd`: it finds up to four points where a mesh meets a box or
another mesh. C MuJoCo finds the deepest alone if the flag is off, and four in its place
push a hand that presses a button 8 mm too far. MJX also keeps a row for each point of
each pair that might touch. Few do at a time, so the solver is given the deepest.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import io
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import Array

from cemrl_jax.envs.engines import cones

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco.mjx._src import collision_driver

MOST = 64
"""Contacts with as many rows each that the solver is given, at most. In recorded steps
of Meta-World's tasks the pairs that touch have up to 61 points."""
ROWS = (
    *("efc_J", "efc_D", "efc_aref", "efc_pos", "efc_margin"),
    *("efc_frictionloss", "efc_force", "efc_type"),
)
"""Fields of MJX's data that have an entry for each constraint row."""


class _Pairs(NamedTuple):
    """Pairs of geoms that MJX treats alike.

    Attributes:
      points: `[P, points]` the places of their contacts among MJX's.
      one: of the points of a pair only the deepest counts.
    """

    points: np.ndarray
    one: bool

    @property
    def num_contacts(self) -> int:
        return len(self.points) if self.one else self.points.size

    def places(self, dist: Array) -> Array | np.ndarray:
        """Returns the places of those that count, given the distances of all."""
        if not self.one:
            return self.points.reshape(-1)
        return self.points[:, 0] + jnp.argmin(dist[self.points], axis=1)


def handles(model: Any) -> bool:
    """Returns whether an MJX model has elliptic cones and the flag `multiccd` off."""
    flag = mujoco.mjtDisableBit.mjDSBL_MULTICCD
    return bool(model.opt.disableflags & flag) and cones.handles(model)


def fit(model: Any, data: Any) -> Any:
    """Returns MJX's data with room for the contacts that `collide` leaves."""
    made = data._impl
    counts = {
        dim: min(MOST, sum(pairs.num_contacts for pairs in kinds))
        for dim, kinds in _by_rows(model).items()
    }
    dim = np.repeat(list(counts), list(counts.values()))
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
    found = collision_driver.collision(model, data)._impl.contact
    kept = []
    for kinds in _by_rows(model).values():
        places = jnp.concatenate([pairs.places(found.dist) for pairs in kinds])
        if len(places) > MOST:
            depth = found.includemargin[places] - found.dist[places]
            places = places[jax.lax.top_k(depth, MOST)[1]]
        kept.append(places)
    places = jnp.concatenate(kept)
    contact = jax.tree.map(lambda x: x[places], found)
    return data.tree_replace({"_impl.contact": contact})


def _by_rows(model: Any) -> dict[int, list[_Pairs]]:
    """Returns what there is with each number of rows of a contact, in MJX's order."""
    box, mesh = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_MESH)
    groups = collision_driver._geom_groups(model)
    functions: dict[Any, Any] = collision_driver._COLLISION_FUNC
    first, found = 0, {}
    for key in sorted(groups, key=lambda key: key.condim):
        shape = (len(groups[key]), functions[key.types].ncon)
        points = first + np.arange(np.prod(shape)).reshape(shape)
        first += points.size
        one = key.types[0] in (box, mesh) and key.types[1] == mesh
        found.setdefault(int(key.condim), []).append(_Pairs(points, bool(one)))
    return found
