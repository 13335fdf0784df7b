import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    held,
    on_devices,
    on_one_device,
    random_transitions,
    tiny_agent,
    tiny_config,
    use_devices,
)

from cemrl_jax.agents.cemrl import phases
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.data.types import Trainable
from cemrl_jax.runtime import parallel
from cemrl_jax.training import run as run_lib

BATCH = 16


def shards(tree: Any, num_devices: int) -> Any:
    """`[B, ...]` -> `[D, B / D, ...]`."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(num_devices, -1, *leaf.shape[1:]), tree
    )


@functools.cache
def stepped(num_devices: int) -> Any:
    """A model step, then a policy step on the same batch, on so many devices."""
    agent, learner = tiny_agent(encoder__num_classes=2)
    rows = random_transitions(0, BATCH, agent.window_steps + 1, steps=50)
    noise = (
        agent.world_model_noise(jax.random.key(1), BATCH),
        agent.policy_noise(jax.random.key(2), BATCH),
    )

    def step(learner: Any, data: Any) -> Any:
        rows, (world_model_noise, policy_noise) = data
        batch = agent.make_batch(learner, rows)
        learner, model_metrics, z = agent.world_model_step(
            learner, batch, world_model_noise
        )
        learner, policy_metrics = agent.policy_step(
            learner, batch.current, z, policy_noise
        )
        metrics = parallel.average(model_metrics | policy_metrics)
        return (learner, metrics), z

    mapped = on_devices(num_devices, step)
    (learner, metrics), z = mapped(learner, shards((rows, noise), num_devices))
    parallel.assert_replicated(learner)
    return jax.device_get((learner, metrics, z.reshape(BATCH, -1)))


@pytest.mark.parametrize("num_devices", [2, 8])
def test_the_same_batch_gives_the_same_losses_on_any_number_of_devices(num_devices):
    expected, metrics = stepped(1)[1], stepped(num_devices)[1]
    assert metrics.keys() == expected.keys()
    for name in metrics:
        np.testing.assert_allclose(
            metrics[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("num_devices", [2, 8])
def test_the_same_batch_gives_the_same_learner_on_any_number_of_devices(num_devices):
    """Adam divides by the gradient's size, which lets rounding through, hence atol."""
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5),
        stepped(num_devices)[0],
        stepped(1)[0],
    )


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_gradient_step_does_not_depend_on_the_number_of_devices(num_devices):
    data = jnp.arange(16.0).reshape(num_devices, -1)
    optimizer = optax.sgd(0.1)

    def step(state: Trainable, data: Any) -> Any:
        loss = lambda w: (jnp.square(w - data).mean(), {})  # noqa: E731
        return parallel.gradient_step(loss, optimizer, state)[0], data

    params = jnp.float32(0)
    state = Trainable(
        params=params,
        opt_state=optimizer.init(params),
        skipped=jnp.zeros(2, jnp.int32),
    )
    state, _ = on_devices(num_devices, step)(state, data)
    np.testing.assert_allclose(state.params, 0.2 * 7.5, rtol=1e-6)


def test_a_gradient_that_is_not_finite_on_one_device_is_skipped_on_all_and_counted():
    optimizer = optax.adam(0.1)
    params = {"w": jnp.ones(3)}
    state = Trainable(
        params=params,
        opt_state=optimizer.init(params),
        skipped=jnp.zeros(2, jnp.int32),
    )

    def step(state, data):
        loss = lambda params: ((params["w"] * data).sum(), {})  # noqa: E731
        state, _ = parallel.gradient_step(loss, optimizer, state)
        return state, data

    bad = jnp.ones((8, 3)).at[5, 1].set(jnp.nan)
    once, _ = on_devices(8, step)(state, jnp.ones((8, 3)))
    twice, _ = on_devices(8, step)(once, bad)
    thrice, _ = on_devices(8, step)(twice, bad)
    np.testing.assert_array_equal(thrice.params["w"], once.params["w"])
    assert_same(thrice.opt_state, once.opt_state)
    np.testing.assert_array_equal(thrice.skipped, [2, 2])
    after, _ = on_devices(8, step)(thrice, jnp.ones((8, 3)))
    np.testing.assert_array_equal(after.skipped, [2, 0])
    plain, _ = on_devices(8, step)(once, jnp.ones((8, 3)))
    np.testing.assert_array_equal(after.params["w"], plain.params["w"])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e30])
