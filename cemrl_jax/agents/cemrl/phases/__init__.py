"""The phases of an epoch: functions of learner and worker, compiled by `train`.

All begin with "collect". "fused" training has one more, "train"; the original's
alternates "world_model" and "policy"; a policy that is told its task has "policy".
"""

from cemrl_jax.agents.base import Phase
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.phases.collect import make_collect
from cemrl_jax.agents.cemrl.phases.fused import make_fused
from cemrl_jax.agents.cemrl.phases.policy import BoundPhase, PolicyPhase
from cemrl_jax.agents.cemrl.phases.sampling import Sampling
from cemrl_jax.agents.cemrl.phases.world_model import (
    WorldModelPhase,
    make_world_model,
)
from cemrl_jax.config import Config
from cemrl_jax.envs import NonStationaryEnv

__all__ = [
    "BoundPhase",
    "PolicyPhase",
    "Sampling",
    "WorldModelPhase",
    "make_collect",
    "make_fused",
    "make_phases",
    "make_world_model",
]


def make_phases(
    config: Config, env: NonStationaryEnv, agent: Agent, num_devices: int
) -> dict[str, Phase]:
    """Returns the phases of an epoch by name, in order; "collect" is the first."""
    train, batch_size = config.train, config.sac.batch_size // num_devices
    num_envs = config.rollout.num_envs // num_devices
    collect = make_collect(env, agent, num_envs, config.rollout.num_steps)
    if agent.bound is not None:  # nothing reads the world model
        bound = BoundPhase(agent, agent.bound, batch_size, config.num_updates)
        return {"collect": collect, "policy": bound}
    sampling = Sampling(
        batch_size, config.elbo.windows_per_segment, decode=config.elbo.decode
    )
    if train.schedule == "fused":
        independent = config.sac.independent_transitions
        fused = make_fused(agent, sampling, config.num_updates, independent)
        return {"collect": collect, "train": fused}
    policy = PolicyPhase(agent, batch_size, config.num_updates)
    world_model = make_world_model(agent, sampling, train)
    return {"collect": collect, "world_model": world_model, "policy": policy}
