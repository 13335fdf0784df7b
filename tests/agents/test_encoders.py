import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.agents.cemrl.encoders import ENCODERS, MERGES
from cemrl_jax.agents.cemrl.encoders.shared_y import FEATURE_MERGES, PROBABILITY_MERGES

WINDOW, FEATURES, CLASSES, LATENT = 4, 6, 3, 2
ALL = [("shared_y", merge) for merge in MERGES] + [
    ("individual_y", None),
    ("trajectory", None),
]


@functools.cache
def built(kind: str, merge: str | None):
    """An encoder with parameters of noise, so that nothing hides behind zeros."""
    extra = {"merge": merge} if merge else {}
    encoder = ENCODERS[kind](CLASSES, LATENT, 1.5, **extra)
    params = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, WINDOW, FEATURES)))
    rng = np.random.default_rng(0)
    noise = lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32)  # noqa: E731
    return encoder, jax.tree.map(noise, params)


def window(*leading: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*leading, WINDOW, FEATURES)).astype(np.float32)


@pytest.mark.parametrize(("kind", "merge"), ALL)
def test_posterior_has_the_documented_shape_and_is_a_mixture(kind, merge):
    encoder, params = built(kind, merge)
    posterior = jax.jit(encoder.apply)(params, window(5))
    parts = WINDOW if kind == "individual_y" else 1
    assert posterior.probs.shape == (5, parts, CLASSES)
    assert posterior.mean.shape == (5, parts, CLASSES, LATENT)
    assert posterior.std.shape == (5, parts, CLASSES, LATENT)
    np.testing.assert_allclose(posterior.probs.sum(-1), 1, rtol=1e-5)
    assert (np.asarray(posterior.std) > 0).all()


@pytest.mark.parametrize(("kind", "merge"), ALL)
def test_embedding_each_transition_alone_gives_the_posterior_of_the_window(kind, merge):
    encoder, params = built(kind, merge)
    x = window(5)
    embed = jax.jit(functools.partial(encoder.apply, method="embed"))
    alone = [embed(params, x[:, step]) for step in range(WINDOW)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *alone)
    infer = jax.jit(functools.partial(encoder.apply, method="infer"))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        infer(params, stacked),
        jax.jit(encoder.apply)(params, x),
    )


@pytest.mark.parametrize(("kind", "merge"), ALL)
def test_leading_axes_are_encoded_one_by_one(kind, merge):
    encoder, params = built(kind, merge)
    apply = jax.jit(encoder.apply)
    x = window(2, 3)
    both = apply(params, x)
    one = apply(params, x[1, 2])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1, 2], b, rtol=1e-4, atol=1e-6),
        both,
        one,
    )


@pytest.mark.parametrize("merge", PROBABILITY_MERGES)
def test_merges_of_probabilities_do_not_depend_on_the_order_of_the_window(merge):
    encoder, params = built("shared_y", merge)
    apply = jax.jit(encoder.apply)
    x = window(5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        apply(params, x),
        apply(params, x[:, ::-1]),
    )


@pytest.mark.parametrize("merge", FEATURE_MERGES)
def test_merges_of_features_see_the_order_of_the_window(merge):
    encoder, params = built("shared_y", merge)
    apply = jax.jit(encoder.apply)
    x = window(5)
    probs, turned = apply(params, x).probs, apply(params, x[:, ::-1]).probs
    assert not np.allclose(probs, turned, rtol=1e-2)


def test_add_is_the_mean_of_the_probabilities():
    probs = jnp.array([[0.2, 0.8], [0.6, 0.4]])
    np.testing.assert_allclose(PROBABILITY_MERGES["add"](probs), [0.4, 0.6], rtol=1e-6)


def test_add_softmax_and_multiply_are_softmaxes_of_sum_and_product():
    probs = jnp.array([[0.2, 0.8], [0.6, 0.4]])
    for name, inner in (("add_softmax", [0.8, 1.2]), ("multiply", [0.12, 0.32])):
        expected = np.exp(inner) / np.exp(inner).sum()
        np.testing.assert_allclose(PROBABILITY_MERGES[name](probs), expected, rtol=1e-6)


def test_shared_y_multiplies_the_gaussians_of_its_steps():
    """Softplus outputs go in as variances, the product's variance is the scale."""
    encoder, params = built("shared_y", "add")
    x = window(5)
    embedded = encoder.apply(params, x, method="embed")
    precision = 1 / np.asarray(embedded["variance"])
    scale = 1 / precision.sum(1)
    mean = scale * (precision * np.asarray(embedded["mean"])).sum(1)
    posterior = jax.jit(encoder.apply)(params, x)
    np.testing.assert_allclose(posterior.std[:, 0], scale, rtol=1e-4)
    np.testing.assert_allclose(posterior.mean[:, 0], mean, rtol=1e-4, atol=1e-6)


def test_individual_y_sees_each_step_apart():
    encoder, params = built("individual_y", None)
    apply = jax.jit(encoder.apply)
    x, y = window(5), window(5)
    y[:, 2] += 1
    same = np.all(np.asarray(apply(params, x).mean == apply(params, y).mean), (0, 2, 3))
    np.testing.assert_array_equal(same, [True, True, False, True])


def test_trajectory_sees_the_order_of_the_window():
    encoder, params = built("trajectory", None)
    apply = jax.jit(encoder.apply)
    x = window(5)
    assert not np.allclose(apply(params, x).mean, apply(params, x[:, ::-1]).mean)
