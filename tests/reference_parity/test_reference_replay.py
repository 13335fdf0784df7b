"""Replay: windows of transitions, their normalisation, and the tasks seen in them.

Our ring holds the episodes back to back; the original puts rows of zeros between them.
Where a window reaches back before its episode, the original's encoder sees those zeros
normalised when it trains, -mean / std, but plain zeros when it acts. Ours sees zeros in
normalised units in both, on purpose: rows before the episode are compared to that.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import FIELDS, normalized_by, of, run, transitions
from closeness import FORWARD, assert_close
from helpers import held
from recordings import cases

from cemrl_jax.agents.cemrl.losses import infer_class, infer_task
from cemrl_jax.data import normalizer, replay

NO_TIE = 1e-6
every_case = pytest.mark.parametrize("case", cases("replay"), ids=str)


@functools.cache
def memory(case):
    """Returns a ring that all episodes were added to, in one environment."""
    parts = []
    for number in range(len(case.meta["lengths"])):
        episode = case.at(f"episode{number}/")
        base = jnp.asarray(episode["base_task"], jnp.int32)
        part = transitions(episode, base_task=base)
        parts.append(part.replace(step=jnp.arange(len(base))))
    chunk = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[None], *parts)
    example = jax.tree.map(lambda leaf: leaf[0, 0], chunk)
    num_steps = chunk.step.shape[1]
    return replay.add(replay.init(example, 1, num_steps, num_steps), chunk)


def rows(case, points):
    """Returns the windows `[B, T + 1]` of points, as rows of the original's buffer."""
    episodes = len(case.meta["lengths"])
    allowed = case[f"after{episodes - 1}/allowed_points"]
    index = jnp.asarray(np.searchsorted(allowed, points))
    place = (jnp.zeros_like(index), index)
    return replay.windows(memory(case).data, place, case.meta["time_steps"])


def exists(case, points):
    """Which rows of windows `[B, T]` belong to the episode of their point."""
    step = rows(case, points).step[:, -1]
    return np.asarray(replay.exists(step, case.meta["time_steps"]))


def batch(case, points, statistics=True):
    agent, learner = of(case)
    learner = normalized_by(case, learner) if statistics else learner
    return agent.make_batch(learner, rows(case, points))


@every_case
def test_statistics_agree(case):
    state: Any = normalizer.init(case.meta["obs_dim"], case.meta["action_dim"])
    state = normalizer.update(state, held(memory(case)), None)
    for ours, name in FIELDS.items():
        for kind, tree in (("mean", state.mean), ("std", state.std)):
            expected = case[f"stats_{name}_{kind}"]
            assert_close(np.atleast_1d(tree[ours]), expected, FORWARD, name)


@every_case
def test_windows_hold_the_point_and_the_steps_before_it(case):
    points = case["chosen_points"]
    ours, inside = rows(case, points), exists(case, points)
    inside = np.concatenate([inside, np.ones((len(points), 1), bool)], 1)
    assert not inside.all()
    for field, name in FIELDS.items():
        recorded = case[f"window_raw/{name}"]
        leaf = np.asarray(getattr(ours, field)).reshape(recorded.shape)
        assert_close(leaf[inside], recorded[inside], 0, name)
        assert not recorded[~inside].any()


@every_case
def test_normalised_transitions_agree(case):
    ours = batch(case, case["chosen_points"]).scaled
    for field, name in FIELDS.items():
        recorded = case[f"window_normalized/{name}"][:, -1]
        leaf = np.asarray(getattr(ours, field)).reshape(recorded.shape)
        assert_close(leaf, recorded, FORWARD, name)


@every_case
@pytest.mark.parametrize("kind", ["raw", "normalized"])
def test_encoder_input_agrees_within_the_episode_and_is_zero_before_it(case, kind):
    points = case["chosen_points"]
    window = np.asarray(batch(case, points, kind == "normalized").window)
    recorded = case[f"window_{kind}/encoder_input"].reshape(window.shape)
    inside = exists(case, points)
    assert_close(window[inside], recorded[inside], FORWARD)
    assert not window[~inside].any()
    if kind == "raw":  # without statistics both paddings are the same
        assert_close(window, recorded, FORWARD)


@every_case
@pytest.mark.parametrize("kind", ["raw", "normalized"])
def test_tasks_seen_in_the_replay_agree(case, kind):
    recorded = case.at(f"relabel_{kind}/")
    points = recorded["points"]
    agent, learner = of(case)
    params, window = (
        learner.world_model.params,
        batch(case, points, kind == "normalized"),
    )
    posterior = run(agent.encode, params, window.window)
    # With statistics only full windows are the same; see above.
    same = exists(case, points).all(1) | (kind == "raw")
    best = np.sort(recorded["y_probs"].reshape(len(points), -1, agent.num_classes))
    clear = np.ones(len(points), bool)
    if agent.num_classes > 1:
        clear = (best[..., -1] - best[..., -2] > NO_TIE).all(-1)
    assert (same & clear).any()
    z, y = np.asarray(infer_task(posterior)), np.asarray(infer_class(posterior))
    assert_close(z[same & clear], recorded["z"][same & clear], FORWARD, "z")
    assert np.array_equal(y[same & clear], recorded["y"][same & clear])
