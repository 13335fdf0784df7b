"""An episode as one HTML file that a browser plays without a network."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import html
import json
import pathlib
from typing import Any

import mujoco
import numpy as np

from cemrl_jax.analysis import describe, style
from cemrl_jax.analysis.video import Show

TEMPLATE = pathlib.Path(__file__).parent / "assets" / "viewer.html"


def write(show: Show, path: pathlib.Path) -> None:
    """Writes the viewer of the first episode."""
    text = TEMPLATE.read_text(encoding="utf-8")
    data = json.dumps(contents(show), separators=(",", ":")).replace("<", "\\u003c")
    text = text.replace("__TITLE__", html.escape(show.title))
    path.write_text(text.replace("__DATA__", data), encoding="utf-8")


def contents(show: Show) -> dict[str, Any]:
    """Returns what the viewer shows: lengths in mm as integers, the rest as floats."""
    recording, end = show.recording, show.length(0)
    label, actual, goal = describe.track(show.env, recording, 0)
    poses = np.asarray(recording.qpos[0, :end])
    radii, ends = capsules(show.model, poses)
    place = describe.places(show.env, recording, 0)[:end]
    belief = recording.belief
    series = [_series(label, [actual[:end]], [style.MEANING["actual"]])]
    if goal is not None:
        series[0]["lines"].append(_rounded(goal[:end]))
        series[0]["colours"].append(style.MEANING["goal"])
        series[0]["steps"] = 1
    z = np.asarray(belief.z[0, :end]).T
    colours = [style.MEANING["z"]] if len(z) == 1 else list(map(style.series, range(9)))
    series.append(_series("inferred z", z, colours))
    if belief.probs.shape[-1] > 1:
        probs = np.asarray(belief.probs[0, :end]).T
        colours = [style.series(number) for number in range(len(probs))]
        series.append(_series("class probability", probs, colours) | {"range": [0, 1]})
    reward = np.asarray(recording.transitions.reward[0, :end])
    series.append(_series("reward", [reward], [style.MEANING["reward"]]))
    texts = describe.captions(show.env, recording, 0, end)
    return {
        "dt": show.dt,
        "radii": radii,
        "ends": (1000 * ends).round().astype(int).reshape(end, -1).tolist(),
        "place": (1000 * place).round().astype(int).tolist(),
        "tasks": [[int(start), words] for start, words in texts],
        "series": series,
        "total": float(reward.sum()),
    }


def capsules(model: Any, poses: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Returns capsules in poses `[L, nq]`, m: radii `[G]`, ends `[L, G, 6]`.

    Spheres have equal ends; boxes and others become the capsule along their longest
    side. Without a model there is a ball at `poses[:, 0]`.
    """
    if model is None:
        ends = np.zeros((len(poses), 1, 6))
        ends[..., [0, 3]] = poses[:, :1, None]
        ends[..., [2, 5]] = 0.2
        return [0.2], ends
    kinds = mujoco.mjtGeom
    flat = {int(kinds.mjGEOM_PLANE), int(kinds.mjGEOM_HFIELD)}
    shown = [n for n in range(model.ngeom) if int(model.geom_type[n]) not in flat]
    long = {int(kinds.mjGEOM_CAPSULE), int(kinds.mjGEOM_CYLINDER)}
    radii, lines = [], []
    for geom in shown:
        size, kind = model.geom_size[geom], int(model.geom_type[geom])
        if kind in long:
            radii.append(float(size[0]))
            lines.append((2, float(size[1])))
        elif kind == int(kinds.mjGEOM_SPHERE):
            radii.append(float(size[0]))
            lines.append((2, 0.0))
        else:
            axis = int(size.argmax())
            radii.append(float(np.delete(size, axis).mean()))
            lines.append((axis, max(float(size[axis]) - radii[-1], 0)))
    data = mujoco.MjData(model)
    ends = np.empty((len(poses), len(shown), 6))
    for step, qpos in enumerate(poses):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        for number, geom in enumerate(shown):
            axis, half = lines[number]
            way = half * data.geom_xmat[geom].reshape(3, 3)[:, axis]
            centre = data.geom_xpos[geom]
            ends[step, number] = [*(centre - way), *(centre + way)]
    return [round(radius, 4) for radius in radii], ends


def _series(label: str, lines: Any, colours: list[str]) -> dict[str, Any]:
    rounded = [_rounded(line) for line in lines]
    return {"label": label, "lines": rounded, "colours": list(colours)}


def _rounded(line: Any) -> list[float | None]:
    """Returns numbers of four digits; None, which JSON has, for NaN."""
    return [float(f"{x:.4g}") if np.isfinite(x) else None for x in line]
