"""A trained policy for other people's loops: numpy in, numpy out; and as one file."""

import json
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax.analysis.restore import Restored, restore
from cemrl_jax.config import ConfigError
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import Task

PLATFORMS = ("cpu", "cuda", "tpu")
"""What an exported policy is lowered for."""
HOW_TO_USE = """\
import jax, numpy as np
file = np.load("policy.npz")
step = jax.jit(jax.export.deserialize(bytearray(file["program"].tobytes())).call)
start = [file[f"state_{n}"] for n in range(int(file["num_state"]))]
state = start                                     # at the start of each episode
action, z, probs, state = step(state, obs, reward)  # reward of the last step, else 0
"""


class Policy:
    """Acts on the mean of a trained policy and remembers the window of an episode.

    Attributes:
      restored: the agent, its configuration and environment.
      z: `[Z]` the inferred task that the last action was for.
      probs: `[K]` its class probabilities.
    """

    def __init__(self, restored: Restored) -> None:
        """Of a trained agent."""
        self.restored = restored
        self._function, self._start = step_function(restored)
        self._step = jax.jit(self._function)
        self.z = np.zeros(restored.agent.context_size, np.float32)
        self.probs = np.zeros(restored.agent.num_classes, np.float32)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: an episode begins."""
        self._state = self._start

    def act(self, obs: np.ndarray, reward: float = 0.0) -> np.ndarray:
        """Returns the action `[action_size]` in [-1, 1] for an observation.

        Args:
          obs: `[obs_size]` as the environment gives it.
          reward: of the step that led here; without effect at an episode's start.

        Raises:
          ValueError: an observation of another size.
        """
        obs = np.asarray(obs, np.float32)
        size = self.restored.agent.obs_size
        if obs.shape != (size,):
            raise ValueError(f"obs of shape {obs.shape} must have shape ({size},)")
        action, z, probs, self._state = self._step(self._state, obs, np.float32(reward))
        self.z, self.probs = np.asarray(z), np.asarray(probs)
        return np.asarray(action)

    def export(
        self, path: str | pathlib.Path, platforms: tuple[str, ...] = PLATFORMS
    ) -> None:
        """Writes the policy as one file that needs only JAX; see `HOW_TO_USE`.

        Args:
          path: the file, `.npz`.
          platforms: what it can run on.

        Raises:
          ConfigError: flatbuffers, which JAX needs for it, is missing.
        """
        shapes = jax.eval_shape(lambda: self._start)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        obs = jax.ShapeDtypeStruct((self.restored.agent.obs_size,), jnp.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = jax.export.export(self._step, platforms=platforms)(
                shapes, obs, scalar
            )
        try:
            program = exported.serialize()
        except ImportError as error:
            raise ConfigError(
                "an export needs flatbuffers: pip install -e '.[export]'"
            ) from error
        about = {
            "name": self.restored.config.name,
            "epoch": self.restored.epoch,
            "platforms": list(platforms),
            "obs_size": self.restored.agent.obs_size,
            "action_size": self.restored.agent.action_size,
            "jax": jax.__version__,
            "how_to_use": HOW_TO_USE,
        }
        arrays: dict[str, Any] = {
            f"state_{n}": np.asarray(leaf) for n, leaf in enumerate(self._start)
        }
        arrays["program"] = np.frombuffer(bytes(program), np.uint8)
        arrays["num_state"] = np.asarray(len(self._start))
        arrays["about"] = np.asarray(json.dumps(about))
        with pathlib.Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)


def step_function(restored: Restored) -> tuple[Any, list[Array]]:
    """Returns a policy as a function of arrays only, and its state at the start.

    Returns:
      `step(state, obs, reward) -> (action, z, probs, state)`, where the state is a list
      of arrays: the window, the last observation and action, and whether there is one.

    Raises:
      ConfigError: the policy acts on the true task.
    """
    agent = restored.agent
    policy = agent.policy(restored.learner, deterministic=True)
    if policy.sees_task:
        raise ConfigError(
            f"sac.context={restored.config.sac.context!r} needs the true task, which no"
            " loop but its own can tell; load a run with sac.context='inferred'"
        )
    empty, structure = jax.tree.flatten(policy.start(1))

    def step(state: list[Array], obs: Array, reward: Array) -> tuple[Any, ...]:
        *leaves, last_obs, last_action, started = state
        window = jax.tree.unflatten(structure, leaves)
        with jax.default_matmul_precision("highest"):
            last = _transition(last_obs, last_action, reward, obs)
            seen = policy.observe(window, last)
            window = jax.tree.map(
                lambda new, old: jnp.where(started > 0, new, old), seen, window
            )
            believed = policy.believe(window, None)
            action = policy.act(window, obs[None], jax.random.key(0), None)[0]
        after = [*jax.tree.leaves(window), obs, action, jnp.ones_like(started)]
        return action, believed.z[0], believed.probs[0], after

    start = [
        *empty,
        jnp.zeros(agent.obs_size),
        jnp.zeros(agent.action_size),
        jnp.float32(0),
    ]
    return step, start


def _transition(obs: Array, action: Array, reward: Array, after: Array) -> Transition:
    """Returns a transition `[1]` of an unknown task."""
    zero = jnp.zeros(1, jnp.int32)
    return Transition(
        obs=obs[None],
        action=action[None],
        reward=jnp.reshape(reward, (1,)),
        next_obs=after[None],
        terminated=jnp.zeros(1),
        step=zero,
        task=Task(kind=zero, base=zero, spec=jnp.zeros(1), number=zero, overrides={}),
    )


def load(run: str | pathlib.Path, checkpoint: str = "best") -> Policy:
    """Returns the policy of a run, or of a packed one.

    Args:
      run: its folder.
      checkpoint: "best", "latest" or an epoch.

    Raises:
      ConfigError: no run there, or no such checkpoint.
      CheckpointError: it cannot be read.
    """
    return Policy(restore(pathlib.Path(run), checkpoint))
