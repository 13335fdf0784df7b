"""What every body has that a physics engine moves."""

import copy
import functools
from typing import Self

from cemrl_jax.envs import engines
from cemrl_jax.envs.engines.base import ModelFile, Simulator


class Simulated:
    """Has a model file and steps it on an engine; which one makes no difference."""

    engine = "auto"  # no field: the environment's configuration says it

    @property
    def source(self) -> ModelFile:
        """The model file, and what is read of its physics."""
        raise NotImplementedError

    @functools.cached_property
    def simulator(self) -> Simulator:
        """The compiled model on this body's engine."""
        return engines.load(engines.resolve(self.engine), self.source)

    def on_engine(self, engine: str) -> Self:
        """Returns this body on an engine of `cemrl_jax.envs.engines`."""
        result = copy.copy(self)
        result.__dict__.pop("simulator", None)
        result.engine = engine
        return result

    @property
    def control_dt(self) -> float:
        """See `Robot.control_dt`."""
        return self.simulator.control_dt
