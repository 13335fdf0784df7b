"""Meta-World: our formulas at recorded states, and the shapes that they consist of.

The whole recordings are looked at where there are some and the package's models.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import run
from closeness import FORWARD, assert_close
from metaworld_scenes import MODELS, RECORDINGS, archive, committed, recorded

from cemrl_jax.envs.metaworld.observations import current, observation
from cemrl_jax.envs.metaworld.rewards import REWARDS, judge
from cemrl_jax.envs.metaworld.scene import SOURCES
from cemrl_jax.envs.metaworld.shaping import (
    gaussian,
    hamacher,
    long_tail,
    prism,
    tolerance,
)

REWARD = 1e-4
BLOCK = 50
"""Steps are looked at in blocks, so that each task is compiled once."""
SHARED = [["reach", "push", "pick-place"], ["door-open", "door-close"]]
"""Tasks that switch within an episode."""


def look(names, kind, steps):
    """Returns observation, reward and success of one step."""
    now = current(names, kind, steps.scene)
    return observation(now, steps.before), *judge(names, kind, steps.scene)


@functools.cache
def program(*names):
    return jax.jit(jax.vmap(functools.partial(look, names), in_axes=(None, 0)))


def looked(names, kind, steps):
    """Returns what `look` does of all steps."""
    num_steps = len(steps.reward)
    parts = []
    for first in range(0, num_steps, BLOCK):
        rows = np.arange(first, first + BLOCK) % num_steps
        block = jax.tree.map(lambda leaf, rows=rows: leaf[rows], steps)
        parts.append(program(*names)(kind, block))
    return [np.concatenate(leaves)[:num_steps] for leaves in zip(*parts)]


def assert_agree(names, kind, steps):
    obs, reward, success = looked(names, kind, steps)
    assert_close(obs, steps.obs, FORWARD, "observation")
    worst = np.abs(reward - steps.reward).max()
    assert worst <= REWARD, f"a reward is off by {worst:.1e}"
    assert np.array_equal(success, steps.success)


@pytest.mark.parametrize("task", SOURCES)
def test_committed_steps_agree(task):
    steps = committed(task)
    assert steps.success.any()
    assert not steps.success.all()
    assert_agree([task], 0, steps)


@pytest.mark.parametrize("task", SOURCES)
def test_recorded_steps_agree(task):
    arrays = archive(RECORDINGS)
    if f"{task}-v3/state" not in arrays or not MODELS:
        pytest.skip("no recordings, or no models of the package")
    assert_agree([task], 0, recorded(task, arrays))


@pytest.mark.parametrize("names", SHARED, ids="-".join)
def test_kind_selects_the_task(names):
    for kind, name in enumerate(names):
        assert_agree(names, kind, committed(name))


def test_every_task_has_reward_and_source():
    assert list(REWARDS) == list(SOURCES)


@pytest.mark.parametrize("tail", [long_tail, gaussian])
def test_value_is_one_inside_and_a_tenth_at_the_margin(tail):
    x = jnp.array([0.1, 0.2, 0.5, 0.6, 0.9])
    value = run(lambda x: tolerance(x, 0.5, 0.4, 0.2, tail), x)
    assert np.allclose(value, [value[3], 1, 1, value[3], 0.1])
    assert 0.1 < value[3] < 1


def test_tails_at_twice_the_margin():
    ours = run(lambda x: (long_tail(x), gaussian(x)), jnp.array(2.0))
    assert np.allclose(ours, [1 / 37, 1e-4])


def test_without_margin_all_outside_is_worth_nothing():
    value = run(lambda x: tolerance(x, 0.5, 0.0), jnp.array([0.4, 0.5, 0.6]))
    assert np.array_equal(value, [1, 1, 0])


def test_hamacher_product_is_an_and():
    a, b = jnp.array([0, 0, 1, 0.5]), jnp.array([0, 0.7, 0.3, 0.5])
    assert np.allclose(run(hamacher, a, b), [0, 0, 0.3, 1 / 3])


def test_prism_rises_to_a_corner_and_is_one_outside():
    zero, one = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 2.0])
    x = jnp.array([[1.0, 0, 0], [0.5, 0.5, 1], [0, 1, 2], [1.1, 0.5, 1]])
    value = run(jax.vmap(lambda x: prism(x, zero, one)), x)
    assert np.allclose(value, [0, 1 / 8, 1, 1])
