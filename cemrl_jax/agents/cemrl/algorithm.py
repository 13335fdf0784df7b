"""CEMRL as an algorithm that training can run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.agents.base import Phase, Policy
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.phases import make_phases
from cemrl_jax.agents.cemrl.types import TRAINED, LearnerState
from cemrl_jax.config import Config
from cemrl_jax.envs import NonStationaryEnv


@dataclasses.dataclass(frozen=True)
class CEMRL:
    """See `cemrl_jax.agents.base.Algorithm`.

    Attributes:
      config: of the run.
      agent: how the learner is applied and updated.
    """

    config: Config
    agent: Agent

    @classmethod
    def of(cls, config: Config, env: NonStationaryEnv) -> "CEMRL":
        """Returns what a valid configuration describes."""
        return cls(config, agent_for(config, env))

    def init(self, key: Array) -> LearnerState:
        """See `Algorithm.init`."""
        return self.agent.init(key)

    def policy(self, learner: LearnerState, deterministic: Array | bool) -> Policy:
        """See `Algorithm.policy`."""
        return self.agent.policy(learner, deterministic)

    def phases(self, env: NonStationaryEnv, num_devices: int) -> dict[str, Phase]:
        """See `Algorithm.phases`."""
        return make_phases(self.config, env, self.agent, num_devices)

    def transfer(self, learner: LearnerState, trained: LearnerState) -> LearnerState:
        """See `Algorithm.transfer`; the statistics belong to the weights."""
        parts: dict[str, Any] = {
            name: getattr(learner, name).replace(params=getattr(trained, name).params)
            for name in TRAINED
        }
        return learner.replace(
            **parts,
            target_critic=trained.target_critic,
            normalizer=trained.normalizer,
            loss_weights=trained.loss_weights,
        )

    def num_parameters(self, learner: LearnerState) -> int:
        """See `Algorithm.num_parameters`."""
        parts = [getattr(learner, name).params for name in TRAINED]
        return sum(leaf.size for leaf in jax.tree.leaves(parts))

    def skipped(self, learner: LearnerState) -> Array:
        """See `Algorithm.skipped`."""
        counts = [getattr(learner, name).skipped for name in TRAINED]
        return jnp.stack(counts).max(0)

    def num_updates(self, learner: LearnerState) -> Array:
        """See `Algorithm.num_updates`."""
        return learner.num_updates
