"""How an agent acts: on the task that it infers, or on what it is told instead."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.agents.base import Belief
from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.bounds import Bound
from cemrl_jax.agents.cemrl.types import LearnerState, Posterior
from cemrl_jax.agents.distributions import product_of_gaussians
from cemrl_jax.agents.networks import apply_module
from cemrl_jax.data import normalizer
from cemrl_jax.data.rollout import where_env
from cemrl_jax.data.types import Transition
from cemrl_jax.envs import Task


class Acting(Protocol):
    """What a policy needs of an agent, see `Agent`."""

    @property
    def encoder(self) -> Any:
        """See `cemrl_jax.agents.cemrl.encoders`."""
        ...

    @property
    def window_steps(self) -> int:
        """T, transitions that the encoder sees."""
        ...

    @property
    def num_classes(self) -> int:
        """K."""
        ...

    @property
    def num_features(self) -> int:
        """Size of what the encoder sees of a transition."""
        ...

    def scale(self, learner: LearnerState, rows: Transition) -> Transition:
        """Returns transitions as the world model sees them."""
        ...

    def act(
        self,
        learner: LearnerState,
        obs: Array,
        z: Array,
        key: Array,
        quiet: Array | bool,
    ) -> Array:
        """Returns actions `[E, A]`."""
        ...


@dataclasses.dataclass(frozen=True)
class ContextPolicy:
    """Acts in E environments on the task inferred from the last T transitions.

    The window holds embeddings, so each transition goes through the encoder's
    per-transition part once and not T times.

    Attributes:
      agent: how to apply the learner.
      learner: the parameters.
      deterministic: act on the mean; `[]` or `[E]` bool.
    """

    agent: Acting
    learner: LearnerState
    deterministic: Array | bool

    @property
    def sees_task(self) -> bool:
        """The task is what it infers."""
        return False

    def start(self, num_envs: int) -> Any:
        """Returns the windows `[E, T, ...]` at the start of episodes."""
        nothing = self._embed(jnp.zeros(self.agent.num_features))
        shape = (num_envs, self.agent.window_steps)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), nothing
        )

    def observe(self, window: Any, transition: Transition) -> Any:
        """Moves the newest transition `[E]` into the windows, the oldest out."""
        scaled = self.agent.scale(self.learner, transition)
        new = self._embed(normalizer.features(scaled))
        return jax.tree.map(
            lambda old, leaf: jnp.concatenate([old[:, 1:], leaf[:, None]], 1),
            window,
            new,
        )

    def infer(self, window: Any) -> Posterior:
        """Returns the posterior `[E, ...]` of the task."""
        encoder, params = self.agent.encoder, self.learner.world_model.params["encoder"]
        return apply_module(encoder, params, window, method="infer")

    def restart(self, window: Any, fresh: Any, restarted: Array) -> Any:
        """Empties the windows of robots that have started again."""
        return where_env(restarted, fresh, window)

    def act(
        self, window: Any, obs: Array, key: Array, task: Task | None = None
    ) -> Array:
        """Returns actions `[E, A]` for raw observations `[E, obs_size]`."""
        del task
        z = losses.infer_task(self.infer(window))
        return self.agent.act(self.learner, obs, z, key, self.deterministic)

    def believe(self, window: Any, task: Task | None = None) -> Belief:
        """See `Policy.believe`."""
        del task
        return belief(self.infer(window))

    def _embed(self, x: Array) -> Any:
        encoder, params = self.agent.encoder, self.learner.world_model.params["encoder"]
        return apply_module(encoder, params, x, method="embed")


@dataclasses.dataclass(frozen=True)
class BoundPolicy:
    """Acts in E environments on what it is told, and remembers nothing.

    Attributes:
      agent: how to apply the learner.
      bound: what it is told.
      learner: the parameters.
      deterministic: act on the mean; `[]` or `[E]` bool.
    """

    agent: Acting
    bound: Bound
    learner: LearnerState
    deterministic: Array | bool

    @property
    def sees_task(self) -> bool:
        """See `Policy.sees_task`."""
        return self.bound.sees_task

    def start(self, num_envs: int) -> Array:
        """Returns memories of nothing, `[E, 0]`."""
        return jnp.zeros((num_envs, 0))

    def observe(self, memory: Array, transition: Transition) -> Array:
        """See `Policy.observe`."""
        del transition
        return memory

    def restart(self, memory: Array, fresh: Array, restarted: Array) -> Array:
        """See `Policy.restart`."""
        del fresh, restarted
        return memory

    def act(
        self, memory: Array, obs: Array, key: Array, task: Task | None = None
    ) -> Array:
        """Returns actions `[E, A]` for raw observations `[E, obs_size]`."""
        told = self.bound.describe(task, memory.shape[:1])
        return self.agent.act(self.learner, obs, told, key, self.deterministic)

    def believe(self, memory: Array, task: Task | None = None) -> Belief:
        """See `Policy.believe`: what it is told, and of the class nothing."""
        shape, num_classes = memory.shape[:1], self.agent.num_classes
        told = self.bound.describe(task, shape)
        return Belief(
            z=told,
            z_std=jnp.zeros_like(told),
            probs=jnp.full((*shape, num_classes), 1 / num_classes),
            inferred=jnp.full(shape, -1),
        )


def belief(posterior: Posterior) -> Belief:
    """Returns what a posterior `[..., S, K, Z]` says of the task."""
    best = posterior.probs.argmax(-1)[..., None, None]
    std = jnp.take_along_axis(posterior.std, best, -2)[..., 0, :]
    mean = jnp.take_along_axis(posterior.mean, best, -2)[..., 0, :]
    if std.shape[-2] > 1:
        std = product_of_gaussians(mean, std, -2)[1][..., None, :]
    return Belief(
        z=losses.infer_task(posterior),
        z_std=std[..., 0, :],
        probs=posterior.probs.mean(-2),
        inferred=losses.infer_class(posterior).astype(jnp.int32),
    )
