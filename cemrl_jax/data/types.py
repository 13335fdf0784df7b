"""The data that the parts of the program exchange.

Axis letters: D devices, E environments per device, L replay length per environment,
B batch per device, T window, F features of a transition, K classes, Z latent size,
S = 1 or T (one posterior for the window, or one per step of it).
"""

from typing import Any

import optax
from brax.training.acme.running_statistics import RunningStatisticsState
from flax import struct
from jax import Array

from cemrl_jax.envs.base import Task

Params = Any
Metrics = dict[str, Array]
"""Flat: `"group/name"` -> `[]` float32, averaged over devices."""


class Transition(struct.PyTreeNode):
    """One control step; leading axes are the owner's.

    Attributes:
      obs: `[obs_size]` observation before the step.
      action: `[action_size]` in [-1, 1].
      reward: `[]` reward of the step.
      next_obs: `[obs_size]` observation after the step.
      terminated: `[]` float32, 1 if the robot fell; a time limit leaves it 0.
      step: `[]` int32 index of the step in its episode.
      task: the task in force. Analysis and labels only, never an input of the agent.
    """

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array
    step: Array
    task: Task


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


class Batch(struct.PyTreeNode):
    """Sampled transitions, each with the window of transitions before it.

    Attributes:
      window: `[B, T, F]` normalised transitions, oldest first, zero before the start
        of the episode; F = obs, action, reward, next_obs in this order.
      current: `[B]` the transitions themselves, raw.
      scaled: `[B]` the same with obs, action, reward and next_obs normalised.
    """

    window: Array
    current: Transition
    scaled: Transition


class Trainable(struct.PyTreeNode):
    """Parameters and the state of their optimiser."""

    params: Params
    opt_state: optax.OptState


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


class ReplayState(struct.PyTreeNode):
    """A ring of transitions for each environment.

    Attributes:
      data: `[E, L]` transitions, in the order in which each environment made them.
      cursor: `[]` int32 where the next transition goes.
      size: `[]` int32 number of valid transitions per environment.
    """

    data: Transition
    cursor: Array
    size: Array


class WorkerState(struct.PyTreeNode):
    """What belongs to one device; leading `[D]` outside of mapped functions.

    Attributes:
      replay: this device's share of the experience.
      key: this device's randomness.
      tasks: `[N]` the pool of training tasks, the same on every device.
    """

    replay: ReplayState
    key: Array
    tasks: Task
