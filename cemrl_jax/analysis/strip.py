"""A strip of pictures of an episode, with what it should do and what it does below.

Shapes are drawn from the side without perspective, as a camera far away sees them.
That needs no graphics driver.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import dataclasses
import itertools
import math
import pathlib
import textwrap
from typing import Any, NamedTuple

import mujoco
import numpy as np
from scipy import spatial

from cemrl_jax.analysis import style
from cemrl_jax.config import ConfigError

GROUND = 0.27
"""Depth of the ground that is drawn, m."""
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 32)) for f in (np.cos, np.sin)], 1)
UNIT = (-1.0, 1.0)
MOVING = {int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_SLIDE)}
"""Types of a runner's first joint, whose position is where it is."""
BALL = (0.79, 0.69, 0.54)


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode, all on the host.

    Attributes:
      control_dt: duration of a step, s.
      qpos: `[L, nq]` positions after each step; `[L, 1]`, m, without physics engine.
      label: what is drawn over time, with its unit.
      actual: `[L]` what the robot does.
      goal: `[L]` what it should do, NaN where the task does not say; or None.
      reward: `[L]`.
      starts: the steps from which on another task is in force, 0 the first.
      captions: what each of those tasks asks for.
    """

    control_dt: float
    qpos: np.ndarray
    label: str
    actual: np.ndarray
    goal: np.ndarray | None
    reward: np.ndarray
    starts: tuple[int, ...]
    captions: tuple[str, ...]

    def part(self, step: int) -> int:
        """Returns the number of the task that is in force at a step."""
        return int(np.searchsorted(self.starts, step, side="right")) - 1


@dataclasses.dataclass(frozen=True)
class Silhouette:
    """A shape from the side.

    Attributes:
      outline: `[K, 2]`, m, along the view's axis and upwards.
      colour: RGB between 0 and 1, as its model has it; None for what cannot move.
    """

    outline: np.ndarray
    colour: tuple[float, float, float] | None


class View(NamedTuple):
    """How a robot is looked at.

    Attributes:
      axis: that goes to the right, 0 or 1 for x or y.
      middle: of the picture on it, m; None for where the robot is.
      half_width: of the picture, m.
    """

    axis: int
    middle: float | None
    half_width: float


def view_of(model: Any) -> View:
    """Returns how to look at a robot.

    Runners are seen along the y-axis, wherever they are. An arm that stands is seen
    from its left, since it reaches along the y-axis.

    Args:
      model: its MuJoCo model; None for a point.
    """
    if model is None or int(model.jnt_type[0]) in MOVING:
        return View(0, None, 1.1)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    movable = model.body_weldid[model.geom_bodyid] > 0
    return View(1, float(data.geom_xpos[movable, 1].mean()), 0.8)


def silhouettes(model: Any, qpos: np.ndarray, axis: int) -> list[Silhouette]:
    """Returns what is seen of a robot in a pose from the side, the farthest first.

    A mesh is drawn as its convex hull. What MuJoCo's viewer hides at its start (groups
    from 3 on, transparent shapes) and planes are left out.

    Args:
      model: its MuJoCo model; None draws a ball at `qpos`.
      qpos: `[nq]`.
      axis: that goes to the right, see `View`.
    """
    if model is None:
        return [Silhouette(np.array([qpos[0], 0.2]) + 0.2 * CIRCLE, BALL)]
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    moves = model.body_weldid[model.geom_bodyid] > 0
    result = []
    for geom in range(model.ngeom):
        rgba = _rgba(model, geom)
        plane = int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_PLANE)
        if plane or model.geom_group[geom] > 2 or rgba[3] == 0:
            continue
        red, green, blue, _ = (float(part) for part in rgba)
        colour = (red, green, blue) if moves[geom] else None
        outline = _points(model, data, geom)[:, [axis, 2]]
        hull = outline[spatial.ConvexHull(outline).vertices]
        depth = data.geom_xpos[geom, 1] if axis == 0 else -data.geom_xpos[geom, 0]
        result.append((depth, Silhouette(hull, colour)))
    return [shape for _, shape in sorted(result, key=lambda pair: -pair[0])]


def _rgba(model: Any, geom: int) -> np.ndarray:
    """Returns a shape's colour `[4]`: its material's only if it has none of its own."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    undefined = np.allclose(own, [0.5, 0.5, 0.5, 1])
    return model.mat_rgba[material] if undefined and material >= 0 else own


