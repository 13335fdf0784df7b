"""The constraint solver's problem where contacts have elliptic friction cones.

MJX writes the Hessian of each contact into a square matrix of all rows, one after the
other. Here a contact's rows are apart, all normals in one vector and all tangents of a
kind in another, and what the Hessian does to them is written out.
"""

# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.envs.engines import newton


class Problem(newton.Problem):
    """What the solver minimises; the R rows are plain ones, then C contacts' by kind.

    With N a contact's normal residual times mu, and T the length of its tangents' (of
    which rotations are some) times their friction coefficients: it has no force where
    N >= mu T, is stiff in all rows where mu N <= -T, and costs in between
    1/2 D / (mu^2 (1 + mu^2)) (N - mu T)^2 (MuJoCo's documentation, "Computation").

    Attributes:
      friction: for each number of rows of a contact, `[rows, C]`: mu, then the
        coefficients of the tangents.
      both_sides: plain rows at the front that pull and push; the others push.
    """

    friction: tuple[Array, ...]
    both_sides: int = struct.field(pytree_node=False)

    def weigh(self, residual: Array, columns: Array) -> Array:
        """See `newton.Problem.weigh`."""
        num_plain = len(self.stiffness) - sum(f.size for f in self.friction)
        active = residual[:num_plain] < 0
        active = active | (np.arange(num_plain) < self.both_sides)
        plain = jnp.where(active, self.stiffness[:num_plain], 0)
        found = [plain * columns[..., :num_plain]]
        first = num_plain
        for friction in self.friction:
            rows, first = slice(first, first + friction.size), first + friction.size
            parts = (self.stiffness, residual, columns)
            apart = [
                x[..., rows].reshape(*x.shape[:-1], *friction.shape) for x in parts
            ]
            weighed = _weigh_contacts(friction, *apart)
            found.append(weighed.reshape(*columns.shape[:-1], friction.size))
        return jnp.concatenate(found, -1)


def _weigh_contacts(
    friction: Array, stiffness: Array, residual: Array, columns: Array
) -> Array:
    """Returns what contacts, all `[rows, C]`, do to columns `[..., rows, C]`."""
    mu = friction[0]
    normal, tangents = mu * residual[0], friction[1:] * residual[1:]
    slip = jnp.sqrt(jnp.square(tangents).sum(0))
    slides = (slip > 0) & (normal < mu * slip) & (mu * normal + slip > 0)
    sticks = (mu * normal + slip <= 0) & ((slip > 0) | (normal < 0))
    way = tangents / jnp.where(slides, slip, 1)
    pressed = jnp.where(slides, mu * normal / jnp.where(slides, slip, 1), 0)
    scaled = friction * columns
    along = (way * scaled[..., 1:, :]).sum(-2)
    on_normal = scaled[..., 0, :] - mu * along
    on_tangents = (
        way * (pressed * along - mu * scaled[..., 0, :])[..., None, :]
        + (mu * mu - pressed) * scaled[..., 1:, :]
    )
    cone = friction * jnp.concatenate([on_normal[..., None, :], on_tangents], -2)
    square = jnp.maximum(mu * mu * (1 + mu * mu), mujoco.mjMINVAL)
    cone = jnp.where(slides, stiffness[0] / square, 0) * cone
    return cone + jnp.where(sticks, stiffness, 0) * columns


def handles(model: Any) -> bool:
    """Returns whether an MJX model has elliptic cones and no friction in joints."""
    return (
        model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        and not model._impl.dof_hasfrictionloss.any()
        and not model._impl.tendon_hasfrictionloss.any()
    )


def solve(model: Any, data: Any) -> Any:
    """Computes accelerations and constraint forces, as `mjx.solve` does."""
    free, warm, options = data.qacc_smooth, data.qacc_warmstart, model.opt
    problem, order = make_problem(data._impl, options.impratio)
    jacobian = problem.jacobian
    residuals = jnp.stack([free, warm]) @ jacobian - data._impl.efc_aref[order]
    starts = problem.starts(warm - free, residuals)
    x, forces = newton.solve(problem, starts, options.iterations, options.ls_iterations)
    return data.tree_replace(
        {
            "qacc": free + x,
            "qfrc_constraint": jacobian @ forces,
            "_impl.efc_force": forces[np.argsort(order)],
        }
    )


def make_problem(made: Any, impratio: Array | float) -> tuple[Problem, np.ndarray]:
    """Puts rows in the problem's order.

    Args:
      made: M and the constraint rows, under MuJoCo's names (M, ne, nl, efc_J, efc_D,
        contact); plain rows come first.
      impratio: MuJoCo's ratio of friction's and normals' impedance.

    Returns:
      The problem and the place `[R]` in `made` of each of its rows.
    """
    order = np.concatenate([np.arange(_num_plain(made)), *_rows(made.contact)])
    problem = Problem(
        inertia=made.M,
        jacobian=made.efc_J.T[:, order],
        stiffness=made.efc_D[order],
        friction=tuple(_friction(made.contact, impratio)),
        both_sides=made.ne,
    )
    return problem, order


def _num_plain(made: Any) -> int:
    """Returns how many rows are those of no cone; they come first."""
    return made.ne + made.nl + int((made.contact.dim == 1).sum())


def _groups(contact: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each number of rows above one, with the contacts that have it."""
    for dim in np.unique(contact.dim[contact.dim > 1]):
        yield int(dim), np.nonzero(contact.dim == dim)[0]


def _rows(contact: Any) -> list[np.ndarray]:
    """Returns the rows of each group of contacts, by kind."""
    address = np.asarray(contact.efc_address)
    return [
        (address[some] + np.arange(dim)[:, None]).reshape(-1)
        for dim, some in _groups(contact)
    ]


def _friction(contact: Any, impratio: Array | float) -> Iterator[Array]:
    """Yields each group's mu and friction coefficients, see `Problem`."""
    for dim, some in _groups(contact):
        tangents = contact.friction[some, : dim - 1].T
        yield jnp.concatenate([tangents[:1] / jnp.sqrt(impratio), tangents])
