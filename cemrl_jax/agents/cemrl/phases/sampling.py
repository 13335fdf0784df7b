"""Which transitions of the replay an update learns from."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.types import Batch, LearnerState
from cemrl_jax.data import replay
from cemrl_jax.data.replay import Place
from cemrl_jax.data.types import ReplayState, Transition


class Places(struct.PyTreeNode):
    """Where a batch of the ELBO comes from.

    Attributes:
      current: `[B]` transitions whose windows the encoder sees, or segments `[S, W]`.
      decoded: what the decoder predicts, of the same shape; None for `current`.
    """

    current: Place
    decoded: Place | None = None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a batch of the ELBO is drawn from a replay.

    Attributes:
      batch_size: B, per device.
      windows_per_segment: W, consecutive transitions of a run; 1 for independent ones.
      fold: one in so many transitions is for validation.
      decode: see `ElboConfig`.
    """

    batch_size: int
    windows_per_segment: int = 1
    fold: int = 1
    decode: str = "current"

    def draw(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, key: Array
    ) -> Batch:
        """Draws a batch of the transitions that are not for validation."""
        return self.gather(agent, learner, memory, self.places(memory, key))

    def places(self, memory: ReplayState, key: Array, split: str = "train") -> Places:
        """Draws the places of a batch.

        Args:
          memory: the replay.
          key: the key is consumed.
          split: of the windows, where none share a segment; what is decoded in place
            of a window's own transition may be of any.
        """
        draw_decoded = replay.DECODED[self.decode]
        if draw_decoded is None:
            return Places(self._current(memory, key, split))
        key_current, key_decoded = jax.random.split(key)
        current = self._current(memory, key_current, split)
        return Places(current, draw_decoded(memory, key_decoded, current))

    def _current(self, memory: ReplayState, key: Array, split: str) -> Place:
        if self.windows_per_segment == 1:
            split = "all" if self.fold == 1 else split
            return replay.draw(memory, key, self.batch_size, split, self.fold)
        size = self.windows_per_segment
        return replay.draw_segments(memory, key, self.batch_size // size, size)

    def gather(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, places: Places
    ) -> Batch:
        """Returns the batch of places."""
        batch = self._gather(agent, learner, memory, places.current)
        if places.decoded is None:
            return batch
        env, index = (part.reshape(-1) for part in places.decoded)
        rows = replay.transitions(memory.data, (env, index))
        return batch.replace(scaled=agent.scale(learner, rows))

    def rows(self, agent: Agent, memory: ReplayState, place: Place) -> Transition:
        """Gathers windows `[B, T + 1, ...]`, or runs `[S, T + W, ...]` that share."""
        if self.windows_per_segment == 1:
            return replay.windows(memory.data, place, agent.window_steps)
        return replay.segments(memory.data, place, agent.window_steps)

    def _gather(
        self, agent: Agent, learner: LearnerState, memory: ReplayState, place: Place
    ) -> Batch:
        rows = self.rows(agent, memory, place)
        if self.windows_per_segment == 1:
            return agent.make_batch(learner, rows)
        weight = None
        if self.fold > 1:
            trained = replay.is_in_train(place, memory.size, self.fold).reshape(-1)
            weight = trained / jnp.maximum(trained.mean(), 1 / self.batch_size)
        return agent.make_segments(learner, rows, weight)

    def independent(
        self,
        agent: Agent,
        learner: LearnerState,
        memory: ReplayState,
        key: Array,
        split: str,
    ) -> Batch:
        """Draws a batch of independent transitions of a split."""
        single = dataclasses.replace(self, windows_per_segment=1)
        return single.gather(agent, learner, memory, single.places(memory, key, split))