def test_a_gradient_that_adam_could_not_square_is_skipped(bad):
    """1e30 has no square in float32; Adam would never move that weight again."""
    after = follow([1.0, bad, 1.0])
    assert_same(after[1].params, after[0].params)
    np.testing.assert_array_equal(after[2].skipped, [1, 0])
    assert np.all(after[2].params["w"] != after[1].params["w"])


def test_after_a_hundred_in_a_row_nothing_is_trained_any_more():
    after = follow([1.0] + [np.nan] * 100 + [1.0])
    np.testing.assert_array_equal(after[-1].skipped, [101, 101])
    assert_same(after[-1].params, after[0].params)
    after = follow([1.0] + [np.nan] * 99 + [1.0])
    np.testing.assert_array_equal(after[-1].skipped, [99, 0])
    assert np.all(after[-1].params["w"] != after[0].params["w"])


def follow(slopes: list[float]) -> list[Trainable]:
    """Steps of Adam along slopes on one device; the state after each."""
    optimizer, params = optax.adam(0.1), {"w": jnp.ones(3)}
    counts = jnp.zeros(2, jnp.int32)
    state, states = Trainable(params, optimizer.init(params), counts), []

    def step(state: Trainable, slope: Any) -> Any:
        loss = lambda params: (slope * params["w"].sum(), {})  # noqa: E731
        return parallel.gradient_step(loss, optimizer, state)[0]

    compiled = on_one_device(step)
    for slope in np.array(slopes, np.float32):
        state = compiled(state, slope)
        states.append(state)
    return states


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_spmd_gives_each_device_its_row_and_returns_one_learner():
    step = parallel.spmd(
        lambda learner, worker: (
            learner + parallel.average(worker.mean()),
            2 * worker,
            {"mean": parallel.average(worker.mean())},
        )
    )
    learner, worker, metrics = step(jnp.float32(1), jnp.arange(16.0).reshape(8, 2))
    assert float(learner) == 8.5
    assert float(metrics["mean"]) == 7.5
    np.testing.assert_array_equal(worker, 2 * np.arange(16.0).reshape(8, 2))


# ---------------------------------------------------------------- replication


