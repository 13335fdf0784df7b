"""A strip of pictures of an episode, with what it should do and what it does below.

Bodies are drawn from the side without perspective: what a robot's capsules and spheres
look like to a camera far away along the y-axis. That needs no graphics driver.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import dataclasses
import math
import pathlib
import textwrap
from typing import Any

import mujoco
import numpy as np

from cemrl_jax.analysis import style
from cemrl_jax.analysis.describe import reward_name
from cemrl_jax.config import ConfigError
from cemrl_jax.envs.metaworld.vectors import FIRST_KIND

HALF_WIDTH = 1.1
"""Of a picture, m."""
GROUND = 0.27
"""Depth of the ground that is drawn, m."""
FORMATS = {
    "velocity": "{:.2g} m/s",
    "planar_angle": "{:.2g} rad",
    "goal": "to {:.2g} m",
    "jumping": "jump",
}


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode, all on the host.

    Attributes:
      control_dt: duration of a step, s.
      qpos: `[L, nq]` positions after each step; `[L, 1]`, m, without physics engine.
      x: `[L]` where the robot is, m.
      velocity: `[L]` mean velocity along the x-axis in a step, m/s.
      kind: `[L]` index of the reward.
      spec: `[L, S]` the task's parameter.
      reward: `[L]`.
      starts: the steps from which on another task is in force, 0 the first.
      captions: what each of those tasks asks for.
    """

    control_dt: float
    qpos: np.ndarray
    x: np.ndarray
    velocity: np.ndarray
    kind: np.ndarray
    spec: np.ndarray
    reward: np.ndarray
    starts: tuple[int, ...]
    captions: tuple[str, ...]

    def part(self, step: int) -> int:
        """Returns the number of the task that is in force at a step."""
        return int(np.searchsorted(self.starts, step, side="right")) - 1


@dataclasses.dataclass(frozen=True)
class Limb:
    """A capsule from the side, m: `[2, 2]` x and z of its line's ends, and a radius."""

    ends: np.ndarray
    radius: float


def limbs(model: Any, qpos: np.ndarray) -> list[Limb]:
    """Returns the capsules and spheres of a robot in a pose, as seen from the side.

    Args:
      model: its MuJoCo model; None draws a ball at `qpos`.
      qpos: `[nq]`.
    """
    if model is None:
        return [Limb(np.array([[qpos[0], 0.2]] * 2), 0.2)]
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    result = []
    for geom in range(model.ngeom):
        kind, (radius, half, _) = model.geom_type[geom], model.geom_size[geom]
        if kind == mujoco.mjtGeom.mjGEOM_PLANE:
            continue
        centre, axes = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
        way = (
            half * axes[:, 2] if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else np.zeros(3)
        )
        ends = np.stack([centre - way, centre + way])
        result.append((centre[1], Limb(ends[:, [0, 2]], float(radius))))
    return [limb for _, limb in sorted(result, key=lambda pair: -pair[0])]


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


def draw(episode: Episode, model: Any, num_frames: int, path: pathlib.Path) -> None:
    """Writes the strip as a PNG.

    Args:
      episode: what to draw.
      model: the robot's MuJoCo model, None without physics engine.
      num_frames: pictures, evenly spaced in time.
      path: the file.

    Raises:
      ConfigError: matplotlib is missing.
    """
    figure = _pyplot().figure(figsize=(2 * num_frames, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, num_frames, height_ratios=(1, 0.9))
    frames = np.linspace(0, len(episode.x) - 1, num_frames).round().astype(int)
    for column, step in enumerate(frames):
        axis = figure.add_subplot(grid[0, column])
        _picture(axis, episode.qpos[step], model, float(episode.x[step]))
        number, seconds = episode.part(step), (step + 1) * episode.control_dt
        title = textwrap.fill(f"{seconds:.1f} s: {episode.captions[number]}", 26)
        axis.set_title(title, fontsize=9, color=style.series(number))
    _curves(figure.add_subplot(grid[1, :]), episode, frames)
    figure.savefig(path, dpi=100)
    _pyplot().close(figure)


def draw_pose(qpos: np.ndarray, model: Any, title: str, path: pathlib.Path) -> None:
    """Writes a picture of a robot in one pose as a PNG.

    Args:
      qpos: `[nq]`, its first number is the robot's place along the x-axis.
      model: the robot's MuJoCo model, None without physics engine.
      title: above it.
      path: the file.

    Raises:
      ConfigError: matplotlib is missing.
    """
    figure = _pyplot().figure(figsize=(5, 4.6), layout="constrained")
    axis = figure.add_subplot()
    _picture(axis, qpos, model, float(qpos[0]))
    axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=100)
    _pyplot().close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib: pip install -e '.[analysis]'"
        ) from error
    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt


