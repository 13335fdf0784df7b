"""Where two convex polyhedra meet: their deepest point, as C MuJoCo finds it.

The axis along which they overlap least is the normal of a face, or stands on an edge of
each (the separating axis theorem; of edges those count whose arcs on the sphere of
normals cross: Gregorius, "The separating axis test between convex polyhedra", GDC
2013). MJX looks for it likewise, and then for up to four points between two faces,
whose depths need not be that of the axis. Here coordinates of pairs of edges are arrays
of their own, which a CPU adds up many at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PARALLEL = 1e-3
"""Sine of the angle below which two edges have no normal in common."""
TIE = 1e-6
"""What an axis on two edges must be better by than the normal of a face, m."""


class Hull(NamedTuple):
    """A convex polyhedron with V vertices, F faces of up to K corners and E edges.

    Attributes:
      centre: `[3]` a point inside.
      vertices: `[V, 3]`.
      corners: `[F, K, 3]` of the faces, counterclockwise as seen from outside; where
        there are fewer the last one again.
      normals: `[F, 3]` of the faces, to the outside.
      edges: `[E, 2, 3]` their ends.
      beside: `[E, 2, 3]` normals of the two faces that each edge belongs to.
    """

    centre: Array
    vertices: Array
    corners: Array
    normals: Array
    edges: Array
    beside: Array

    def moved(self, pos: Array, mat: Array) -> "Hull":
        """Returns it turned by `mat` `[3, 3]`, then moved by `pos` `[3]`."""
        moved = jax.tree.map(lambda x: x @ mat.T + pos, self)
        return moved._replace(normals=self.normals @ mat.T, beside=self.beside @ mat.T)


class Meeting(NamedTuple):
    """How two hulls meet.

    Attributes:
      dist: `[]` below 0 by as much as they overlap; above 0 if they do not.
      pos: `[3]` halfway between their surfaces, where they overlap.
      normal: `[3]` from the first to the second.
    """

    dist: Array
    pos: Array
    normal: Array


def meet(first: Hull, second: Hull) -> Meeting:
    """Returns how two hulls meet; they should not be far from the origin."""
    found = _at_face(first, second)
    other = _at_face(second, first)
    found = _better(found, other._replace(normal=-other.normal), 0)
    return _better(found, _at_edges(first, second), TIE)


def _better(found: Meeting, other: Meeting, lead: float) -> Meeting:
    """Returns the other one if its axis keeps them apart better, by a lead."""
    choose = lambda x, y: jnp.where(other.dist > found.dist + lead, y, x)  # noqa: E731
    return jax.tree.map(choose, found, other)


# ---------------------------------------------------------------- faces


def _at_face(one: Hull, met: Hull) -> Meeting:
    """Returns the best of the axes that are normals of one's faces."""
    offsets = (one.normals * one.corners[:, 0]).sum(-1)
    dists = (one.normals @ met.vertices.T).min(-1) - offsets
    face = dists.argmax()
    normal = one.normals[face]
    opposite = (met.normals @ normal).argmin()
    point = _deepest_point(
        one.corners[face],
        normal,
        met.corners[opposite],
        met.normals[opposite],
        met.vertices[(met.vertices @ normal).argmin()],
    )
    return Meeting(dists[face], point - dists[face] / 2 * normal, normal)


