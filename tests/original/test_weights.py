"""Importing the original's weights: names, checks, and the script from end to end."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import call_script

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.original.weights import (
    export_params,
    from_torch,
    import_weights,
    unused,
)

OBS_SIZE, ACTION_SIZE = 2, 1
TORCH_NAMES = {
    "encoder/shared/": "encoder/shared_encoder.",
    "encoder/class_head/": "encoder/class_encoder.linear.",
    "encoder/gauss_head_": "encoder/gauss_encoder_list.",
    "encoder/pre_class/linear/": "encoder/pre_class_encoder.",
    "encoder/pre_class/": "encoder/pre_class_encoder.",
    "decoder/state/": "decoder/net_state_decoder.",
    "decoder/reward/": "decoder/net_reward_decoder.",
    "policy/mean/": "policy/last_fc.",
    "policy/log_std/": "policy/last_fc_log_std.",
}


@functools.cache
def make(merge="mlp", prior="learnt", temperature="conditioned", num_classes=3):
    config = Config()
    config.encoder.merge, config.encoder.num_classes = merge, num_classes
    config.encoder.latent_size, config.encoder.window_steps = 2, 4
    config.elbo.prior, config.sac.temperature = prior, temperature
    config.encoder.width_factor = config.elbo.decoder_width_factor = 1.0
    config.elbo.state_size, config.sac.hidden_size = OBS_SIZE, 8
    return make_agent(config, OBS_SIZE, ACTION_SIZE)


def trees(learner):
    return {
        "actor": learner.actor.params,
        "critic": learner.critic.params,
        "target_critic": learner.target_critic,
        "temperature": learner.temperature.params,
        **learner.world_model.params,
    }


@functools.cache
def fresh(agent: Agent, seed: int):
    return jax.jit(agent.init)(jax.random.key(seed))


def originals(agent: Agent, seed=1):
    """Returns weights with the original's names."""
    learner = fresh(agent, seed)
    arrays = {}
    for network, params in trees(learner).items():
        arrays |= export_params(agent, network, jax.device_get(params))
    return {
        name: np.asarray(array).reshape(array.shape or (1,))
        for name, array in arrays.items()
    }


def statistics():
    sizes = {
        "observations": OBS_SIZE,
        "actions": ACTION_SIZE,
        "rewards": 1,
        "next_observations": OBS_SIZE,
    }
    return {
        f"stats_{name}_{kind}": np.full(size, value, np.float32)
        for name, size in sizes.items()
        for kind, value in (("mean", 2.0), ("std", 4.0))
    }


def as_torch(arrays):
    """Returns the arrays as the original's state dictionaries have them."""
    result = {}
    for name, array in arrays.items():
        for ours, theirs in TORCH_NAMES.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        network, rest = name.split("/", 1) if "/" in name else (name, "")
        rest = rest.replace("/kernel", ".weight").replace("/bias", ".bias")
        rest = {"kernel": "weight"}.get(rest, rest).replace(".kernel", ".weight")
        rest = rest.replace("out.", "last_fc.").replace("linear/", "linear.")
        result[f"{network}/{rest}"] = array.T
    return result


@pytest.mark.parametrize(
    "agent",
    [make(), make("linear", "fixed", "learnt"), make("add", num_classes=1)],
    ids=["mlp", "linear", "one class"],
)
def test_imported_weights_are_those_that_were_exported(agent):
    expected = fresh(agent, 1)
    actual = import_weights(agent, fresh(agent, 0), originals(agent))
    jax.tree.map(np.testing.assert_array_equal, trees(actual), trees(expected))


@pytest.mark.parametrize("merge", ["mlp", "linear"])
def test_names_of_torch_state_dictionaries_are_understood(merge):
    arrays = originals(make(merge))
    converted = from_torch(as_torch(arrays))
    assert set(converted) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(converted[name], array, err_msg=name)


def test_statistics_normalise_like_the_original():
    agent = make()
    learner = import_weights(agent, fresh(agent, 0), originals(agent) | statistics())
    normalizer: Any = learner.normalizer
    assert jnp.allclose(normalizer.mean["obs"], 2.0)
    assert jnp.allclose(normalizer.std["reward"], 4.0)
    assert normalizer.mean["reward"].shape == ()


def test_networks_that_the_configuration_does_not_have_are_left_out():
    agent = make(prior="fixed", temperature="learnt")
    arrays = originals(make())
    learner = import_weights(agent, fresh(agent, 0), arrays)
    assert learner.temperature.params["params"]["log_alpha"] == 0
    assert {name.split("/")[0] for name in unused(agent, arrays)} == {
        "prior_pz",
        "alpha_net",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("qf1/fc0/bias"), "missing array qf1/fc0/bias"),
        (lambda arrays: arrays.pop("prior_pz/linear/kernel"), "missing array prior_pz"),
        (lambda arrays: arrays.update(other=np.ones(1)), "unknown array other"),
        (
            lambda arrays: arrays.update({"policy/mean/bias": np.ones(7)}),
            r"policy/mean/bias has shape \(7,\); the configuration wants \(1,\)",
        ),
        (
            lambda arrays: arrays.update({"policy/mean/bias": np.array([np.nan])}),
            "policy/mean/bias is not finite",
        ),
        (
            lambda arrays: arrays.pop("stats_rewards_std"),
            "missing array stats_rewards_std",
        ),
    ],
)
def test_bad_arrays_are_named(change, message):
    agent = make()
    arrays = originals(agent) | statistics()
    change(arrays)
    with pytest.raises(ConfigError, match=message):
        import_weights(agent, fresh(agent, 0), arrays)


@pytest.fixture
def config_file(tmp_path):
    """Returns a preset of short episodes of the point, and its agent's arrays."""
    path = tmp_path / "small.py"
    path.write_text(
        "from cemrl_jax.configs import debug\n"
        "def get_config():\n"
        "    config = debug.get_config()\n"
        "    config.sac.temperature = 'learnt'\n"
        "    return config\n"
    )
    from cemrl_jax.commands import command_line

    config = command_line.load_file(path)
    env = config.env.make()
    return path, originals(make_agent(config, env.obs_size, env.action_size))


def test_imported_run_can_be_evaluated(tmp_path, config_file, monkeypatch):
    path, arrays = config_file
    np.savez(tmp_path / "weights.npz", **as_torch_of_all(arrays))
    run = f"--run={tmp_path / 'run'}"
    weights = f"--weights={tmp_path / 'weights.npz'}"
    arguments = [f"--config={path}", weights, run]
    assert call_script("import_weights", arguments, monkeypatch) == 0
    arguments = [run, "--episodes=1", "--compile-cache=off"]
    assert call_script("evaluate", arguments, monkeypatch) == 0
    assert (tmp_path / "run" / "evaluation.csv").is_file()


def as_torch_of_all(arrays):
    """Leaves the one number that the original does not save as it is."""
    alone = {k: v for k, v in arrays.items() if k == "log_alpha"}
    return as_torch({k: v for k, v in arrays.items() if k not in alone}) | alone


def test_folder_of_arrays_with_one_missing_is_refused(
    tmp_path, config_file, monkeypatch, capsys
):
    path, arrays = config_file
    arrays.pop("encoder/class_head/bias")
    for name, array in arrays.items():
        file = tmp_path / "weights" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    weights = f"--weights={tmp_path / 'weights'}"
    run = f"--run={tmp_path / 'run'}"
    arguments = [f"--config={path}", weights, run]
    assert call_script("import_weights", arguments, monkeypatch) == 2
    assert "missing array encoder/class_head/bias" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
