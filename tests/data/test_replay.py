import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PRESETS, connected, held, preset, random_transitions

from cemrl_jax.data import packing, replay
from cemrl_jax.data.types import ReplayState, Transition
from cemrl_jax.training.run import make_pools

NUM_ENVS = 3

add = jax.jit(replay.add)
pack = jax.jit(packing.pack, static_argnums=1)
draw = jax.jit(replay.draw, static_argnums=(2, 3, 4))
windows = jax.jit(replay.windows, static_argnums=2)
exists = jax.jit(replay.exists, static_argnums=1)
init = jax.jit(replay.init, static_argnums=(1, 2, 3, 4))


def example(seed: int = 0) -> Transition:
    return random_transitions(seed)


def numbered_chunk(first: int, num_steps: int, falls: np.ndarray) -> Transition:
    """`[E, n]` transitions that begin an episode and know when they were made.

    `reward` is `1000 * environment + time`, `step` restarts after each True of `falls`
    `[E, n]`.
    """
    chunk = random_transitions(first, NUM_ENVS, num_steps)
    step = np.zeros((NUM_ENVS, num_steps), np.int32)
    for env, time in itertools.product(range(NUM_ENVS), range(1, num_steps)):
        step[env, time] = 0 if falls[env, time - 1] else step[env, time - 1] + 1
    time = first + np.arange(num_steps, dtype=np.float32)
    chunk = connected(chunk.replace(step=step))
    return chunk.replace(
        reward=1000 * np.arange(NUM_ENVS, dtype=np.float32)[:, None] + time,
        terminated=falls.astype(np.float32),
    )


@functools.cache
def filled(num_chunks: int, steps: int, length: int, seed: int = 0) -> ReplayState:
    """A ring after so many chunks, with falls at random places in them."""
    rng = np.random.default_rng(seed)
    state = init(example(), NUM_ENVS, length, steps)
    for number in range(num_chunks):
        falls = rng.random((NUM_ENVS, steps)) < 0.15
        state = add(state, numbered_chunk(number * steps, steps, falls))
    return state


# ---------------------------------------------------------------- ring


def test_an_empty_replay_has_no_transitions():
    state = init(example(), NUM_ENVS, 20, 5)
    assert (int(state.size), int(state.cursor)) == (0, 0)


@pytest.mark.parametrize("num_chunks", [1, 2, 4, 5, 7, 9])
def test_the_ring_holds_the_newest_transitions(num_chunks):
    state = filled(num_chunks, steps=5, length=20)
    made = num_chunks * 5
    kept = min(made, 20)
    assert int(state.size) == kept
    assert int(state.cursor) == made % 20
    times = np.sort(held(state).reward[:, :kept] % 1000, axis=1)
    np.testing.assert_array_equal(times, [np.arange(made - kept, made)] * NUM_ENVS)


def test_what_comes_out_is_what_went_in_to_the_last_bit():
    """Labels and special numbers as well."""
    rows = random_transitions(0, NUM_ENVS, 2, 5, steps=np.arange(5))
    rows.reward[0, 0, :3] = [np.nan, -0.0, 1e-42]
    task = rows.task.replace(
        kind=np.int32(rows.reward > 0) * packing.LARGEST["kind"],
        base=np.int32(rows.reward < 0) * packing.LARGEST["base"],
        number=np.where(rows.reward > 1, -1, packing.LARGEST["number"]).astype(
            np.int32
        ),
    )
    falls = np.float32(rows.reward > 0.5)
    rows = connected(rows.replace(task=task, terminated=falls))
    got = held(replay.full(rows))
    flat = jax.tree.map(lambda x: x.reshape(NUM_ENVS, 10, *x.shape[3:]), rows)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(flat), strict=True):
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())


@pytest.mark.parametrize("name", PRESETS)
def test_the_tasks_of_every_preset_come_out_as_they_went_in(name):
    config = preset(name)
    tasks = make_pools(config)["train"].replace(overrides={})
    some = np.arange(20).reshape(1, 1, -1) % len(tasks.kind)
    few = jax.tree.map(lambda leaf: np.asarray(leaf)[some], tasks)
    rows = random_transitions(0, 1, 1, 20, steps=np.arange(20)).replace(task=few)
    got = held(replay.full(connected(rows))).task
    jax.tree.map(np.testing.assert_array_equal, got, jax.tree.map(lambda x: x[0], few))