def differing(per_device: list[float]) -> jax.Array:
    """An array that claims to be replicated and holds other values on each device."""
    mesh = jax.make_mesh((len(per_device),), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    pieces = [
        jax.device_put(jnp.float32(value), device)
        for value, device in zip(per_device, mesh.devices.flat, strict=True)
    ]
    return jax.make_array_from_single_device_arrays((), sharding, pieces)


def test_assert_replicated_catches_a_difference_and_names_the_leaf():
    parallel.assert_replicated({"a": differing([1.0] * 8)})
    with pytest.raises(AssertionError, match=r"\['b'\] differs between device 0 and 5"):
        parallel.assert_replicated({"b": differing([1.0] * 5 + [2.0] + [1.0] * 2)})


def test_assert_replicated_compares_hosts_and_names_leaf_and_host(monkeypatch):
    def with_other_hosts(own):
        return np.stack([own, own, own + np.array([0, 1], own.dtype)])

    tree = {"a": differing([1.0] * 8), "b": differing([2.0] * 8)}
    parallel.assert_replicated(tree)
    monkeypatch.setattr(parallel, "gather", with_other_hosts)
    with pytest.raises(
        AssertionError, match=r"\['b'\] differs between process 0 and 2"
    ):
        parallel.assert_replicated(tree)


def test_devices_of_several_hosts_are_ordered_by_host_then_number():
    device = collections.namedtuple("device", "process_index id")
    wired = [device(1, 2), device(0, 1), device(1, 3), device(0, 0)]
    assert [x.id for x in parallel.in_order(wired)] == [0, 1, 2, 3]


def test_assert_replicated_takes_nan_as_equal_to_nan():
    parallel.assert_replicated(differing([float("nan")] * 8))


# ---------------------------------------------------------------- placing


def test_split_keys_gives_each_device_another_key():
    keys = jax.random.key_data(parallel.split_keys(jax.random.key(0), 8))
    assert len(np.unique(keys, axis=0)) == 8


def test_place_puts_one_row_on_each_device():
    placed = parallel.place(np.arange(16.0, dtype=np.float32).reshape(8, 2))
    assert len({shard.device for shard in placed.addressable_shards}) == 8
    assert all(shard.data.shape == (1, 2) for shard in placed.addressable_shards)


def test_on_each_device_makes_one_row_on_each_device():
    keys = parallel.split_keys(jax.random.key(0), 8)
    made = parallel.on_each_device(
        lambda key, scale: scale * jax.random.uniform(key), keys, jnp.float32(3)
    )
    assert len({shard.device for shard in made.addressable_shards}) == 8
    assert len(np.unique(made)) == 8


@pytest.mark.parametrize("num_rows", [5, 8, 11])
def test_rows_shared_out_over_devices_come_back_in_order(num_rows):
    rows = np.arange(3.0 * num_rows, dtype=np.float32).reshape(num_rows, 3)
    shared, size = parallel.share(rows)
    assert shared.shape == (8, -(-num_rows // 8), 3)
    double = parallel.spread(lambda factor, part: factor * part)
    result = double(jnp.float32(2), shared)
    assert len({shard.device for shard in result.addressable_shards}) == 8
    np.testing.assert_array_equal(parallel.collect_rows(result, size), 2 * rows)


def test_memory_is_shared_by_the_virtual_devices(monkeypatch):
    shared = parallel.memory_bytes()
    use_devices(monkeypatch, 1)
    alone = parallel.memory_bytes()
    assert shared is not None
    assert alone is not None
    assert alone > 4 * shared


# ---------------------------------------------------------------- phases


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A fresh run on 8 devices after its first collect, and the metrics."""
    config = tiny_config()
    run = run_lib.start_run(config, tmp_path_factory.mktemp("run"))
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    steps = phases.make_phases(config, env, agent, 8)
    collect = parallel.spmd(steps["collect"])
    return collect(run.learner, run.worker)


def test_devices_collect_different_experience(collected):
    _, worker, _ = collected
    obs = held(worker.replay).obs
    assert obs.shape[:2] == (8, 2)
    assert len(np.unique(obs[:, 0, 5, 1])) == 8
    np.testing.assert_array_equal(worker.replay.size, [20] * 8)


def test_the_learner_stays_the_same_on_all_devices_after_a_collect(collected):
    learner, _, _ = collected
    parallel.assert_replicated(learner)
    assert len(learner.normalizer.mean["obs"].addressable_shards) == 8


def test_the_statistics_count_the_experience_of_all_devices(collected):
    learner, worker, _ = collected
    obs = held(worker.replay).obs[:, :, :20].reshape(-1, 2)
    np.testing.assert_allclose(learner.normalizer.mean["obs"], obs.mean(0), atol=1e-5)
    np.testing.assert_allclose(learner.normalizer.std["obs"], obs.std(0), rtol=1e-3)


def test_metrics_are_averages_over_devices(collected):
    _, worker, metrics = collected
    reward = held(worker.replay).reward[:, :, :20]
    expected = reward.sum(-1).mean()
    assert float(metrics["collect/return"]) == pytest.approx(expected, rel=1e-4)
