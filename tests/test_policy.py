"""`cemrl_jax.load`: the policy for other loops, as one file, and packed."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_agent, run_training, tiny_config, use_devices, with_noise

import cemrl_jax
from cemrl_jax import config as config_lib
from cemrl_jax.analysis import pretrained
from cemrl_jax.analysis.restore import Restored
from cemrl_jax.config import ConfigError
from cemrl_jax.evaluation.record import Plan, make_record
from cemrl_jax.policy import Policy
from cemrl_jax.training.run import make_pools


@pytest.fixture(scope="module", params=["shared_y", "individual_y"])
def restored(request):
    """An agent with noise for weights."""
    config = tiny_config(encoder__kind=request.param, encoder__num_classes=2)
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    return Restored(config, env, agent, with_noise(agent.init(jax.random.key(0))), 7)


@pytest.fixture(scope="module")
def recording(restored):
    """An episode of that agent."""
    pool = make_pools(restored.config)["test"]
    task = jax.tree.map(lambda leaf: leaf[:1], pool)
    plan = Plan(events=jnp.zeros((1, 12), jnp.int32), follow=jnp.zeros(1, bool))
    record = jax.jit(make_record(restored.env, restored.agent, 12))
    key = jax.random.key(0)
    return jax.device_get(record(restored.learner, task, pool, plan, key))


def test_the_policy_acts_as_in_a_recording(restored, recording):
    policy, steps = Policy(restored), recording.transitions
    for _ in range(2):  # the second time after a reset
        policy.reset()
        for step in range(12):
            reward = steps.reward[0, step - 1] if step else 0.0
            action = policy.act(steps.obs[0, step], reward)
            np.testing.assert_allclose(action, steps.action[0, step], atol=1e-6)
            np.testing.assert_allclose(policy.z, recording.belief.z[0, step], atol=1e-5)
    with pytest.raises(ValueError, match=r"must have shape \(2,\)"):
        policy.act(np.zeros(3))


BARE = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [sys.argv[1]]
import jax, numpy as np
file, episode = np.load(sys.argv[2]), np.load(sys.argv[3])
step = jax.jit(jax.export.deserialize(bytearray(file["program"].tobytes())).call)
state = [file[f"state_{n}"] for n in range(int(file["num_state"]))]
actions = []
for obs, reward in zip(episode["obs"], episode["reward"]):
    action, z, probs, state = step(state, obs, reward)
    actions.append(action)
np.save(sys.argv[4], np.array(actions))
assert not any(name.startswith(("cemrl", "flax", "mujoco")) for name in sys.modules)
"""
NEEDED = "jax jaxlib numpy numpy.libs ml_dtypes opt_einsum scipy scipy.libs flatbuffers"


def test_an_exported_policy_runs_with_jax_alone_and_acts_the_same(
    restored, recording, tmp_path
):
    pytest.importorskip("flatbuffers")
    path = tmp_path / "policy.npz"
    Policy(restored).export(path)
    about = json.loads(str(np.load(path)["about"]))
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    bare = tmp_path / "bare"  # what a fresh environment with only JAX has
    bare.mkdir()
    packages = pathlib.Path(jax.__file__).parent.parent
    for name in NEEDED.split():
        if (packages / name).exists():
            (bare / name).symlink_to(packages / name)
    steps = recording.transitions
    reward = np.concatenate([[0], steps.reward[0, :-1]]).astype(np.float32)
    np.savez(tmp_path / "episode.npz", obs=steps.obs[0], reward=reward)
    files = [bare, path, tmp_path / "episode.npz", tmp_path / "actions.npy"]
    subprocess.run(
        [sys.executable, "-I", "-c", BARE, *map(str, files)],
        check=True,
        cwd=tmp_path,
        env={"JAX_PLATFORMS": "cpu"},
    )
    actions = np.load(tmp_path / "actions.npy")
    np.testing.assert_allclose(actions, steps.action[0], atol=1e-6)


@pytest.mark.slow
def test_a_packed_run_acts_the_same_and_is_small(monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    run_training(tiny_config(train__num_epochs=1), tmp_path / "run")
    size = pretrained.pack(tmp_path / "run", tmp_path / "packed")
    assert size < 100_000
    first, second = (cemrl_jax.load(tmp_path / name) for name in ("run", "packed"))
    for step in range(5):
        obs = np.array([0.1 * step, -0.5], np.float32)
        actions = [policy.act(obs, -0.3) for policy in (first, second)]
        np.testing.assert_array_equal(actions[0], actions[1])
    other = tiny_config(sac__hidden_size=9)
    config_lib.save(other, tmp_path / "packed" / "config.json")
    with pytest.raises(ConfigError, match="and the configuration asks for"):
        cemrl_jax.load(tmp_path / "packed")
