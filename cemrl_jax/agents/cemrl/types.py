"""What CEMRL learns, and what its parts exchange.

Axis letters as in `cemrl_jax.data.types`.
"""

from typing import Any

from flax import struct
from jax import Array

from cemrl_jax.data.normalizer import RunningStatisticsState
from cemrl_jax.data.types import Params, Trainable, Transition


class Posterior(struct.PyTreeNode):
    """What the encoder believes about the task: a Gaussian mixture.

    Attributes:
      probs: `[..., S, K]` class probabilities.
      mean: `[..., S, K, Z]` mean of each class's Gaussian.
      std: `[..., S, K, Z]` its scale.
    """

    probs: Array
    mean: Array
    std: Array


class Segments(struct.PyTreeNode):
    """The windows of runs of W consecutive transitions, which overlap.

    Attributes:
      rows: `[S, T + W - 1, F]` normalised transitions, oldest first; the window of a
        run's transition w is rows w to w + T - 1.
      exists: `[S, W, T]` bool, which entries of each window are of its episode.
    """

    rows: Array
    exists: Array


class Batch(struct.PyTreeNode):
    """Sampled transitions, each with the window of transitions before it.

    Attributes:
      window: `[B, T, F]` normalised transitions, oldest first, zero before the start
        of the episode; F = obs, action, reward, next_obs in this order. Or segments,
        B = S * W, run by run. An array or `Segments`.
      current: `[B]` the transitions themselves, raw.
      scaled: `[B]` what the decoder predicts, the same or others (see
        `ElboConfig.decode`) with obs, action, reward and next_obs normalised.
      weight: `[B]` of each transition in the ELBO, 1 on average; None for 1 each.
    """

    window: Any
    current: Transition
    scaled: Transition
    weight: Array | None = None

    @property
    def size(self) -> int:
        """B."""
        return self.current.step.shape[0]


TRAINED = ("world_model", "actor", "critic", "temperature")
"""Fields of the learner that have parameters and an optimiser's state."""


class LearnerState(struct.PyTreeNode):
    """Everything that is learnt. The same on every device, without a device axis.

    Attributes:
      world_model: encoder, decoder and class prior (`{"encoder", "decoder", "prior"}`).
      actor: the policy.
      critic: the pair of Q-functions, stacked on a leading axis of 2.
      temperature: the weight of the entropy.
      target_critic: slowly moving copy of the critic's parameters.
      normalizer: statistics of obs, action, reward and next_obs.
      loss_weights: `[2]` weights of the decoder's state and reward losses.
      num_updates: `[]` int32 policy updates so far.
    """

    world_model: Trainable
    actor: Trainable
    critic: Trainable
    temperature: Trainable
    target_critic: Params
    normalizer: RunningStatisticsState
    loss_weights: Array
    num_updates: Array
