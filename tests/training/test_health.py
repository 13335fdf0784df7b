import re

import jax
import numpy as np
import pytest
from helpers import on_one_device, tiny_agent

from cemrl_jax.agents.cemrl.phases import mean_over_updates, skipped_steps
from cemrl_jax.training.health import skipping_problem


def counted(in_a_row: int) -> dict[str, float]:
    """The metrics of a learner whose critic skipped 7 steps, so many at the end."""
    _, learner = tiny_agent()
    count = np.int32
    critic = learner.critic.replace(skipped=count(7), skipped_in_a_row=count(in_a_row))
    metrics = skipped_steps(learner.replace(critic=critic))
    return {name: float(value) for name, value in metrics.items()}


def test_skipped_steps_are_counted_for_each_optimiser_and_together():
    row = counted(3)
    assert row.pop("train/skipped") == row.pop("train/skipped_critic") == 7
    assert row.pop("train/skipped_in_a_row") == 3
    assert set(row) == {
        f"train/skipped_{x}" for x in ("world_model", "actor", "temperature")
    }
    assert not any(row.values())


@pytest.mark.parametrize("in_a_row", [0, 1, 99])
def test_fewer_than_a_hundred_in_a_row_do_not_stop_a_run(in_a_row):
    assert skipping_problem(counted(in_a_row), "checkpoint 4") == ""
    assert skipping_problem({"epoch": 1.0}, "checkpoint 4") == ""


@pytest.mark.parametrize("in_a_row", [100, 450])
def test_a_hundred_in_a_row_stop_a_run_and_the_last_good_checkpoint_is_named(in_a_row):
    text = skipping_problem(counted(in_a_row), "checkpoints/4")
    assert re.search(r"100 gradients in a row .*critic 7.*checkpoints/4.*lower", text)


def test_means_leave_out_the_updates_that_were_skipped():
    values = np.array([1, np.nan, 3, np.inf], np.float32)
    mean = on_one_device(mean_over_updates)({"a": values, "b": values[1::2]})
    assert float(mean["a"]) == 2
    assert np.isnan(mean["b"])


def test_counts_are_numbers_for_the_log():
    metrics = skipped_steps(tiny_agent()[1])
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {np.dtype(np.float32)}