def _picture(axis: Any, qpos: np.ndarray, model: Any, x: float) -> None:
    """Draws a robot at x on its ground, which has a mark at each metre."""
    low, high = x - HALF_WIDTH, x + HALF_WIDTH
    axis.set(xlim=(low, high), ylim=(-GROUND, 2 * HALF_WIDTH - 0.4), aspect="equal")
    axis.axhspan(-GROUND, 0, color="0.85")
    for metre in range(math.ceil(low), math.floor(high) + 1):
        axis.plot([metre] * 2, [-0.06, 0], color="0.3", linewidth=1)
        if abs(metre - x) < HALF_WIDTH - 0.2:  # else cut off at the side
            axis.text(metre, -0.08, f"{metre} m", ha="center", va="top", fontsize=7)
    for limb in limbs(model, qpos):
        _capsule(axis, limb)
    axis.set(xticks=[], yticks=[])


def _capsule(axis: Any, limb: Limb) -> None:
    """Draws a capsule true to scale."""
    from matplotlib.patches import Polygon

    (x0, z0), (x1, z1) = limb.ends
    angle = math.atan2(z1 - z0, x1 - x0)
    half_turn = np.linspace(-math.pi / 2, math.pi / 2, 16) + angle
    cap = limb.radius * np.column_stack([np.cos(half_turn), np.sin(half_turn)])
    outline = np.concatenate([limb.ends[1] + cap, limb.ends[0] - cap])
    axis.add_patch(
        Polygon(outline, facecolor="#c9b18a", edgecolor="0.2", linewidth=0.8)
    )


def _curves(axis: Any, episode: Episode, frames: np.ndarray) -> None:
    """Draws velocity and goal over time; dotted lines are where the pictures are."""
    seconds = (np.arange(len(episode.x)) + 1) * episode.control_dt
    axis.plot(seconds, episode.velocity, color="0.2", linewidth=1.2, label="velocity")
    ends = [*episode.starts[1:], len(seconds)]
    for number, (first, end) in enumerate(zip(episode.starts, ends)):
        reward = episode.reward[first:end].mean()
        begin, finish = first * episode.control_dt, end * episode.control_dt
        axis.axvspan(begin, finish, color=style.series(number), alpha=0.12, linewidth=0)
        if reward_name(episode.kind[first]) == "velocity":
            goal = [episode.spec[first, 0]] * 2
            label = "goal velocity" if number == 0 else None
            line = {"color": style.series(number), "linewidth": 2.5}
            axis.plot([begin, finish], goal, label=label, **line)
        axis.text(
            (begin + finish) / 2,
            0.97,
            f"{episode.captions[number]}: reward {reward:.2f}",
            transform=axis.get_xaxis_transform(),
            color=style.series(number),
            ha="center",
            va="top",
            fontsize=9,
        )
    for step in frames:
        axis.axvline(seconds[step], color="0.6", linewidth=0.8, linestyle=":")
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.15 * (high - low))
    axis.set(xlim=(0, seconds[-1]), xlabel="time, s", ylabel="velocity along x, m/s")
    axis.legend(loc="lower right", fontsize=8, framealpha=0.9)
