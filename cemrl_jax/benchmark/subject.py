"""What is measured: environment, agent and a replay of noise."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.config import Config
from cemrl_jax.data import replay
from cemrl_jax.data.rollout import deal_tasks
from cemrl_jax.data.types import ReplayState, Transition, WorkerState
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.runtime import parallel
from cemrl_jax.training.run import make_pools
from cemrl_jax.training.state import example_transition


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: the environment and the agent of a configuration.

    Attributes:
      config: the configuration.
      env: its environment.
      agent: its agent.
      learner: a fresh learner.
      tasks: the training tasks.
    """

    config: Config
    env: NonStationaryEnv
    agent: Agent
    learner: LearnerState
    tasks: Task

    @classmethod
    def of(cls, config: Config) -> "Subject":
        """Builds everything from the configuration."""
        env = config.env.make()
        agent = agent_for(config, env)
        learner = jax.jit(agent.init)(jax.random.key(config.seed))
        return cls(config, env, agent, learner, make_pools(config)["train"])

    def workers(
        self, num_envs: int, length: int, num_steps: int, num_devices: int
    ) -> WorkerState:
        """Returns workers `[D, ...]` with `num_envs` environments each."""

        def make(key: Array, tasks: Task) -> WorkerState:
            key_data, key = jax.random.split(key)
            shape = num_envs, length // num_steps, num_steps
            memory = random_replay(key_data, tasks, self.env, shape)
            return WorkerState(replay=memory, key=key, tasks=tasks)

        keys = parallel.split_keys(jax.random.key(1), num_devices)
        return parallel.on_each_device(make, keys, self.tasks)


def random_replay(
    key: Array, tasks: Task, env: NonStationaryEnv, shape: tuple[int, int, int]
) -> ReplayState:
    """Returns a full replay of noise in chunks `[E, C, n]`, an episode each."""
    num_envs, _, steps = shape
    example = example_transition(env, jax.tree.map(lambda leaf: leaf[0], tasks))
    key_obs, key_action, key_reward, key_task = jax.random.split(key, 4)
    draw = lambda key, like: jax.random.normal(key, (*shape, *like.shape))  # noqa: E731
    obs = draw(key_obs, example.obs)
    dealt = deal_tasks(key_task, tasks, num_envs).replace(overrides={})
    chunks = Transition(
        obs=obs,
        action=jnp.tanh(draw(key_action, example.action)),
        reward=draw(key_reward, example.reward),
        next_obs=jnp.roll(obs, -1, 2),
        terminated=jnp.zeros(shape),
        step=jnp.broadcast_to(jnp.arange(steps), shape),
        task=jax.tree.map(
            lambda leaf: jnp.broadcast_to(
                leaf.reshape(num_envs, 1, 1, *leaf.shape[1:]), shape + leaf.shape[1:]
            ),
            dealt,
        ),
    )
    return replay.full(chunks, env.can_fall)
