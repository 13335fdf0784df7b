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
    mean = on_one_device(mean_over_updates)({"a": values, "b": values[1::2]})
    assert float(mean["a"]) == 2
    assert np.isnan(mean["b"])
