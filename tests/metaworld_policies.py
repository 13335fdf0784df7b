"""The scripted policies of the metaworld package, without its environments.

Those want packages that nothing here needs, and a MuJoCo older than ours.
"""

import importlib
import importlib.util
import pathlib
import sys
import types
import warnings

import jax
import numpy as np

from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.envs.adapters.gymnasium import GymnasiumEnv
from cemrl_jax.envs.metaworld.arm import Sawyer
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.schedules import Stationary


def scripted_policy(name):
    """Returns the package's policy of a task, which acts on an observation `[39]`."""
    if "metaworld" not in sys.modules:
        found = importlib.util.find_spec("metaworld")
        assert found
        assert found.origin
        package = types.ModuleType("metaworld")
        package.__spec__ = found
        package.__path__ = [str(pathlib.Path(found.origin).parent)]
        sys.modules["metaworld"] = package
    policies = importlib.import_module("metaworld.policies")
    return policies.ENV_POLICY_MAP[f"{name}-v3"]()


def drive(
    name, engine, num_arms, num_steps, key=0, choose=lambda step, obs, says: says
):
    """Yields `(arms, info)` after each step of arms in a task, in our environment.

    The package's policy sees the target, as in its MT1. `choose` makes actions `[N, 4]`
    of the step, observations `[N, 39]` and what that policy says.
    """
    robot = Sawyer().on_engine(engine)
    env = NonStationaryEnv(robot, Manipulation((name,)), Stationary())
    pool = env.distribution.sample(jax.random.key(key), num_arms)
    arms = GymnasiumEnv(env, pool, num_arms, num_steps)
    obs, _ = arms.reset(seed=0)
    policy = scripted_policy(name)
    target = np.asarray(arms._state.task.spec[:, -3:])
    for step in range(num_steps):
        seen = np.concatenate([obs[:, :36], target], 1).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about gains above 1, which are clipped
            says = np.stack([policy.get_action(row) for row in seen])
        action = np.clip(choose(step, obs, says), -1, 1)
        obs, _, _, _, info = arms.step(action.astype(np.float32))
        yield arms, info
