"""How close our numbers must come; the README of the recordings says why."""

import numpy as np

FORWARD = 1e-5
GRADIENT = 1e-4
SAC = 1e-4
CLEAR_GRADIENT = 1e-5


def assert_close(actual, expected, tolerance, what="", rounding=0.0):
    """Compares each entry, relative to it where it is above 1.

    `rounding` is what entries may be off besides, see `log_prob_rounding`.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} {expected.shape}"
    error = np.maximum(np.abs(actual - expected) - rounding, 0)
    error = error / np.maximum(1, np.abs(expected))
    worst = error.max(initial=0)
    assert worst <= tolerance, f"{what} is off by {worst:.1e}"


def log_prob_rounding(action):
    """How far a log-probability `[...]` may be off because of its action `[..., A]`.

    tanh(x) can lie between two float32 numbers, 2^-24 apart below 1, and x is itself a
    rounded sum: then the recorded action and ours may be neighbours, whose 1 - a^2
    differ by 2^-23. In most rows both are the same number.
    """
    slope = 1 - np.square(np.asarray(action, np.float64)) + 1e-6
    return -np.log1p(-(2**-23) / slope).sum(-1)


def array_names(recorded):
    """Returns the names of arrays that are recorded whole or as a summary."""
    return {name.removesuffix("/val") for name in recorded if is_value(name)}


def is_value(name):
    return name.rsplit("/", 1)[-1] not in ("l2", "meanabs", "idx")


def entries(recorded, name, array):
    """Returns the recorded entries of an array and our entries at their places."""
    array = np.asarray(array, np.float64)
    if name in recorded:
        return np.asarray(recorded[name], np.float64), array
    places = recorded[f"{name}/idx"]
    return np.asarray(recorded[f"{name}/val"], np.float64), array.reshape(-1)[places]


def norm(recorded, name):
    if name in recorded:
        return float(np.linalg.norm(recorded[name].astype(np.float64)))
    return float(recorded[f"{name}/l2"])


def assert_gradients_close(actual, recorded):
    """Compares gradients, each relative to its norm."""
    whole = np.sqrt(sum(norm(recorded, name) ** 2 for name in array_names(recorded)))
    for name in array_names(recorded):
        expected, ours = entries(recorded, name, actual[name])
        scale = max(norm(recorded, name), 1e-3 * whole)
        error = np.linalg.norm(ours - expected) / scale
        assert error <= GRADIENT, f"gradient of {name} is off by {error:.1e}"
        length = np.linalg.norm(np.asarray(actual[name], np.float64))
        error = abs(length - norm(recorded, name)) / scale
        assert error <= GRADIENT, f"norm of the gradient of {name}: {error:.1e}"


def assert_steps_close(actual, recorded, gradients):
    """Compares parameters after Adam where the gradient is clearly not rounding."""
    for name in array_names(recorded):
        expected, ours = entries(recorded, name, actual[name])
        clear = np.ones(expected.shape, bool)
        if name in array_names(gradients):
            gradient, _ = entries(gradients, name, actual[name])
            clear = np.abs(gradient) > CLEAR_GRADIENT
        assert_close(ours[clear], expected[clear], FORWARD, name)
