"""What a policy is judged on: pools of tasks, protocols, modes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cemrl_jax.envs import Schedule
from cemrl_jax.envs.schedules import Stationary


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to judge a policy.

    Attributes:
      pool: "validation" (chooses the best checkpoint), "test" (is reported), "train",
        or "extrapolate" (outside the range of the others).
      protocol: "fixed" (the task stays for the episode, as in the authors' logged
        curves of velocity and multi-task families) or "changing" (the schedule runs,
        as in training).
      mode: "deterministic" or "stochastic" actions.
    """

    pool: str
    protocol: str
    mode: str

    @property
    def metric(self) -> str:
        """Name of the mean return in the log."""
        return f"{self.prefix}return"

    @property
    def prefix(self) -> str:
        """What the names of all its metrics begin with."""
        return f"{self.pool}/{self.protocol}_{self.mode}_"


CASES = tuple(
    Case(pool, protocol, mode)
    for protocol in ("fixed", "changing")
    for pool, mode in (
        ("test", "deterministic"),
        ("test", "stochastic"),
        ("train", "deterministic"),
    )
)
"""What is reported, with each checkpoint."""

EXTRAPOLATION = tuple(
    Case("extrapolate", protocol, "deterministic") for protocol in ("fixed", "changing")
)
"""What can be evaluated besides, where a run has such tasks."""


def own_protocol(schedule: Schedule) -> str:
    """Returns the protocol of training: "changing" where tasks change."""
    return "fixed" if isinstance(schedule, Stationary) else "changing"


def ranking_metric(config: Mapping[str, Any]) -> str:
    """Returns what a run is ranked by: the test return under the protocol of training.

    Args:
      config: the run's config.json, of whatever version; without a schedule tasks stay.
    """
    schedule = (config.get("env") or {}).get("schedule") or {}
    stays = schedule.get("name", "stationary") == "stationary"
    return Case("test", "fixed" if stays else "changing", "deterministic").metric


def headline(schedule: Schedule) -> tuple[Case, ...]:
    """Returns what each evaluation of a run looks at; the first is what it is for."""
    protocol = own_protocol(schedule)
    return tuple(
        Case(pool, protocol, "deterministic") for pool in ("validation", "test")
    )


def complete(schedule: Schedule) -> tuple[Case, ...]:
    """Returns what the evaluation of a checkpoint looks at, the headline first."""
    return tuple(dict.fromkeys((*headline(schedule), *CASES)))


def metric_names(schedule: Schedule) -> tuple[str, ...]:
    """Returns what `checkpoint.metric` may be: metrics of every evaluation."""
    return tuple(case.metric for case in headline(schedule))
