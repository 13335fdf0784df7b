"""Tasks as numbers and words: what stands on the axes of figures."""

import dataclasses
from typing import Any

import numpy as np

from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.metaworld.vectors import FIRST_KIND, NAMES
from cemrl_jax.envs.robots.locomotion import REWARDS
from cemrl_jax.evaluation.record import Recording

UNITS = {
    "velocity": ("goal velocity", "m/s"),
    "direction": ("direction", "1 forward, -1 backward"),
    "planar_angle": ("goal heading", "rad"),
    "goal": ("goal position", "m"),
    "flipping": ("direction of flips", "1 or -1"),
    "jumping": ("jumping", ""),
}
"""Reward -> what its parameter is, and its unit."""
PLACES = ("fixture", "object", "target")
"""What the parameters of Meta-World's tasks are places of, three numbers each."""
FORMATS = {
    "velocity": "{:.2g} m/s",
    "planar_angle": "{:.2g} rad",
    "goal": "to {:.2g} m",
    "jumping": "jump",
}
"""Reward -> how its parameter is said; others are the reward's name and the number."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A number that tells tasks apart.

    Attributes:
      label: what it is, with its unit.
      values: `[N]` of the tasks.
    """

    label: str
    values: np.ndarray


def reward_name(kind: Any) -> str:
    """Returns the name of a reward by its number."""
    if kind >= FIRST_KIND:
        return NAMES[int(kind) - FIRST_KIND]
    return list(REWARDS)[int(kind)]


def parameters(env: NonStationaryEnv, tasks: Task) -> list[Parameter]:
    """Returns the numbers that vary among tasks `[N]`, the most telling first.

    Rewards' parameters come first, then the mean multipliers (geometric) of the
    model's fields. Without any the number of the task is left.
    """
    found = []
    spec = np.asarray(tasks.spec).reshape(len(np.asarray(tasks.kind)), -1)
    kinds = np.unique(np.asarray(tasks.kind))
    for column in range(spec.shape[1]):
        if np.ptp(spec[:, column]) > 0:
            label = _label(kinds, column, spec.shape[1])
            found.append(Parameter(label, spec[:, column]))
    nominal = getattr(env.robot, "parameters", {})
    for field, value in tasks.overrides.items():
        factor = _multiplier(np.asarray(value), np.asarray(nominal.get(field, 1.0)))
        if np.ptp(factor) > 1e-6:
            found.append(Parameter(f"{field}, mean multiplier", factor))
    return found or [Parameter("number of the task", np.arange(len(spec)) * 1.0)]


def _label(kinds: np.ndarray, column: int, count: int) -> str:
    if kinds[0] >= FIRST_KIND:
        return f"{PLACES[column // 3]} {'xyz'[column % 3]}, m"
    if len(kinds) > 1:
        return "parameter of the task"
    name, unit = UNITS.get(reward_name(kinds[0]), (reward_name(kinds[0]), ""))
    part = f" {'xyz'[column]}" if count > 1 else ""
    return f"{name}{part}, {unit}" if unit else name + part


