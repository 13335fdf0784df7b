"""When the task changes: one file per schedule, one line in `SCHEDULES`."""

from envs.schedules.location import Location
from envs.schedules.stationary import Stationary
from envs.schedules.timed import Timed

SCHEDULES = {"stationary": Stationary, "timed": Timed, "location": Location}
"""Name -> schedule, for configurations."""
