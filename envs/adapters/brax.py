"""Any of these environments as a `brax.envs.base.Env`, for agents written for brax."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs import engines
from cemrl_jax.envs.base import EnvState, Task
from cemrl_jax.envs.nonstationary import NonStationaryEnv
from cemrl_jax.envs.tasks.pools import draw_from
from cemrl_jax.envs.worlds import RobotWorld

with warnings.catch_warnings():  # brax imports an optimiser that is no longer kept up
    warnings.filterwarnings("ignore", "JAXopt", DeprecationWarning)
    from brax.envs.base import Env, State


class BraxEnv(Env):
    """Draws a task from a pool in each episode and changes it by its schedule.

    Works under brax's training wrappers. `AutoResetWrapper` brings back the first state
    of all; the schedule begins anew and a robot's task is drawn anew nevertheless,
    because the key lives in `State.info`, which it leaves alone. A world whose start
    depends on the task (Meta-World's arm) keeps the task of its first state.
    """

    def __init__(self, env: NonStationaryEnv, pool: Task) -> None:
        """Takes the environment and the tasks `[N]` that episodes may have."""
        self.env = env
        self.pool = pool

    def reset(self, rng: Array) -> State:
        """Starts an episode; the key is consumed."""
        key, key_task, key_env = jax.random.split(rng, 3)
        state = self.env.reset(key_env, draw_from(key_task, self.pool))
        zero = jnp.float32(0)
        start: Any = state  # brax's type knows only its own engines' states
        info = {"key": key, "begun": jnp.bool_(False)}
        return State(start, state.obs, zero, zero, info=info)

    def step(self, state: State, action: Array) -> State:
        """Takes one control step."""
        key, key_task, key_env = jax.random.split(state.info["key"], 3)
        before: Any = state.pipeline_state
        before = before.replace(key=key_env)
        came_back = state.info["begun"] & (before.step == 0)
        before = jax.tree.map(
            lambda new, old: jnp.where(came_back, new, old),
            self._again(key_task, before),
            before,
        )
        after = self.env.step(before, action, self.pool)
        return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            pipeline_state=after,
            obs=after.obs,
            reward=after.reward,
            done=after.terminated.astype(jnp.float32),
            info={**state.info, "key": key, "begun": jnp.bool_(True)},
        )

    def _again(self, key: Array, start: EnvState) -> EnvState:
        """Begins another episode where the first one began."""
        if isinstance(self.env.world, RobotWorld):  # its start knows no task
            start = start.replace(task=draw_from(key, self.pool))
        return self.env.restart(start, start)

    @property
    def observation_size(self) -> int:
        """Size of an observation."""
        return self.env.obs_size

    @property
    def action_size(self) -> int:
        """Size of an action; each entry lives in [-1, 1]."""
        return self.env.action_size

    @property
    def backend(self) -> str:
        """The physics engine's name, "none" without one."""
        engine = getattr(self.env.robot, "engine", None)
        return "none" if engine is None else engines.resolve(engine)
