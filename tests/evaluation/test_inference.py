"""Recovery and class accuracy of traces with known numbers."""

from typing import Any

import numpy as np
import pytest

from cemrl_jax.evaluation.inference import Trace, metrics

LENGTH, CHANGE, WINDOW = 60, 30, 5


def a_trace(delay: int = 4, **changes: Any) -> Any:
    """Two episodes whose task changes once; z and the class follow after a while."""
    steps = np.broadcast_to(np.arange(LENGTH), (2, LENGTH))
    known = (steps >= CHANGE + delay).astype(np.int32)
    make: Any = Trace  # of numpy arrays
    trace = make(
        reward=np.where((steps >= CHANGE) & (known == 0), -2.0, -1.0),
        z=3.0 * known[..., None],
        inferred=known,
        base=(steps >= CHANGE).astype(np.int32),
        parameters=np.stack([1.0 + (steps >= CHANGE), np.ones((2, LENGTH))], -1),
        changed=steps == CHANGE,
        alive=np.ones_like(steps, bool),
    )
    return trace.replace(**changes)


def a_ramp() -> np.ndarray:
    """A number of the task that is another in each step."""
    return np.broadcast_to(np.linspace(0, 2, LENGTH), (2, LENGTH))[..., None]


def test_a_row_has_the_recovery_of_each_change_and_the_accuracy_of_classes():
    found = metrics(a_trace(delay=4), WINDOW, num_classes=2)
    assert found == {
        "recovery/z_steps": 4.0,
        "recovery/reward_steps": 4.0,
        "recovery/lost_return": pytest.approx(4.0),
        "recovery/changes": 2.0,
        "inference/class_accuracy": 1.0,  # 4 steps of delay are within the window
    }


def test_a_class_that_comes_late_costs_accuracy():
    found = metrics(a_trace(delay=10), WINDOW, num_classes=2)
    wrong, settled = 10 - WINDOW, LENGTH - 2 * WINDOW
    assert found["inference/class_accuracy"] == pytest.approx(1 - wrong / settled)


def test_what_is_not_defined_is_left_out():
    still = a_trace(changed=np.zeros((2, LENGTH), bool))
    assert set(metrics(still, WINDOW, num_classes=2)) == {"inference/class_accuracy"}
    assert metrics(still, WINDOW, num_classes=1) == {}  # two tasks are too few
    goal = a_ramp()
    ramp = still.replace(parameters=goal, z=goal)
    assert set(metrics(ramp, WINDOW, num_classes=1)) == {"inference/task_r2"}
    constant = still.replace(parameters=np.ones((2, LENGTH, 1)))
    assert metrics(constant, WINDOW, num_classes=1) == {}
    without = still.replace(inferred=np.full((2, LENGTH), -1))
    assert metrics(without, WINDOW, num_classes=2) == {}


def test_with_one_class_the_task_is_read_from_z_by_a_linear_map():
    goal = a_ramp()
    both = np.concatenate([goal, np.ones_like(goal)], -1)  # the second never varies
    told = a_trace(parameters=both, z=3 * goal - 1)
    assert metrics(told, WINDOW, num_classes=1)["inference/task_r2"] == pytest.approx(1)
    folded = a_trace(parameters=goal, z=np.abs(goal - 1))
    assert metrics(folded, WINDOW, num_classes=1)["inference/task_r2"] < 0.1


def test_before_a_window_is_full_nothing_is_read():
    ramp = a_trace(parameters=a_ramp(), z=a_ramp())
    assert "inference/task_r2" in metrics(ramp, WINDOW, num_classes=1)
    found = metrics(ramp, LENGTH, num_classes=1)
    assert "inference/task_r2" not in found


def test_a_policy_whose_numbers_are_lost_reads_nothing():
    lost = a_trace(parameters=a_ramp(), z=np.full((2, LENGTH, 1), np.nan))
    assert "inference/task_r2" not in metrics(lost, WINDOW, num_classes=1)
