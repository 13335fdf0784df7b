"""A run in MuJoCo's own window, with keys that change the task while it runs."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import time
from collections.abc import Callable
from typing import Any

import jax
import mujoco
import numpy as np
from jax import Array

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.analysis.describe import words
from cemrl_jax.config import ConfigError
from cemrl_jax.data.rollout import transition
from cemrl_jax.envs import NonStationaryEnv, Task

NEXT, BACK, RESTART = ord("N"), ord("B"), ord("R")
"""Keys: next task of the pool, the one before, and the robot from the start."""


class Session:
    """A robot that runs while somebody chooses its task.

    Attributes:
      number: of the task in the pool.
      state: of the environment.
    """

    def __init__(
        self,
        env: NonStationaryEnv,
        agent: Agent,
        learner: LearnerState,
        pool: Task,
        key: Array,
    ) -> None:
        """Starts with the first task of a pool `[N]`."""
        policy = agent.policy(learner, deterministic=True)

        def step(state: Any, window: Any, task: Task) -> tuple[Any, Any]:
            state = state.replace(task=task)
            told = jax.tree.map(lambda x: x[None], task) if policy.sees_task else None
            action = policy.act(window, state.obs[None], key, told)[0]
            after = env.step(state, action, pool, frozen=True)
            seen = transition(state, action, after)
            return after, policy.observe(window, jax.tree.map(lambda x: x[None], seen))

        self._step, self._reset = jax.jit(step), jax.jit(env.reset)
        self._pool, self._key, self.number = pool, key, 0
        self._empty = policy.start(1)
        self.state: Any = None
        self._start()

    def press(self, key: int) -> None:
        """Does what a key stands for."""
        count = self._pool.kind.shape[0]
        self.number = (self.number + (key == NEXT) - (key == BACK)) % count
        if key == RESTART:
            self._start()
        if key in (NEXT, BACK):
            task = self._task()
            spec = np.atleast_1d(np.asarray(task.spec))
            print(f"task {self.number}: {words(int(task.kind), spec)}", flush=True)

    def advance(self) -> np.ndarray:
        """Takes a control step and returns the pose `[nq]`; a fall starts anew."""
        self.state, self._window = self._step(self.state, self._window, self._task())
        if bool(self.state.terminated):
            self._start()
        return np.asarray(self.state.physics.qpos)

    def _start(self) -> None:
        self.state = self._reset(self._key, self._task())
        self._window = self._empty

    def _task(self) -> Task:
        return jax.tree.map(lambda leaf: leaf[self.number], self._pool)


def play(
    env: NonStationaryEnv,
    agent: Agent,
    learner: LearnerState,
    pool: Task,
    key: Array,
    launch: Callable[..., Any] | None = None,
) -> None:
    """Shows a run in a window until that is closed.

    Args:
      env: the environment; its schedule does not count.
      agent: applies the learner.
      learner: the parameters.
      pool: tasks `[N]` to choose from.
      key: of the start.
      launch: opens the window; None takes `mujoco.viewer.launch_passive`.

    Raises:
      ConfigError: the robot has no MuJoCo model, or there is no display.
    """
    model = getattr(getattr(env.robot, "simulator", None), "model", None)
    if model is None:
        raise ConfigError("--window needs a robot with a MuJoCo model; try --html=FILE")
    if launch is None:
        from mujoco import viewer

        launch = viewer.launch_passive
    session = Session(env, agent, learner, pool, key)
    session.advance()  # compiles before the window opens
    data = mujoco.MjData(model)
    try:
        handle = launch(model, data, key_callback=session.press)
    except Exception as error:  # of the window system
        raise ConfigError(
            f"no window can be opened ({error}); --video and --html need no display"
        ) from error
    print("n: next task, b: the one before, r: from the start", flush=True)
    with handle as window:
        while window.is_running():
            begun = time.perf_counter()
            with window.lock():
                data.qpos[:] = session.advance()
                mujoco.mj_forward(model, data)
            window.sync()
            spent = time.perf_counter() - begun
            time.sleep(max(float(env.robot.control_dt) - spent, 0))
