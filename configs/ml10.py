"""The ten training tasks of Meta-World's ML10, eight models in one run."""

import dataclasses

from cemrl_jax.config import Config
from cemrl_jax.configs.base import manipulation
from cemrl_jax.envs.metaworld.tasks import Manipulation
from cemrl_jax.envs.metaworld.vectors import NAMES
from cemrl_jax.envs.schedules import Stationary


def get_config() -> Config:
    """20 M steps; `scripts/evaluate.py` tests on five other tasks too."""
    config = manipulation(
        "ml10", NAMES[:10], Stationary(), num_steps=500, num_epochs=667
    )
    task = Manipulation(NAMES[:10], test_names=NAMES[10:15])
    return dataclasses.replace(config, env=dataclasses.replace(config.env, task=task))
