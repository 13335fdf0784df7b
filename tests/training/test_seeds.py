"""Seeds that train together: as each alone, and without one that fails."""

import contextlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_rows, tiny_config, use_devices

from cemrl_jax.agents.cemrl import phases
from cemrl_jax.commands import train as command
from cemrl_jax.training import loop
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.storage import FAILED

NUM_SEEDS = 3


def train(config, num_seeds):
    """Trains seeds 0 to N - 1 together; returns what each has logged, and folders."""
    config.num_seeds = num_seeds
    command.train(config, None, None, False)
    runs = pathlib.Path(config.output_dir, config.name)
    folders = sorted(runs.iterdir(), key=lambda x: int(x.name.rsplit("-", 1)[1]))
    return [read_rows(folder) for folder in folders], folders


@pytest.mark.parametrize("schedule", ["fused", "alternating"])
def test_each_seed_learns_what_it_would_alone_up_to_rounding(
    schedule, monkeypatch, tmp_path
):
    use_devices(monkeypatch, 2)
    make = lambda name, seed: tiny_config(  # noqa: E731
        train__schedule=schedule,
        train__num_epochs=1,
        output_dir=str(tmp_path / name),
        seed=seed,
    )
    together, _ = train(make("together", 0), NUM_SEEDS)
    assert len(together) == NUM_SEEDS
    for seed in (0, 2):
        (alone,), _ = train(make(f"alone-{seed}", seed), 1)
        for ours, expected in zip(together[seed], alone, strict=True):
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                if value:
                    assert float(ours[name]) == pytest.approx(
                        float(value), rel=1e-4, abs=1e-5
                    ), name
    assert together[0] != together[1]


def test_the_replay_of_all_seeds_exists_once(monkeypatch, tmp_path):
    """Its arrays are the only ones of their size from the first epoch to the last."""
    use_devices(monkeypatch, 1)
    config = tiny_config(
        output_dir=str(tmp_path), train__num_epochs=60, replay__capacity=20_000
    )
    config.checkpoint.interval = config.evaluation.interval = 100
    rows = config.replay_length * config.rollout.num_envs * NUM_SEEDS
    seen = []

    class Watched(loop.Group):
        def finish_epoch(self):
            large = [x for x in jax.live_arrays() if x.size >= 2 * rows]
            seen.append(sum(x.size >= 2 * rows and x.size % rows == 0 for x in large))
            super().finish_epoch()

    monkeypatch.setattr(loop, "Group", Watched)
    train(config, NUM_SEEDS)
    # obs and next_obs have two numbers a row; everything else is smaller
    assert set(seen) == {2}


def test_a_seed_that_fails_is_marked_and_the_others_go_on(
    monkeypatch, tmp_path, capsys
):
    use_devices(monkeypatch, 1)
    make = phases.make_fused

    def failing(*args):
        fused = make(*args)

        def step(learner, worker):
            learner, worker, metrics = fused(learner, worker)
            second = worker.tasks.spec[0] == spec
            late = learner.num_updates >= 6
            value = jnp.where(second & late, jnp.nan, metrics["sac/value"])
            return learner, worker, metrics | {"sac/value": value}

        return step

    config = tiny_config(output_dir=str(tmp_path), train__num_epochs=3)
    runs = command.new_runs(tiny_config(output_dir=str(tmp_path), num_seeds=NUM_SEEDS))
    spec = float(np.asarray(runs[1].pools["train"].spec)[0])
    monkeypatch.setattr(phases, "make_fused", failing)
    rows, folders = train(config, NUM_SEEDS)
    assert [len(seed) for seed in rows] == [4, 3, 4]
    assert rows[1][-1]["sac/value"] == "nan"
    message = capsys.readouterr().err
    assert re.search(r"seed 1 stops.*epoch 2: sac/value is not finite", message)
    with contextlib.ExitStack() as stack:
        saved = [
            stack.enter_context(Checkpoints(folder / "checkpoints", read_only=True))
            for folder in folders
        ]
        assert [one.latest() for one in saved] == [3, 1, 3]
    with Checkpoints(folders[1] / FAILED, read_only=True) as failed:
        assert failed.latest() == 2