def _deepest_point(
    face: Array, normal: Array, met: Array, slope: Array, lowest: Array
) -> Array:
    """Returns the point of a face that is deepest below another face, within it.

    Args:
      face: `[K, 3]` corners that it is below.
      normal: `[3]` of that face.
      met: `[L, 3]` corners of the face that the point is of.
      slope: `[3]` its normal.
      lowest: `[3]` the vertex that is deepest, which may be of another face.
    """
    out = _outside(face, normal, jnp.concatenate([lowest[None], met]))
    start, end = out[1:], jnp.roll(out[1:], -1, 0)
    crossing = start / jnp.where(start == end, 1, start - end)
    enters = jnp.where((start > 0) & (end <= 0), crossing, 0).max(-1)
    leaves = jnp.where((start <= 0) & (end > 0), crossing, 1).min(-1)
    touches = (enters <= leaves) & ~((start > 0) & (end > 0)).any(-1)
    way = jnp.roll(met, -1, 0) - met
    rise = ((met[0] - face) @ slope) / jnp.minimum(normal @ slope, -1e-6)
    below = face + rise[:, None] * normal
    points = jnp.concatenate(
        [
            lowest[None],
            met + enters[:, None] * way,
            met + leaves[:, None] * way,
            below,
        ]
    )
    within = jnp.concatenate(
        [
            (out[:1] <= 0).all(-1),
            touches,
            touches,
            (_outside(met, slope, below) <= 0).all(-1),
        ]
    )
    return points[jnp.where(within, -points @ normal, -jnp.inf).argmax()]


def _outside(face: Array, normal: Array, points: Array) -> Array:
    """Returns how far points `[P, 3]` are beyond the sides of a face, `[P, K]`.

    Times the sides' lengths, so that sides without any are never in the way.
    """
    sides = jnp.cross(jnp.roll(face, -1, 0) - face, normal)
    return points @ sides.T - (face * sides).sum(-1)


# ---------------------------------------------------------------- edges


def _at_edges(first: Hull, second: Hull) -> Meeting:
    """Returns the best of the axes that stand on an edge of each."""
    (start, end), (other_start, other_end) = (
        (hull.edges[:, 0], hull.edges[:, 1]) for hull in (first, second)
    )
    way, other_way = _unit(end - start), _unit(other_end - other_start)
    arc, other_arc = (
        jnp.cross(hull.beside[:, 1], hull.beside[:, 0]) for hull in (first, second)
    )
    # Of the first along axis 0, of the second along axis 1.
    turn = _dot(_rows(arc), _columns(second.beside[:, 0]))
    back = _dot(_rows(arc), _columns(second.beside[:, 1]))
    left = _dot(_rows(first.beside[:, 0]), _columns(other_arc))
    right = _dot(_rows(first.beside[:, 1]), _columns(other_arc))
    crosses = (turn * back < 0) & (left * right < 0) & (turn * right < 0)
    axis = _cross(_rows(way), _columns(other_way))
    sine = jnp.sqrt(_dot(axis, axis))
    dist = _dot(axis, _columns(other_start)) - _dot(axis, _rows(start))
    outward = _dot(axis, _rows(start - first.centre)) > 0
    dist = jnp.where(outward, dist, -dist) / jnp.maximum(sine, PARALLEL)
    dist = jnp.where(crosses & (sine > PARALLEL), dist, -jnp.inf)
    own, other = jnp.unravel_index(dist.argmax(), dist.shape)
    normal = _unit(jnp.cross(way[own], other_way[other]))
    normal = jnp.where(outward[own, other], normal, -normal)
    pos = _between_lines(start[own], way[own], other_start[other], other_way[other])
    return Meeting(dist[own, other], pos, normal)


def _between_lines(start: Array, way: Array, other: Array, other_way: Array) -> Array:
    """Returns the point halfway between two lines, where they are closest."""
    apart, cosine = other - start, way @ other_way
    square = jnp.maximum(1 - cosine * cosine, PARALLEL**2)
    along = (apart @ way - cosine * (apart @ other_way)) / square
    along_other = (cosine * (apart @ way) - apart @ other_way) / square
    return (start + along * way + other + along_other * other_way) / 2


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


Coordinates = tuple[Array, Array, Array]


def _rows(x: Array) -> Coordinates:
    return x[:, None, 0], x[:, None, 1], x[:, None, 2]


def _columns(x: Array) -> Coordinates:
    return x[None, :, 0], x[None, :, 1], x[None, :, 2]


def _dot(a: Coordinates, b: Coordinates) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Coordinates, b: Coordinates) -> Coordinates:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
