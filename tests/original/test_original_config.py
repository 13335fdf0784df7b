"""The original's JSON files: what they become, and what is dropped."""

import copy
import json

import pytest
from helpers import PRESETS, ROOT, preset

from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError, get_field
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.original import config as original_config

DATA = json.loads((ROOT / "tests" / "fixtures" / "original_configs.json").read_text())
NAMES = list(DATA["configs"])


def nested(flat):
    result = {}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (result.setdefault(group, {}) if group else result)[name] = value
    return result


def original(name, **changes):
    """A file as the original ships them: all keys, as groups."""
    return nested({**DATA["defaults"], **DATA["configs"][name], **changes})


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_the_original_becomes_the_preset_of_its_name(name):
    config, dropped = original_config.convert(original(name))
    assert config == preset(name.replace("-", "_"))
    assert all(reason and "unknown" not in reason for _, reason in dropped)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_read_or_dropped_with_a_reason(name):
    given = original(name)
    flat = {**DATA["defaults"], **DATA["configs"][name]}
    _, dropped = original_config.convert(given)
    left = set(flat) - set(original_config.DEFAULTS) - {key for key, _ in dropped}
    assert left == set()


def test_defaults_are_those_of_the_original():
    for key, value in original_config.DEFAULTS.items():
        assert DATA["defaults"].get(key, value) == value, key


def test_missing_keys_have_the_defaults_of_the_original():
    name = "cheetah-non-stationary-vel"
    part = nested({"env_name": name, **DATA["configs"][name]})
    config, _ = original_config.convert(part)
    assert config == original_config.convert(original(name))[0]


@pytest.mark.parametrize("row", DATA["logged_steps"], ids=lambda row: row["env"])
def test_a_preset_collects_as_many_steps_as_the_authors_logged(row):
    name = row["env"].replace("-", "_")
    candidates = [preset(other) for other in PRESETS if other.startswith(name)]
    config = preset(name)
    collect = config.rollout.num_envs * config.rollout.num_steps
    assert row["first"] == (config.rollout.num_initial + 1) * collect
    assert row["last"] == (config.rollout.num_initial + row["epochs"]) * collect
    if row["variants"]:
        assert any(
            get_field(config, "env.task.variants") == tuple(row["variants"])
            and config.encoder.num_classes == row["num_classes"]
            and config.encoder.merge == row["merge"]
            for config in candidates
        )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("env_name", "snake-non-stationary-vel", "must begin with one of ant"),
        ("env_name", "cheetah-hurdles", "end with one of vel"),
        ("env_params.n_train_tasks", 3, "must be 2, 1 or -1"),
        ("env_params.change_mode", "mood", "must be location or time"),
        ("env_params.negative_change_point_basis", -7, "must be minus"),
        ("algo_params.num_train_epochs", "many", "must be like 250"),
        ("algo_params.seed", True, "must be like 0"),
        ("algo_params.max_path_length", 0, "at least 1"),
        ("reconstruction_params.train_val_percent", 1.0, "between 0 and 1"),
    ],
)
def test_what_has_no_counterpart_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        original_config.convert(original("cheetah-non-stationary-dir", **{key: value}))


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        (
            {"algo_params.merge_mode": "mlp", "algo_params.permute_samples": True},
            "algo_params.permute_samples",
            "ANOTHER",
        ),
        (
            {"algo_params.permute_samples": True},
            "algo_params.permute_samples",
            "does not see the order",
        ),
        (
            {"algo_params.batch_size_reconstruction": 64},
            "algo_params.batch_size_reconstruction",
            "batch_size_policy=256",
        ),
        (
            {"reconstruction_params.lr_decoder": 1e-3},
            "reconstruction_params.lr_decoder",
            "lr_encoder=0.0003",
        ),
        ({"algo_params.colour": "red"}, "algo_params.colour", "unknown"),
    ],
)
def test_what_is_not_followed_is_said(changes, key, reason):
    _, dropped = original_config.convert(original("cheetah-stationary-vel", **changes))
    assert reason in dict(dropped)[key]


def test_timed_changes_of_the_original():
    config, _ = original_config.convert(
        original(
            "cheetah-non-stationary-vel",
            **{
                "env_params.change_mode": "time",
                "env_params.change_steps": 100,
                "env_params.change_prob": 0.2,
            },
        )
    )
    assert config.env.schedule == Timed(min_steps=100, probability=0.2)


def test_the_command_line_accepts_a_file_and_prints_what_it_dropped(tmp_path, capsys):
    path = tmp_path / "original.json"
    path.write_text(json.dumps(original("humanoid-dir")))
    config = command_line.read_config(str(path), ["--config.seed=3"])
    expected = copy.deepcopy(preset("humanoid_dir"))
    expected.seed = 3
    assert config == expected
    printed = capsys.readouterr().out
    assert "algo_params.use_relabeler: z is computed" in printed
    assert "env_params.termination_possible: the original's humanoid" in printed
