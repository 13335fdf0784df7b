"""A run that the first release with this format wrote goes on."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import ROOT, held, run_training, use_devices

from cemrl_jax import config as config_lib
from cemrl_jax.training import resume

FIXTURE = ROOT / "tests" / "fixtures" / "checkpoint"


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_the_committed_checkpoint_restores_on_any_number_of_devices(
    num_devices, monkeypatch
):
    use_devices(monkeypatch, num_devices)
    config = config_lib.load(FIXTURE / "run" / "config.json")
    run = resume.resume_run(config, FIXTURE / "run")
    assert (run.epoch, run.env_steps) == (1, 640)
    assert held(run.worker.replay).reward.shape[:2] == (num_devices, 16 // num_devices)
    expected = json.loads((FIXTURE / "contents.json").read_text())
    parts = {"learner": run.learner, "replay": held(run.worker.replay)}
    for name, tree in parts.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            values = np.asarray(leaf, np.float64)
            sums = expected.pop(name + jax.tree_util.keystr(path))
            np.testing.assert_allclose(
                [values.sum(), (values**2).sum()], sums, rtol=1e-12
            )
    assert not expected


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(2, 8, 1)])
def test_a_run_moves_between_1_2_and_8_devices(steps, monkeypatch, tmp_path):
    directory = pathlib.Path(shutil.copytree(FIXTURE / "run", tmp_path / "run"))
    config = config_lib.load(directory / "config.json")
    epoch = 1
    for num_devices in steps:
        config.train.num_epochs = epoch = epoch + 1
        with monkeypatch.context() as patch:
            use_devices(patch, num_devices)
            run = run_training(config, directory, resume=True)
        assert (run.epoch, run.env_steps) == (epoch, 320 * (epoch + 1))
        assert run.worker.key.shape == (num_devices,)
