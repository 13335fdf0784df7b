"""A structure that was written as JSON is the one that is read."""

import json
from typing import Any, NamedTuple

import jax
import pytest
from flax import struct

from cemrl_jax.runtime.outlines import outline, structure_of


class Node(struct.PyTreeNode):
    x: Any
    y: Any


class Static(struct.PyTreeNode):
    x: Any
    size: int = struct.field(pytree_node=False, default=3)


class Pair(NamedTuple):
    x: Any
    y: Any


@pytest.mark.parametrize(
    "tree",
    [
        0.5,
        {"b": (1.0, [2.0, None]), "a": {}},
        Node(x={"loss": 1.0}, y=None),
        (Pair(1.0, 2.0), Node(x=Pair(3.0, 4.0), y=Static(x=5.0))),
    ],
)
def test_a_structure_is_read_as_it_was_written(tree):
    known = {"pair": Pair(0.0, 0.0), "static": Static(x=0.0)}
    structure = jax.tree.structure(tree)
    written = json.dumps(outline(structure, known))
    assert structure_of(json.loads(written), known) == structure


@pytest.mark.parametrize("tree", [Pair(1.0, 2.0), Static(x=1.0)])
def test_what_is_not_plain_and_not_known_has_no_outline(tree):
    with pytest.raises(TypeError, match="has no outline"):
        outline(jax.tree.structure((tree, 1.0)), {})


@pytest.mark.parametrize("kind", ["os:system", "builtins:exec", "none:None"])
def test_nothing_but_nodes_of_trees_is_called(kind):
    with pytest.raises(TypeError, match="is no flax"):
        structure_of({kind: {"x": 0}}, {})
