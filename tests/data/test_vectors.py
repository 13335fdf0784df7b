from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cemrl_jax.data.types import Trainable
from cemrl_jax.data.vectors import SMALL, Compact, Vector, pack, tree_of, unpack

TREE: Any = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.float32(7)}


def same(ours: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)


def test_a_vector_holds_a_tree_leaf_by_leaf():
    vector = Vector.of(TREE)
    np.testing.assert_array_equal(vector.values, [0, 1, 2, 3, 4, 5, 7])
    same(vector.tree, TREE)
    same(tree_of(vector), TREE)
    assert tree_of(TREE) is TREE


def test_the_gradient_of_a_vector_is_the_vector_of_the_gradient():
    def loss(tree: Any) -> Any:
        return (tree["a"] ** 3).sum() * tree["b"]

    packed = jax.grad(lambda vector: loss(vector.tree))(Vector.of(TREE))
    same(packed.tree, jax.grad(loss)(jax.tree.map(jnp.asarray, TREE)))
    text = str(jax.make_jaxpr(jax.grad(lambda v: loss(v.tree)))(Vector.of(TREE)))
    assert text.count("concatenate") == 1
    assert "pad" not in text


def test_packing_keeps_what_belongs_to_no_parameter_and_comes_undone():
    optimizer = optax.adam(optax.linear_schedule(1.0, 0.5, 10))
    params = jax.tree.map(jnp.asarray, TREE)
    state = Trainable(params, optimizer.init(params), jnp.array([3, 1]))
    packed = pack(state)
    assert len(jax.tree.leaves(packed)) == 3 + 3  # two counts, `skipped`
    same(unpack(packed), state)


def test_adam_does_the_same_to_a_vector():
    optimizer = optax.adam(0.1)
    params = jax.tree.map(jnp.asarray, TREE)
    state = Trainable(params, optimizer.init(params), jnp.zeros(2, jnp.int32))

    def step(state: Trainable) -> Trainable:
        grads = jax.tree.map(jnp.cos, state.params)
        updates, moments = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=moments)

    ours, expected = pack(state), state
    for _ in range(3):
        ours, expected = step(ours), step(expected)
    jax.tree.map(np.testing.assert_allclose, unpack(ours), expected)


def test_compact_joins_small_leaves_of_a_type_and_no_others():
    large = np.arange(SMALL + 1, dtype=np.float32)
    tree = (TREE, large, {"n": np.int32(3), "m": np.arange(4, dtype=np.int32)})
    compact = Compact.of(tree)
    assert sorted(leaf.size for leaf in jax.tree.leaves(compact)) == [5, 7, SMALL + 1]
    same(compact.tree, tree)