def _points(model: Any, data: Any, geom: int) -> np.ndarray:
    """Returns points `[K, 3]`, m, whose convex hull from the side is the shape's."""
    kinds = mujoco.mjtGeom
    kind, size = kinds(int(model.geom_type[geom])), model.geom_size[geom]
    radius = 0.0
    if kind in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE):
        half = size[1] if kind == kinds.mjGEOM_CAPSULE else 0.0
        radius, points = size[0], np.array([[0, 0, -half], [0, 0, half]])
    elif kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        points = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    elif kind == kinds.mjGEOM_CYLINDER:
        ends = [np.column_stack([size[0] * CIRCLE, 0 * CIRCLE[:, 0] + z]) for z in UNIT]
        points = np.concatenate(ends) * [1, 1, size[1]]
    else:  # a box; what is left is drawn as the box around it
        points = np.array(list(itertools.product(UNIT, UNIT, UNIT))) * size
    placed = data.geom_xpos[geom] + points @ data.geom_xmat[geom].reshape(3, 3).T
    if not radius:
        return placed
    across, up = (radius * CIRCLE).T
    disc = np.stack([across, across, up], 1)  # right for either axis
    return (placed[:, None] + disc).reshape(-1, 3)


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
    frames = np.linspace(0, len(episode.reward) - 1, num_frames).round().astype(int)
    view = view_of(model)
    for column, step in enumerate(frames):
        axis = figure.add_subplot(grid[0, column])
        _picture(axis, episode.qpos[step], model, view)
        number, seconds = episode.part(step), (step + 1) * episode.control_dt
        title = textwrap.fill(f"{seconds:.1f} s: {episode.captions[number]}", 26)
        axis.set_title(title, fontsize=9, color=style.series(number))
    _curves(figure.add_subplot(grid[1, :]), episode, frames)
    figure.savefig(path, dpi=100)
    _pyplot().close(figure)


def draw_pose(qpos: np.ndarray, model: Any, title: str, path: pathlib.Path) -> None:
    """Writes a picture of a robot in one pose as a PNG.

    Args:
      qpos: `[nq]`.
      model: the robot's MuJoCo model, None without physics engine.
      title: above it.
      path: the file.

    Raises:
      ConfigError: matplotlib is missing.
    """
    figure = _pyplot().figure(figsize=(5, 4.6), layout="constrained")
    axis = figure.add_subplot()
    _picture(axis, qpos, model, view_of(model))
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


def _picture(axis: Any, qpos: np.ndarray, model: Any, view: View) -> None:
    """Draws a robot on its ground, which has a mark at each metre."""
    half_width = view.half_width
    x = float(qpos[0]) if view.middle is None else view.middle
    low, high = x - half_width, x + half_width
    axis.set(xlim=(low, high), ylim=(-GROUND, 2 * half_width - 0.4), aspect="equal")
    axis.axhspan(-GROUND, 0, color="0.85")
    for metre in range(math.ceil(low), math.floor(high) + 1):
        axis.plot([metre] * 2, [-0.06, 0], color="0.3", linewidth=1)
        if abs(metre - x) < half_width - 0.2:  # else cut off at the side
            axis.text(metre, -0.08, f"{metre} m", ha="center", va="top", fontsize=7)
    for shape in silhouettes(model, qpos, view.axis):
        face, edge = shape.colour or "none", "0.2" if shape.colour else "0.6"
        axis.fill(*shape.outline.T, facecolor=face, edgecolor=edge, linewidth=0.8)
    axis.set(xticks=[], yticks=[])


def _curves(axis: Any, episode: Episode, frames: np.ndarray) -> None:
    """Draws what is done and asked for; dotted lines are where the pictures are."""
    seconds = (np.arange(len(episode.reward)) + 1) * episode.control_dt
    name = episode.label.partition(",")[0]
    axis.plot(seconds, episode.actual, color="0.2", linewidth=1.2, label=name)
    ends = [*episode.starts[1:], len(seconds)]
    for number, (first, end) in enumerate(zip(episode.starts, ends)):
        reward = episode.reward[first:end].mean()
        begin, finish = first * episode.control_dt, end * episode.control_dt
        axis.axvspan(begin, finish, color=style.series(number), alpha=0.12, linewidth=0)
        if episode.goal is not None:
            label = "goal" if number == 0 else None
            line = {"color": style.series(number), "linewidth": 2.5}
            axis.plot([begin, finish], [episode.goal[first]] * 2, label=label, **line)
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
    axis.set(xlim=(0, seconds[-1]), xlabel="time, s", ylabel=episode.label)
    axis.legend(loc="lower right", fontsize=8, framealpha=0.9)
