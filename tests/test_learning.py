"""Learning: rewards that only an agent whose encoder works can earn, and real physics.

The observation of the point robot does not tell the goal velocity. Who knows it earns
about -15 in an episode, who does not know it can do no better than stand still, which
earns minus the mean goal speed at each step, about -50.
"""

from typing import Any

import numpy as np
import pytest
from helpers import preset, read_rows, run_training, use_devices

from cemrl_jax.config import Config
from cemrl_jax.envs.schedules import Location, Stationary, Timed

pytestmark = pytest.mark.slow

THRESHOLD = -40.0
SCHEDULES = {
    "stationary": Stationary(),
    "timed": Timed(min_steps=15),
    "location": Location(spacing=1.0, jitter=0.5),
}


def learning_config(kind: str, schedule: str, seed: int) -> Config:
    config = preset("debug")
    config.seed = seed
    config.tensorboard = False
    config.env.schedule = SCHEDULES[schedule]
    config.env.num_test_tasks = 32
    config.encoder.kind = kind
    config.sac.batch_size = 128
    config.train.num_epochs = 30
    config.train.num_updates = 200
    config.train.final_learning_rate = 0.1  # else single evaluations are far off
    config.evaluation.interval = 5
    config.checkpoint.interval = 100
    return config


def last_returns(config: Config, directory: Any) -> list[float]:
    """The last two evaluations in which the schedule runs as in training."""
    run_training(config, directory)
    metric = "test/changing_deterministic_return"
    returns = [float(row[metric]) for row in read_rows(directory) if row[metric]]
    print(config.encoder.kind, config.env.schedule, config.seed, returns)
    return returns[-2:]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    use_devices(monkeypatch, 1)


@pytest.mark.parametrize(
    ("kind", "schedule", "seed"),
    [
        ("shared_y", "stationary", 0),
        ("individual_y", "stationary", 1),
        ("trajectory", "stationary", 0),
        ("shared_y", "timed", 0),
        ("shared_y", "timed", 1),
        ("shared_y", "location", 1),
    ],
)
def test_the_encoder_finds_the_task(kind, schedule, seed, tmp_path):
    config = learning_config(kind, schedule, seed)
    assert min(last_returns(config, tmp_path / "run")) > THRESHOLD


@pytest.mark.parametrize(
    ("schedule", "independent"), [("stationary", True), ("timed", False)]
)
def test_the_encoder_finds_the_task_from_segments(schedule, independent, tmp_path):
    config = learning_config("shared_y", schedule, 0)
    config.elbo.windows_per_segment = 8
    config.sac.independent_transitions = independent
    assert min(last_returns(config, tmp_path / "run")) > THRESHOLD


@pytest.mark.parametrize("schedule", ["timed", "location"])
def test_who_is_told_the_task_solves_it(schedule, tmp_path):
    config = learning_config("shared_y", schedule, 0)
    config.sac.context = "oracle"
    assert min(last_returns(config, tmp_path / "run")) > THRESHOLD


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_who_is_told_nothing_cannot_solve_the_task(schedule, tmp_path):
    config = learning_config("shared_y", schedule, 0)
    config.sac.context = "blind"
    assert max(last_returns(config, tmp_path / "run")) < THRESHOLD


# ---------------------------------------------------------------- real physics


def half_cheetah(name: str, seed: int, num_updates: int) -> Config:
    """A fast preset with small batches and a fraction of its updates."""
    config = preset(name)
    config.seed = seed
    config.tensorboard = False
    config.rollout.num_envs = 16_000 // config.rollout.num_steps
    config.replay.capacity = 400_000
    config.sac.batch_size = 128
    config.train.num_epochs = 12
    config.train.num_updates = num_updates // config.train.num_epochs
    config.evaluation.interval = 12
    config.checkpoint.interval = 100
    config.checkpoint.replay = False
    return config


@pytest.mark.parametrize("seed", [0, 1])
def test_a_half_cheetah_learns_to_run_at_goal_velocities(seed, tmp_path):
    """Standing still earns -300; seeds 0 to 2 had -129, -98 and -78 here."""
    config = half_cheetah("quickstart", seed, 18_000)
    assert last_returns(config, tmp_path / "run")[-1] > -180


def test_a_half_cheetah_learns_to_turn_round(tmp_path):
    """Standing still earns 0; what it earns in the last four collects of 40 episodes.

    Seeds 0 to 2 had 544, 581 and 536 here. One evaluation of ten episodes varies too
    much.
    """
    config = half_cheetah("fast_cheetah_non_stationary_dir", 1, 9_600)
    config.env.num_test_tasks = 10
    config.rollout.num_envs, config.rollout.num_steps = 40, 400
    run_training(config, tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert np.mean([float(row["collect/return"]) for row in rows[-4:]]) > 350
