"""`scripts/train.py --list`, and the authors' numbers in it."""

import json
import os
import pathlib
import sys

import pytest
from helpers import PRESETS, preset

from cemrl_jax.commands import train
from cemrl_jax.config import Config, to_dict
from cemrl_jax.config import presets as presets_lib
from cemrl_jax.original import config as original_config

FOLDER = os.environ.get("CEMRL_REFERENCE_DATA", "/nowhere/golden")
RECORDED = pathlib.Path(FOLDER).parent / "author_runs.json"


def settings(config: Config) -> dict:
    """What tells experiments of one name apart, epochs aside."""
    data = to_dict(config)
    env, encoder = data["env"], data["encoder"]
    return {
        **{part: env[part] for part in ("robot", "task", "schedule")},
        "merge": encoder["merge"],
        "num_classes": encoder["num_classes"],
    }


def preset_of(run: dict) -> str:
    """The preset of a recorded run: its settings, and its planned epochs if it can."""
    own, _ = original_config.convert({"env_name": run["env"], **run["config"]})
    names = [
        name
        for name in PRESETS
        if name.startswith(run["env"].replace("-", "_"))
        and settings(preset(name)) == settings(own)
    ]
    exact = [
        name for name in names if preset(name).train.num_epochs == own.train.num_epochs
    ]
    (name,) = exact or names
    return name


@pytest.mark.skipif(not RECORDED.exists(), reason="no recordings of the authors' runs")
def test_the_authors_numbers_are_those_that_they_logged():
    expected = {}
    for run in sorted(json.loads(RECORDED.read_text()), key=lambda run: run["run"]):
        if run["algorithm"] == "cemrl":
            expected.setdefault(preset_of(run), []).append(
                {
                    "env_steps": run["env_steps"][-1],
                    "hours": round(run["seconds"][-1] / 3600, 1),
                    "test_return": round(run["test_return"][-1], 1),
                }
            )
    assert presets_lib.author_runs() == expected


def test_the_authors_runs_belong_to_presets():
    runs = presets_lib.author_runs()
    assert set(runs) <= set(PRESETS)
    assert sum(map(len, runs.values())) == 35


def test_the_list_has_a_line_for_each_training_preset(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--list"])
    train.main()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert set(PRESETS) <= set(rows)
    assert not any(name.startswith("benchmark") for name in rows)
    for name in PRESETS:
        env = to_dict(preset(name))["env"]
        parts = [env[part]["name"] for part in ("robot", "task", "schedule")]
        assert rows[name][1:4] == parts


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("cheetah_stationary_vel", ("3", "2", "13..22", "-28..-16")),
        ("humanoid_dir", ("1", "0.65", "66", "532")),
        ("hopper_stationary_vel", ("", "", "", "")),
    ],
)
def test_a_line_of_the_list_sums_up_the_authors_runs(name, cells):
    runs = presets_lib.author_runs().get(name, [])
    assert presets_lib.summary(runs) == cells