def test_a_replay_has_chunks_of_one_length():
    with pytest.raises(ValueError, match="length 20 must be a multiple of 6 steps"):
        init(example(), NUM_ENVS, 20, 6)
    with pytest.raises(ValueError, match="a chunk of 6 steps in a replay of chunks of"):
        replay.add(init(example(), NUM_ENVS, 20, 5), random_transitions(0, NUM_ENVS, 6))
    with pytest.raises(ValueError, match="chunks of 70000 steps, at most 65536"):
        init(example(), 1, 70_000, 70_000)


@pytest.mark.parametrize("size", [2, 4, 12])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9])
def test_where_episodes_break_off_too_often_the_beginning_takes_the_rest(share, size):
    """Everything that is kept was really made, and leads where it led."""
    rng = np.random.default_rng(0)
    rows, breaks = random_transitions(1, 20, 10), rng.random((20, 10)) < share
    breaks[:, -1] = True
    after = np.where(breaks[..., None], rows.next_obs, np.roll(rows.obs, -1, 1))
    rows = rows.replace(next_obs=after)
    form = packing.Format.of(example(), 10, size)
    got = packing.unpack_chunks(pack(rows, form), form)
    where = [np.flatnonzero(row[:-1]) for row in breaks]
    kept = [10 if len(own) < size else own[size - 2] + 1 for own in where]
    np.testing.assert_array_equal(packing.num_lost(rows, form), 10 - np.array(kept))
    source = np.arange(10) % np.array(kept)[:, None]
    expected = jax.tree.map(lambda leaf: leaf[np.arange(20)[:, None], source], rows)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_what_is_held_of_robots_that_cannot_fall_takes_less_memory():
    words = 2 + 1 + 1 + 1 + 2  # observation, action, reward, parameter, labels
    assert 18 * words == 126
    for can_fall, lines in ((False, 6), (True, 7)):  # 100 rows and 4 or 14 more
        state = init(example(), 7, 600, 100, can_fall)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        assert size == 4 * 7 * 6 * lines * 126 + 8


