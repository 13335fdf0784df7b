"""What training needs of an algorithm.

An algorithm keeps all that it learns in one learner, a pytree without a device axis,
and advances it in phases. The host loop, checkpoints and evaluation know no more.
"""

from collections.abc import Callable
from typing import Any, Protocol

from flax import struct
from jax import Array

from cemrl_jax.data.types import Metrics, Transition, WorkerState
from cemrl_jax.envs import NonStationaryEnv, Task

Phase = Callable[[Any, WorkerState], tuple[Any, WorkerState, Metrics]]
"""A part of an epoch on one device: `phase(learner, worker)` -> both, and metrics."""


class Belief(struct.PyTreeNode):
    """What an agent believes about the task when it acts.

    Attributes:
      z: `[..., Z]` the task that the policy acts on.
      z_std: `[..., Z]` its scale, of the classes that z is made of.
      probs: `[..., K]` class probabilities.
      inferred: `[...]` int32 the class, -1 for none.
    """

    z: Array
    z_std: Array
    probs: Array
    inferred: Array


class Policy(Protocol):
    """Acts in E environments, with a memory of each."""

    @property
    def sees_task(self) -> bool:
        """Whether it is told the true task (an oracle); all others get None for it."""
        ...

    def start(self, num_envs: int) -> Any:
        """Returns the memory `[E, ...]` at the start of a rollout."""
        ...

    def act(self, memory: Any, obs: Array, key: Array, task: Task | None, /) -> Array:
        """Returns actions `[E, action_size]`; the key is consumed."""
        ...

    def observe(self, memory: Any, transition: Transition, /) -> Any:
        """Returns the memory after transitions `[E]`."""
        ...

    def believe(self, memory: Any, task: Task | None, /) -> Belief:
        """Returns what it believes about the tasks `[E]`, for analysis."""
        ...

    def restart(self, memory: Any, fresh: Any, restarted: Array, /) -> Any:
        """Returns the memory after robots have started again, `restarted` `[E]` bool.

        `fresh` is what `start` returned; a policy that learns over episodes may keep
        its memory instead.
        """
        ...


class Algorithm(Protocol):
    """An algorithm for the tasks and sizes of one configuration."""

    def init(self, key: Array) -> Any:
        """Returns a fresh learner; the key is consumed."""
        ...

    def policy(self, learner: Any, deterministic: Array | bool) -> Policy:
        """Returns the policy that acts in environments; `[]` or `[E]` deterministic."""
        ...

    def phases(self, env: NonStationaryEnv, num_devices: int) -> dict[str, Phase]:
        """Returns the phases of an epoch by name, in order; "collect" is the first."""
        ...

    def transfer(self, learner: Any, trained: Any) -> Any:
        """Returns a fresh learner with the weights of a trained one.

        Optimisers and counters stay fresh.
        """
        ...

    def num_parameters(self, learner: Any) -> int:
        """Returns how many numbers are trained."""
        ...

    def skipped(self, learner: Any) -> Array:
        """Returns steps skipped because a gradient was not finite, `[2]` int32.

        In all, and in a row up to now; of several networks, of the worst.
        """
        ...

    def num_updates(self, learner: Any) -> Array:
        """Returns the policy updates so far, `[]` int32."""
        ...
