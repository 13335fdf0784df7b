"""Structures of trees as JSON: nothing of what is read runs."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
from flax import struct

LEAF = 0
"""What stands for a leaf."""


def outline(structure: Any, known: Mapping[str, Any]) -> Any:
    """Returns the structure of a tree as plain data.

    Args:
      structure: of the tree.
      known: name -> tree; where the tree has a part like it the name is enough.

    Raises:
      TypeError: the tree has a node that is no list, tuple, dictionary, `None`, or
        `flax.struct.PyTreeNode` whose fields are all parts of the tree.
    """
    tree = jax.tree.unflatten(structure, [LEAF] * structure.num_leaves)
    return _outline(tree, {jax.tree.structure(x): name for name, x in known.items()})


def structure_of(outlined: Any, known: Mapping[str, Any]) -> Any:
    """Returns the structure that `outline` was given."""
    return jax.tree.structure(_filled(outlined, known))


def _outline(tree: Any, names: Mapping[Any, str]) -> Any:
    if (name := names.get(jax.tree.structure(tree))) is not None:
        return name
    if tree is None or isinstance(tree, int):
        return tree
    if type(tree) is dict:
        return {"dict": {key: _outline(x, names) for key, x in tree.items()}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_outline(x, names) for x in tree]}
    if isinstance(tree, struct.PyTreeNode):
        node: Any = tree  # a dataclass, which its base class does not say
        fields = dataclasses.fields(node)
        if all(field.metadata.get("pytree_node", True) for field in fields):
            kind = f"{type(tree).__module__}:{type(tree).__qualname__}"
            parts = {x.name: _outline(getattr(tree, x.name), names) for x in fields}
            return {kind: parts}
    raise TypeError(f"{type(tree).__name__} has no outline")


def _filled(outlined: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(outlined, str):
        return known[outlined]
    if not isinstance(outlined, dict):
        return outlined
    ((kind, parts),) = outlined.items()
    if kind in ("list", "tuple"):
        filled = [_filled(x, known) for x in parts]
        return filled if kind == "list" else tuple(filled)
    filled = {key: _filled(x, known) for key, x in parts.items()}
    return filled if kind == "dict" else _class_of(kind)(**filled)


def _class_of(kind: str) -> Any:
    module, _, name = kind.partition(":")
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, struct.PyTreeNode)):
        raise TypeError(f"{kind} is no flax.struct.PyTreeNode")
    return found