@pytest.mark.parametrize(
    ("size", "per_line"),
    [(8, 16), (30, 4), (42, 3), (43, 8), (56, 2), (65, 7), (398, 2)],
)
def test_rows_stand_in_lines_that_a_tpu_hardly_pads(size, per_line):
    form = packing.Format(size - 5, 1, (), num_steps=20, num_ends=4)
    assert (form.size, form.per_line) == (size, per_line)
    assert form.num_lines == -(-24 // per_line)
    line = per_line * size
    assert line >= 0.85 * packing.TILE * -(-line // packing.TILE)


@pytest.mark.parametrize(("width", "per_line"), [(1, 18), (3, 11), (60, 1)])
def test_what_a_tpu_holds_is_read_as_everywhere(width, per_line):
    """Its lines are filled up, and rows taken out of whole ones."""
    rows = random_transitions(3, 5, 2, 7)
    wide = [np.tile(x, width) for x in (rows.obs, rows.next_obs)]
    rows = connected(rows.replace(obs=wide[0], next_obs=wide[1]))
    on_cpu, on_tpu = (replay.full(rows, platform=name) for name in ("cpu", "tpu"))
    form = on_tpu.data.format
    assert form.per_line == per_line
    assert on_tpu.data.lines.shape[-1] == 128
    assert on_cpu.data.lines.shape[-1] == form.per_line * form.size
    jax.tree.map(np.testing.assert_array_equal, held(on_tpu), held(on_cpu))
    place = replay.draw(on_cpu, jax.random.key(0), 50, "all", 1)
    got, expected = (windows(state.data, place, 3) for state in (on_tpu, on_cpu))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize("split", replay.SPLITS)
@pytest.mark.parametrize(("num_chunks", "window"), [(1, 3), (3, 5), (4, 8), (6, 12)])
def test_windows_never_reach_across_an_episode_or_the_write_position(
    num_chunks, window, split
):
    """Over many draws, with falls in the chunks, before and after the ring wraps."""
    for seed in range(5):
        state = filled(num_chunks, steps=10, length=40, seed=seed)
        oldest = max(0, num_chunks * 10 - 40)
        place = draw(state, jax.random.key(seed), 200, split, 5)
        rows = jax.device_get(windows(state.data, place, window))
        step, reward = np.asarray(rows.step), np.asarray(rows.reward)
        assert step.shape == (200, window + 1)
        known = np.asarray(exists(rows.step[:, -1], window))
        lag = np.arange(window, 0, -1, dtype=np.int32)
        # What exists are the transitions just before, of the same environment and
        # episode, and still in the ring.
        now = np.broadcast_to(reward[:, -1:], known.shape)
        np.testing.assert_array_equal(reward[:, :-1][known], (now - lag)[known])
        first = np.broadcast_to(step[:, -1:], known.shape) - lag
        np.testing.assert_array_equal(step[:, :-1][known], first[known])
        assert np.all(reward[:, :-1][known] % 1000 >= oldest)
        assert not rows.terminated[:, :-1][known].any()
        # And nothing of the episode is missing.
        np.testing.assert_array_equal(known.sum(1), np.minimum(step[:, -1], window))


def test_look_back_is_oldest_first():
    state = filled(1, steps=10, length=10)
    place = jnp.array([1, 2]), jnp.array([4, 9])
    rows = replay.look_back(held(state).reward, place, 3)
    np.testing.assert_array_equal(
        rows, [[1001, 1002, 1003, 1004], [2006, 2007, 2008, 2009]]
    )


def test_exists_is_the_lag_being_at_most_the_step():
    step = jnp.array([0, 1, 2, 3, 50])
    expected = [
        [False, False, False],
        [False, False, True],
        [False, True, True],
        [True, True, True],
        [True, True, True],
    ]
    np.testing.assert_array_equal(exists(step, 3), expected)


# ---------------------------------------------------------------- draws


def all_places(state: ReplayState, split: str, fold: int, seed: int = 0) -> np.ndarray:
    """How often each `[E, L]` place comes in many draws."""
    env, index = draw(state, jax.random.key(seed), 60_000, split, fold)
    length = state.data.length
    counts = np.zeros((NUM_ENVS, length), int)
    np.add.at(counts, (np.asarray(env), np.asarray(index)), 1)
    return counts


@pytest.mark.parametrize("split", replay.SPLITS)
@pytest.mark.parametrize("num_chunks", [1, 3, 6])
def test_draws_are_uniform_over_the_valid_transitions(num_chunks, split):
    state = filled(num_chunks, steps=10, length=40)
    counts = all_places(state, split, 5)
    valid = int(state.size)
    assert counts[:, valid:].sum() == 0
    hit = counts[:, :valid][counts[:, :valid] > 0]
    share = {"all": 1.0, "train": 0.8, "validation": 0.2}[split]
    assert len(hit) == round(NUM_ENVS * valid * share)
    expected = 60_000 / len(hit)
    assert np.abs(hit - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("fold", [2, 5, 10])
def test_the_splits_are_disjoint_and_cover_everything(fold):
    state = filled(6, steps=10, length=40)
    train = all_places(state, "train", fold) > 0
    validation = all_places(state, "validation", fold) > 0
    assert not (train & validation).any()
    assert (train | validation).all()
    assert validation.mean() == pytest.approx(1 / fold)


def test_every_fold_of_neighbours_has_one_for_validation_at_changing_places():
    state = filled(4, steps=10, length=40)
    validation = (all_places(state, "validation", 5) > 0).reshape(NUM_ENVS, 8, 5)
    np.testing.assert_array_equal(validation.sum(-1), 1)
    assert len(np.unique(validation.argmax(-1))) > 2


def test_the_splits_stay_the_same_as_the_buffer_grows():
    before = all_places(filled(2, steps=10, length=40), "validation", 5) > 0
    after = all_places(filled(4, steps=10, length=40), "validation", 5) > 0
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert not before[:, 20:].any()


def test_a_size_that_is_no_multiple_of_the_fold_leaves_out_less_than_a_fold():
    state = filled(1, steps=8, length=8)
    both = all_places(state, "train", 3) + all_places(state, "validation", 3)
    np.testing.assert_array_equal((both > 0).sum(1), 6)


def test_the_same_key_draws_the_same_places():
    state = filled(2, steps=10, length=40)
    first = draw(state, jax.random.key(3), 20, "all", 1)
    second = draw(state, jax.random.key(3), 20, "all", 1)
    other = draw(state, jax.random.key(4), 20, "all", 1)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


# ---------------------------------------------------------------- segments


draw_segments = jax.jit(replay.draw_segments, static_argnums=(2, 3))
segments = jax.jit(replay.segments, static_argnums=2)


@pytest.mark.parametrize("size", [2, 4, 7, 10])
@pytest.mark.parametrize("num_chunks", [1, 3, 6])
def test_transitions_of_segments_are_uniform_over_the_valid_ones(num_chunks, size):
    """At each place in the run as well: the first ones are no more likely."""
    state = filled(num_chunks, steps=10, length=40)
    env, index = draw_segments(state, jax.random.key(0), 20_000, size)
    valid = int(state.size)
    for chosen in (slice(None), slice(0, 1), slice(size - 1, size)):
        counts = np.zeros((NUM_ENVS, 40), int)
        np.add.at(counts, (np.asarray(env)[:, chosen], np.asarray(index)[:, chosen]), 1)
        assert counts[:, valid:].sum() == 0
        expected = counts.sum() / (NUM_ENVS * valid)
        # Those of a run are neighbours: as many draws as runs, not as transitions.
        bound = 5 * np.sqrt(expected * (counts.sum() / 20_000))
        assert np.abs(counts[:, :valid] - expected).max() < bound


@pytest.mark.parametrize(("size", "window"), [(2, 3), (4, 8), (10, 5), (3, 12)])
def test_segments_are_runs_of_one_chunk_and_their_windows_those_of_each_transition(
    size, window
):
    """With falls in the chunks, after the ring has wrapped, windows beyond a chunk."""
    wrapped = 0
    for seed in range(5):
        state = filled(6, steps=10, length=40, seed=seed)
        place = draw_segments(state, jax.random.key(seed), 60, size)
        env, index = map(np.asarray, place)
        assert np.all(env == env[:, :1])
        np.testing.assert_array_equal(index // 10, index[:, :1] // 10 + 0 * index)
        steps = np.diff(index, axis=1)
        wrapped += np.sum(steps == -9)
        assert np.all((steps == 1) | (steps == -9))
        rows = jax.device_get(segments(state.data, place, window))
        for w in range(size):
            own = jax.device_get(
                windows(state.data, (place[0][:, w], place[1][:, w]), window)
            )
            np.testing.assert_array_equal(rows.reward[:, window + w], own.reward[:, -1])
            known = np.asarray(exists(own.step[:, -1], window))
            ours = rows.reward[:, w : w + window]
            np.testing.assert_array_equal(ours[known], own.reward[:, :-1][known])
    assert wrapped > 10


@pytest.mark.parametrize("fold", [2, 3, 5])
def test_is_in_train_says_what_the_split_draws(fold):
    state = filled(6, steps=8, length=32)
    place = jnp.indices((NUM_ENVS, 32))
    expected = all_places(state, "train", fold) > 0
    ours = replay.is_in_train((place[0], place[1]), state.size, fold)
    np.testing.assert_array_equal(ours, expected)


# ---------------------------------------------------------------- pasting


@pytest.mark.parametrize("seed", [None, 1])
def test_a_chunk_is_cut_out_where_it_was_pasted_and_the_rest_stays(seed):
    lead = (2, NUM_ENVS) if seed is None else (2, 4, NUM_ENVS)
    steps = np.arange(10)
    ring = connected(random_transitions(0, *lead, 4, 10, steps=steps))
    chunk = connected(random_transitions(1, *lead, 10, steps=steps))
    fill = functools.reduce(lambda make, _: jax.vmap(make), lead[:-1], replay.full)
    new = replay.paste(fill(ring).data, chunk, 20)
    chunks = jax.tree.map(lambda old: np.moveaxis(old, len(lead), 0).copy(), ring)
    jax.tree.map(lambda old, new: old.__setitem__(2, new), chunks, chunk)
    for number in range(4):
        cut = replay.cut(new, seed, 10 * number)
        for got, old in zip(jax.tree.leaves(cut), jax.tree.leaves(chunks), strict=True):
            expected = old[number] if seed is None else old[number][:, seed]
            np.testing.assert_array_equal(got, expected)