def _multiplier(value: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """Returns the geometric mean over a field's entries that are not zero, `[N]`."""
    nominal = np.broadcast_to(nominal, value.shape)
    known = (nominal != 0) & (value != 0)
    ratio = np.where(known, value / np.where(nominal == 0, 1, nominal), 1.0)
    logs = np.log(np.abs(ratio)).reshape(len(value), -1)
    counts = np.maximum(known.reshape(len(value), -1).sum(1), 1)
    return np.exp(logs.sum(1) / counts)


def bases(tasks: Task) -> np.ndarray:
    """Returns the labels of base tasks `[N]`."""
    return np.asarray(tasks.base)


def base_names(env: NonStationaryEnv) -> list[str]:
    """Returns a name for each base task."""
    distribution = env.distribution
    variants = env.base_names or getattr(distribution, "variants", ())
    if variants:
        return [str(name) for name in variants]
    count = getattr(distribution, "num_base_tasks", 1)
    if type(distribution).__name__ == "Direction":
        return ["forward", "backward"]
    return [f"base task {number}" for number in range(count)]


def track(
    env: NonStationaryEnv, recording: Recording, episode: int
) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Returns what the task asks for and what the robot does, over an episode.

    Returns:
      A label with a unit, the actual values `[L]`, and the goal's `[L]` (NaN where
      the task has none of this kind), or None where no step has one.
    """
    tasks = recording.transitions.task
    kind = np.asarray(tasks.kind[episode])
    spec = np.asarray(tasks.spec[episode]).reshape(len(kind), -1)
    if kind[0] >= FIRST_KIND:  # of an arm no one number says what it should do
        return "reward", np.asarray(recording.transitions.reward[episode]), None
    names = [reward_name(number) for number in kind]
    if set(names) == {"planar_angle"}:
        place = places(env, recording, episode)
        way = np.gradient(smooth(place, 10), axis=0)
        heading = np.arctan2(way[:, 1], way[:, 0]) % (2 * np.pi)
        return "heading, rad", heading, spec[:, 0] % (2 * np.pi)
    if set(names) == {"goal"}:
        place = places(env, recording, episode)[:, : spec.shape[1]]
        if spec.shape[1] > 1:
            distance = np.linalg.norm(place - spec, axis=1)
            return "distance from the goal, m", distance, np.zeros(len(kind))
        return "position along x, m", place[:, 0], spec[:, 0]
    actual = np.asarray(recording.velocity[episode])
    goal = np.where([name == "velocity" for name in names], spec[:, 0], np.nan)
    return "velocity along x, m/s", actual, goal if np.isfinite(goal).any() else None


def places(env: NonStationaryEnv, recording: Recording, episode: int) -> np.ndarray:
    """Returns where the robot is on the ground, `[L, 2]`, m."""
    qpos = np.asarray(recording.qpos[episode])
    if is_free(env):
        return qpos[:, :2]
    x = np.asarray(recording.x[episode])
    return np.stack([x, np.zeros_like(x)], -1)


def is_free(env: NonStationaryEnv) -> bool:
    """Returns whether the robot moves in space and not in the plane of x and z."""
    model = getattr(getattr(env.robot, "simulator", None), "model", None)
    return model is not None and len(model.jnt_type) > 0 and int(model.jnt_type[0]) == 0


def smooth(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the mean of `[L, ...]` over `count` steps around each."""
    count = max(min(count, len(values)), 1)
    padded = np.concatenate(
        [values[:1].repeat(count // 2, 0), values, values[-1:].repeat(count, 0)]
    )
    total = np.cumsum(np.concatenate([0 * padded[:1], padded]), 0)
    return ((total[count:] - total[:-count]) / count)[: len(values)]


def captions(
    env: NonStationaryEnv, recording: Recording, episode: int, end: int | None = None
) -> list[tuple[int, str]]:
    """Returns the first step of each task before an end, and the task in words."""
    tasks = recording.transitions.task
    starts = [0, *np.flatnonzero(np.asarray(recording.changed[episode])[:end]).tolist()]
    result = []
    for start in dict.fromkeys(starts):
        spec = np.atleast_1d(np.asarray(tasks.spec[episode, start]))
        text = words(int(tasks.kind[episode, start]), spec)
        if recording.number[episode, start] >= 0 and changes_model(env):
            text += f", task {int(recording.number[episode, start])}"
        result.append((start, text))
    return result


def changes_model(env: NonStationaryEnv) -> bool:
    """Returns whether tasks change the robot's model."""
    return hasattr(env.distribution, "bind")


def words(kind: int, spec: np.ndarray) -> str:
    """Returns what a task asks for, in short."""
    name = reward_name(kind)
    if kind >= FIRST_KIND:
        return "{} ({:.2f}, {:.2f}, {:.2f}) m".format(name, *spec[-3:])
    if name == "direction":
        return "forward" if spec[0] > 0 else "backward"
    if name == "flipping":
        return "flip forward" if spec[0] > 0 else "flip backward"
    return FORMATS.get(name, name + " {:.2g}").format(*spec)
