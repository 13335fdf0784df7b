"""Any of these environments as a vectorised gymnasium environment."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector.utils import batch_space
from jax import Array

from cemrl_jax.envs.base import EnvState, Task
from cemrl_jax.envs.nonstationary import NonStationaryEnv
from cemrl_jax.envs.tasks.pools import draw_from


class GymnasiumEnv(gymnasium.vector.VectorEnv):
    """Environments side by side in one compiled step; numpy arrays in and out.

    Each episode draws its task from a pool and changes it by its schedule. An episode
    that is over begins anew in the next step, as gymnasium's own vector environments
    do it: the action of that step has no effect and its reward is 0.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self, env: NonStationaryEnv, pool: Task, num_envs: int, num_steps: int
    ) -> None:
        """Makes the spaces.

        Args:
          env: the environment.
          pool: `[N]` tasks that episodes may have.
          num_envs: environments side by side.
          num_steps: length of an episode; reaching it truncates.
        """
        self.env = env
        self.pool = pool
        self.num_envs = num_envs
        self.num_steps = num_steps
        self.single_observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (env.obs_size,), np.float32
        )
        self.single_action_space = gymnasium.spaces.Box(
            -1.0, 1.0, (env.action_size,), np.float32
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._key = jax.random.key(0)
        self._over = np.zeros(num_envs, bool)
        self._start = jax.jit(self._start_all)
        self._step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, None)))
        self._select = jax.jit(_select)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts all episodes; a seed makes them and what follows reproducible."""
        del options
        if seed is not None:
            self._key = jax.random.key(seed)
        self._state = self._fresh()
        self._over[:] = False
        return np.asarray(self._state.obs), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes a control step in each environment.

        The last result has `success` `[num_envs]` in a world that tells it.
        """
        state = self._step(self._state, jnp.asarray(actions, jnp.float32), self.pool)
        if self._over.any():
            state = self._select(self._over, self._fresh(), state)
        self._state = state
        terminated = np.asarray(state.terminated)
        truncated = (np.asarray(state.step) >= self.num_steps) & ~terminated
        self._over = terminated | truncated
        return (
            np.asarray(state.obs),
            np.asarray(state.reward),
            terminated,
            truncated,
            _info(state),
        )

    def _fresh(self) -> EnvState:
        self._key, key = jax.random.split(self._key)
        return self._start(key)

    def _start_all(self, key: Array) -> EnvState:
        key_tasks, key_envs = jax.random.split(key)
        tasks = jax.vmap(draw_from, in_axes=(0, None))(
            jax.random.split(key_tasks, self.num_envs), self.pool
        )
        return jax.vmap(self.env.reset)(
            jax.random.split(key_envs, self.num_envs), tasks
        )


def _info(state: EnvState) -> dict[str, Any]:
    """Returns what gymnasium has no place of its own for."""
    return {} if state.success is None else {"success": np.asarray(state.success)}


def _select(over: Array, fresh: EnvState, state: EnvState) -> EnvState:
    """Takes whole environments from `fresh` where `over` `[E]` says so."""
    pick = jax.vmap(lambda mask, new, old: jnp.where(mask, new, old))
    return jax.tree.map(lambda new, old: pick(over, new, old), fresh, state)
