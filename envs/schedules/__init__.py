"""When the task changes: one file per schedule, one line in `SCHEDULES`."""

import functools

from cemrl_jax.envs.schedules.location import Location
from cemrl_jax.envs.schedules.sequence import Sequence
from cemrl_jax.envs.schedules.stationary import Stationary
from cemrl_jax.envs.schedules.timed import Timed

SCHEDULES = {
    "stationary": Stationary,
    "timed": Timed,
    "location": Location,
    "probabilistic": functools.partial(Timed, min_steps=0),
    "sequence": Sequence,
}
"""Name -> schedule, for configurations. "probabilistic" is "timed" without a wait."""
