"""Segments: what a batch of overlapping windows computes is what single windows do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    connected,
    held,
    on_one_device,
    random_transitions,
    tiny_agent,
    with_noise,
)

from cemrl_jax.agents.cemrl import losses, phases
from cemrl_jax.agents.cemrl.phases import fused
from cemrl_jax.agents.cemrl.phases.updates import mean_over_updates
from cemrl_jax.data import replay
from cemrl_jax.data.types import ReplayState, Transition, WorkerState

SEGMENTS, WINDOWS, STEPS = 6, 4, 10
NETWORKS = [
    ("shared_y", "add"),
    ("shared_y", "multiply"),
    ("shared_y", "linear"),
    ("shared_y", "mlp"),
    ("individual_y", "add"),
]


@functools.cache
def memory(num_envs: int = 2) -> ReplayState:
    """Environments with three chunks each, a fall in the middle of one."""
    step: Any = np.tile(np.arange(STEPS, dtype=np.int32), (num_envs, 3))
    step[1, 14:20] = np.arange(6)
    return full(random_transitions(0, num_envs, 3 * STEPS, steps=step))


def full(rows: Transition, platform: str | None = None) -> ReplayState:
    """A replay of `[E, 3 n]` transitions."""
    shape = (rows.step.shape[0], 3, STEPS)
    chunks = jax.tree.map(lambda x: np.reshape(x, shape + x.shape[2:]), rows)
    return replay.full(connected(chunks), platform=platform)


@functools.cache
def batches(kind: str, merge: str) -> Any:
    """Agent, learner, and the same transitions as segments and one by one."""
    agent, learner = tiny_agent(
        encoder__kind=kind, encoder__merge=merge, encoder__num_classes=2
    )
    learner = with_noise(learner)
    place = replay.draw_segments(memory(), jax.random.key(1), SEGMENTS, WINDOWS)
    rows = replay.segments(memory().data, place, agent.window_steps)
    flat = (place[0].reshape(-1), place[1].reshape(-1))
    single = replay.windows(memory().data, flat, agent.window_steps)
    return (
        agent,
        learner,
        agent.make_segments(learner, rows),
        agent.make_batch(learner, single),
    )


def close(ours: Any, expected: Any) -> None:
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5),
        ours,
        expected,
    )


@pytest.mark.parametrize(("kind", "merge"), NETWORKS)
def test_the_posterior_of_segments_is_that_of_single_windows(kind, merge):
    agent, learner, runs, single = batches(kind, merge)
    encode = jax.jit(agent.encode)
    params = learner.world_model.params
    assert runs.size == single.size == SEGMENTS * WINDOWS
    close(encode(params, runs.window), encode(params, single.window))
    close(runs.scaled, single.scaled)
    np.testing.assert_array_equal(runs.current.step, single.current.step)


@pytest.mark.parametrize(("kind", "merge"), NETWORKS)
def test_the_gradient_of_segments_is_that_of_single_windows(kind, merge):
    agent, learner, runs, single = batches(kind, merge)
    noise = agent.world_model_noise(jax.random.key(0), runs.size)

    def gradient(batch: Any) -> Any:
        arguments = (agent, batch, noise, learner.loss_weights, agent.elbo)
        return jax.grad(losses.elbo_loss, has_aux=True)(
            learner.world_model.params, *arguments
        )[0]

    ours, expected = jax.jit(gradient)(runs), jax.jit(gradient)(single)
    norm = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    scale = functools.partial(jax.tree.map, lambda leaf: leaf / norm)
    close(scale(ours), scale(expected))


def test_segments_embed_what_windows_share_once():
    """4 windows of 3 need 6 embeddings, and one of nothing, where 12 were needed."""
    agent, learner, runs, _ = batches("shared_y", "add")
    text = str(jax.make_jaxpr(agent.encode)(learner.world_model.params, runs.window))
    features = agent.num_features
    rows = WINDOWS + agent.window_steps - 1
    assert f"f32[{SEGMENTS},{rows},{features}]" in text
    assert f"f32[{SEGMENTS * WINDOWS},{agent.window_steps},{features}]" not in text


def test_transitions_for_validation_have_no_weight_and_the_others_one_on_average():
    agent, learner = tiny_agent()
    sampling = phases.Sampling(40, WINDOWS, fold=5)
    draw = jax.jit(functools.partial(sampling.draw, agent))
    shares = []
    for seed in range(20):
        batch = draw(learner, memory(), jax.random.key(seed))
        assert batch.size == 40
        assert float(batch.weight.mean()) == pytest.approx(1, abs=1e-6)
        # The transitions of the replay know their place by their reward.
        reward = held(memory()).reward
        place = [np.argwhere(reward == x)[0] for x in np.asarray(batch.current.reward)]
        env, index = np.array(place).T
        trained = np.asarray(replay.is_in_train((env, index), memory().size, 5))
        np.testing.assert_array_equal(np.asarray(batch.weight) > 0, trained)
        shares.append(trained.mean())
    assert np.mean(shares) == pytest.approx(0.8, abs=0.03)


def test_a_weight_of_zero_takes_a_transition_out_of_the_loss():
    agent, learner, runs, _ = batches("shared_y", "add")
    noise = agent.world_model_noise(jax.random.key(0), runs.size)
    weight = jnp.ones(runs.size).at[3].set(0)

    def loss(reward: Any) -> Any:
        batch = runs.replace(weight=weight, scaled=runs.scaled.replace(reward=reward))
        arguments = (agent, batch, noise, learner.loss_weights, agent.elbo)
        return losses.elbo_loss(learner.world_model.params, *arguments)[0]

    gradient = np.asarray(jax.jit(jax.grad(loss))(runs.scaled.reward))
    assert gradient[3] == 0
    assert np.all(np.delete(gradient, 3) != 0)


def test_one_window_per_segment_draws_as_ever():
    agent, learner = tiny_agent()
    key = jax.random.key(3)
    for fold, split in ((1, "all"), (5, "train")):
        place = replay.draw(memory(), key, 40, split, fold)
        rows = replay.windows(memory().data, place, agent.window_steps)
        ours = phases.Sampling(40, fold=fold).draw(agent, learner, memory(), key)
        expected = agent.make_batch(learner, rows)
        assert ours.weight is None
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


NUMBERS = jnp.array([[0, 1, 2], [0, 0, 3], [1, 0, 0]])
"""Tasks of 3 environments in 3 chunks; two of the tasks are in one chunk only."""


def memory_of_tasks():
    """A replay of `NUMBERS` in which a reward says where a transition stands."""
    reward = jnp.arange(9.0 * STEPS).reshape(3, -1)
    rows = held(memory(num_envs=3))
    task = rows.task.replace(number=jnp.repeat(NUMBERS, STEPS, axis=1))
    return full(rows.replace(reward=reward, task=task))


@pytest.mark.parametrize("windows", [1, WINDOWS])
@pytest.mark.parametrize("decode", ["episode", "task"])
def test_what_is_decoded_has_the_same_task(windows, decode):
    agent, learner = tiny_agent()
    known = memory_of_tasks()
    key = jax.random.key(4)
    batch = phases.Sampling(20_000, windows, decode=decode).draw(
        agent, learner, known, key
    )
    plain = phases.Sampling(20_000, windows).draw(
        agent, learner, known, jax.random.split(key)[0]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        (batch.window, batch.current),
        (plain.window, plain.current),
    )
    current = np.asarray(batch.current.reward).astype(int)
    order = np.unique(np.asarray(plain.scaled.reward))
    assert len(order) == 9 * STEPS
    decoded = np.searchsorted(order, np.asarray(batch.scaled.reward))
    chunks = np.asarray(NUMBERS).reshape(-1)
    for chunk, number in enumerate(chunks):
        others = [chunk] if decode == "episode" else np.flatnonzero(chunks == number)
        expected = {STEPS * other + step for other in others for step in range(STEPS)}
        assert set(decoded[current // STEPS == chunk]) == expected


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_what_is_decoded_of_an_episode_has_the_task_that_it_has_by_then(platform):
    """Task 0, then 1, then 0 again, and at the end another one with the number of 1."""
    rows = held(memory(num_envs=3))
    steps = rows.step
    number = jnp.where((steps >= 2) & (steps < 4) | (steps == STEPS - 1), 1, 0)
    spec = jnp.where(steps == STEPS - 1, 7.0, 0.0)
    known = full(
        rows.replace(task=rows.task.replace(number=number, spec=spec)), platform
    )
    kind = np.asarray(number + 2 * (steps == STEPS - 1))
    env, start = np.meshgrid(np.arange(3), np.arange(3) * STEPS, indexing="ij")
    for step in range(STEPS):
        index = jnp.broadcast_to((start + step).reshape(-1, 1), (9, 2_000))
        place = (jnp.broadcast_to(env.reshape(-1, 1), index.shape), index)
        key = jax.random.key(step)
        drawn_env, drawn = map(np.asarray, replay.draw_of_episode(known, key, place))
        np.testing.assert_array_equal(drawn_env, place[0])
        np.testing.assert_array_equal(drawn // STEPS, np.asarray(index) // STEPS)
        for chunk in range(9):
            own = kind[env.reshape(-1)[chunk], start.reshape(-1)[chunk] :][:STEPS]
            expected = set(np.flatnonzero(own == own[step]))
            assert set(drawn[chunk] % STEPS) == expected


@pytest.mark.parametrize("windows", [1, WINDOWS])
def test_a_validation_decodes_what_training_does_from_windows_held_out(windows):
    agent, learner = tiny_agent()
    known, key = memory_of_tasks(), jax.random.key(5)
    sampling = phases.Sampling(20_000, windows, fold=5, decode="task")
    batch = sampling.independent(agent, learner, known, key, "validation")
    current = np.asarray(batch.current.reward).astype(int)
    env, index = jnp.divmod(jnp.asarray(current), 3 * STEPS)
    assert not np.any(replay.is_in_train((env, index), known.size, 5))
    decoded = np.unique(np.asarray(batch.scaled.reward), return_inverse=True)[1]
    number = np.asarray(NUMBERS).reshape(-1)
    np.testing.assert_array_equal(number[decoded // STEPS], number[current // STEPS])
    assert len(set(decoded)) == 9 * STEPS > len(set(current))


def test_all_transitions_of_a_task_are_equally_likely():
    rows = held(memory(num_envs=3))
    task = rows.task.replace(number=jnp.repeat(NUMBERS, STEPS, axis=1))
    ring = full(rows.replace(task=task))
    for num_chunks in (2, 3):  # what is not filled yet is never drawn
        partly = ring.replace(size=jnp.int32(num_chunks * STEPS))
        draws = 60_000
        place = (jnp.zeros(draws, jnp.int32), jnp.full(draws, 3, jnp.int32))
        env, index = replay.draw_of_task(partly, jax.random.key(0), place)
        counts = np.bincount(np.asarray(env * 3 * STEPS + index), minlength=9 * STEPS)
        same = (NUMBERS == 0) & (jnp.arange(3) < num_chunks)
        likely = np.repeat(np.asarray(same).reshape(-1), STEPS)
        assert not counts[~likely].any()
        expected = draws / likely.sum()
        assert np.abs(counts[likely] - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("independent", [False, True])
def test_a_fused_update_from_segments_trains_everything(independent):
    agent, learner = tiny_agent(encoder__num_classes=2)
    sampling = phases.Sampling(16, WINDOWS)
    runs = sampling.draw(agent, learner, memory(), jax.random.key(0))
    policy = None
    if independent:
        policy = sampling.independent(
            agent, learner, memory(), jax.random.key(1), "all"
        )
    after, metrics = on_one_device(agent.update)(
        learner, runs, jax.random.key(2), policy
    )
    assert all(np.isfinite(value) for value in metrics.values())
    for name in ("world_model", "actor", "critic", "temperature"):
        old, new = (getattr(x, name).params for x in (learner, after))
        same = jax.tree.map(np.array_equal, old, new)
        assert not any(jax.tree.leaves(same)), name


def test_what_sac_and_the_decoder_draw_does_not_depend_on_each_other(monkeypatch):
    agent, learner = tiny_agent(elbo__decode="task")
    drawn, known = [], memory()
    none: Any = None

    def updates(update, learner, keys, draw):
        drawn.append(jax.vmap(draw)(keys))
        return mean_over_updates(update, learner, keys, draw)

    monkeypatch.setattr(fused, "mean_over_updates", updates)
    phase = fused.make_fused(agent, phases.Sampling(64, 8, decode="task"), 3, True)

    def places(learner):
        phase(learner, WorkerState(replay=known, key=jax.random.key(7), tasks=none))
        return drawn[-1].places.decoded, drawn[-1].policy_place

    decoded, policy = on_one_device(places)(learner)
    steps = [np.ravel(index) % STEPS for _, index in (decoded, policy)]
    assert np.mean(steps[0] == steps[1]) < 0.3  # by chance a tenth


def test_independent_transitions_are_those_that_sac_learns_from():
    """Their rewards, not the segments', make the critic's target."""
    agent, learner = tiny_agent()
    sampling = phases.Sampling(16, WINDOWS)
    runs = sampling.draw(agent, learner, memory(), jax.random.key(0))
    policy = sampling.independent(agent, learner, memory(), jax.random.key(1), "all")
    rich = policy.replace(
        current=policy.current.replace(reward=policy.current.reward + 100)
    )
    update = on_one_device(agent.update)
    poor_target = update(learner, runs, jax.random.key(2), policy)[1]["sac/target"]
    rich_target = update(learner, runs, jax.random.key(2), rich)[1]["sac/target"]
    assert float(rich_target - poor_target) == pytest.approx(100, rel=1e-3)
