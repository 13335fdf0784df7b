import functools
from typing import Any

import numpy as np
from helpers import on_one_device, tiny_agent

from cemrl_jax.agents.cemrl.phases import mean_over_updates, skipped_steps


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
