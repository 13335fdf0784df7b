"""Parameters as one vector: an optimiser and a collective then work on one array.

Small networks are many small arrays, and an accelerator pays for each of them: with a
kernel for its step, one for its part of the gradient's norm and one for its selection.
A phase that takes many steps packs its learner at its door and unpacks it at the end.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.data.types import Trainable

Tree = Any


class Vector(struct.PyTreeNode):
    """A tree of arrays as one vector.

    Attributes:
      values: `[P]` the leaves one after the other.
      structure: of the tree.
      shapes: of its leaves.
    """

    values: Array
    structure: Any = struct.field(pytree_node=False)
    shapes: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, tree: Tree) -> "Vector":
        """Packs a tree of float32 arrays."""
        leaves, structure = jax.tree.flatten(tree)
        values = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
        return cls(values, structure, tuple(leaf.shape for leaf in leaves))

    @property
    def tree(self) -> Tree:
        """The arrays again; the gradient of all of them is one vector too."""
        # The derivative of a split is a concatenation, that of slices a sum of all.
        parts = jax.lax.split(self.values, [math.prod(s) for s in self.shapes])
        leaves = [part.reshape(s) for part, s in zip(parts, self.shapes, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)


def tree_of(params: Tree) -> Tree:
    """Returns parameters as a tree, whether they are packed or not."""
    return params.tree if isinstance(params, Vector) else params


SMALL = 64
"""Leaves of so many numbers or fewer go together."""


class Compact(struct.PyTreeNode):
    """A tree whose small arrays of a type are one vector.

    Counters and the like are then written by one kernel and not by one each.

    Attributes:
      large: the other arrays.
      small: type -> vector of the small ones.
      structure: of the tree.
      leaves: type and shape of its leaves.
      limit: how many numbers a small array has at most.
    """

    large: list[Array]
    small: dict[str, Array]
    structure: Any = struct.field(pytree_node=False)
    leaves: tuple[tuple[str, tuple[int, ...]], ...] = struct.field(pytree_node=False)
    limit: float = struct.field(pytree_node=False)

    @classmethod
    def of(cls, tree: Tree, limit: float = SMALL) -> "Compact":
        """Packs a tree of arrays."""
        leaves, structure = jax.tree.flatten(tree)
        small: dict[str, list[Array]] = {}
        for leaf in leaves:
            if leaf.size <= limit:
                small.setdefault(leaf.dtype.name, []).append(jnp.ravel(leaf))
        return cls(
            large=[leaf for leaf in leaves if leaf.size > limit],
            small={name: jnp.concatenate(parts) for name, parts in small.items()},
            structure=structure,
            leaves=tuple((leaf.dtype.name, leaf.shape) for leaf in leaves),
            limit=limit,
        )

    @property
    def tree(self) -> Tree:
        """The arrays again."""
        large, starts, leaves = iter(self.large), dict.fromkeys(self.small, 0), []
        for name, shape in self.leaves:
            size = math.prod(shape)
            if size > self.limit:
                leaves.append(next(large))
                continue
            start = starts[name]
            leaves.append(self.small[name][start : start + size].reshape(shape))
            starts[name] += size
        return jax.tree.unflatten(self.structure, leaves)


def pack(state: Trainable, join: Callable[[Tree], Tree] = lambda tree: tree) -> Any:
    """Returns a network's state whose parameters and moments are vectors.

    Args:
      state: parameters as trees.
      join: rearranges such a tree before it is packed.
    """
    structure = jax.tree.structure(state.params)
    like_params = lambda node: jax.tree.structure(node) == structure  # noqa: E731
    return state.replace(
        params=Vector.of(join(state.params)),
        opt_state=jax.tree.map(
            lambda node: Vector.of(join(node)) if like_params(node) else node,
            state.opt_state,
            is_leaf=like_params,
        ),
    )


def unpack(state: Trainable, split: Callable[[Tree], Tree] = lambda tree: tree) -> Any:
    """Returns what `pack` was given; `split` undoes its `join`."""
    is_vector = lambda node: isinstance(node, Vector)  # noqa: E731
    restore = lambda node: split(node.tree) if is_vector(node) else node  # noqa: E731
    return state.replace(
        params=restore(state.params),
        opt_state=jax.tree.map(restore, state.opt_state, is_leaf=is_vector),
    )
