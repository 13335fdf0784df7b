import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import on_one_device, tiny_agent

from cemrl_jax.agents.cemrl.phases import updates
from cemrl_jax.agents.cemrl.phases.updates import mean_over_updates, skipped_steps


def test_skipped_steps_are_counted_for_each_optimiser():
    _, learner = tiny_agent()
    counts = np.array([7, 3], np.int32)
    spoilt = learner.replace(critic=learner.critic.replace(skipped=counts))
    assert {name: float(count) for name, count in skipped_steps(spoilt).items()} == {
        "train/skipped_world_model": 0,
        "train/skipped_actor": 0,
        "train/skipped_critic": 7,
        "train/skipped_temperature": 0,
    }


def test_means_leave_out_the_updates_that_were_skipped():
    values = np.array([1, np.nan, 3, np.inf], np.float32)
    spoilt = np.array([np.nan, np.inf, np.nan, np.nan], np.float32)

    def update(count: Any, metrics: Any) -> Any:
        return count + 1, metrics

    count, mean = on_one_device(functools.partial(mean_over_updates, update))(
        np.int32(0), {"a": values, "b": spoilt}
    )
    assert int(count) == 4
    assert float(mean["a"]) == 2
    assert np.isnan(mean["b"])


@pytest.mark.parametrize("num_bytes", [4, 3 * 4, 100])
def test_what_is_drawn_at_once_is_bounded_and_does_not_change_what_is_drawn(
    monkeypatch, num_bytes
):
    """Six draws of four bytes: one at a time, three, all."""
    monkeypatch.setattr(updates, "DRAWN_BYTES", num_bytes)

    def update(total: Any, drawn: Any) -> Any:
        return total * 2 + drawn, {"drawn": drawn}

    keys = jax.random.split(jax.random.key(0), 6)
    expected = np.asarray(jax.vmap(jax.random.normal)(keys))
    total, mean = on_one_device(
        lambda keys: mean_over_updates(update, jnp.float32(0), keys, jax.random.normal)
    )(keys)
    np.testing.assert_allclose(mean["drawn"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(total, expected @ 2.0 ** np.arange(5, -1, -1), rtol=1e-5)


@pytest.mark.parametrize(
    ("num_updates", "at_once"), [(1000, 125), (100, 100), (131, 131), (139, 1)]
)
def test_as_much_is_drawn_at_once_as_divides_the_updates(
    monkeypatch, num_updates, at_once
):
    monkeypatch.setattr(updates, "DRAWN_BYTES", 137 * 8)
    drawn = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert updates._at_once(num_updates, drawn) == at_once
