"""The data that the parts of the program exchange.

Axis letters: D devices, E environments per device, L replay length per environment,
B batch per device, T window, F features of a transition, K classes, Z latent size,
S = 1 or T (one posterior for the window, or one per step of it).
"""

from typing import TYPE_CHECKING, Any

import optax
from flax import struct
from jax import Array

from cemrl_jax.envs.base import Task

if TYPE_CHECKING:
    from cemrl_jax.data.packing import Packed

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


class Trainable(struct.PyTreeNode):
    """Parameters and the state of their optimiser.

    Attributes:
      params: the parameters.
      opt_state: of the optimiser.
      skipped: `[2]` int32, steps that were skipped because their gradient was not
        finite: in all, and in a row up to now.
    """

    params: Params
    opt_state: optax.OptState
    skipped: Array


class ReplayState(struct.PyTreeNode):
    """A ring of transitions for each environment.

    Attributes:
      data: L transitions of each, in the order in which they were made.
      cursor: `[]` int32 where the next transition goes.
      size: `[]` int32 number of valid transitions per environment.
    """

    data: "Packed"
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
