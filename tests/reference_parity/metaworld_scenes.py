"""Scenes of Meta-World: what was recorded of steps of the official package.

The committed file holds scenes. Recordings hold the state of the physics, from which
scenes are made here with the package's own models, if they are installed.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import functools
import importlib.util
import os
import pathlib
from typing import Any

import jax
import mujoco
import numpy as np
from flax import struct, traverse_util

from cemrl_jax.envs.metaworld import scene as scene_lib
from cemrl_jax.envs.metaworld.observations import CURRENT_SIZE, SIZE, opening
from cemrl_jax.envs.metaworld.scene import SOURCES, Scene, Start

COMMITTED = pathlib.Path(__file__).parent.parent / "fixtures" / "metaworld_scenes.npz"
REFERENCE = os.environ.get("CEMRL_REFERENCE_DATA")
RECORDINGS = REFERENCE and pathlib.Path(REFERENCE).parent / "metaworld/recordings.npz"
"""Recordings lie beside those of the original."""
_SPEC = importlib.util.find_spec("metaworld")
MODELS = _SPEC and pathlib.Path(str(_SPEC.origin)).parent / "assets" / "sawyer_xyz"
"""Where the package's models are, if it is installed; it is not imported."""
XML = {
    "reach": "sawyer_reach_v3",
    "push": "sawyer_push_v3",
    "pick-place": "sawyer_pick_place_v3",
    "door-open": "sawyer_door_pull",
    "drawer-close": "sawyer_drawer",
    "button-press-topdown": "sawyer_button_press_topdown",
    "peg-insert-side": "sawyer_peg_insertion_side",
    "window-open": "sawyer_window_horizontal",
    "sweep": "sawyer_sweep_v3",
    "basketball": "sawyer_basketball",
    "drawer-open": "sawyer_drawer",
    "door-close": "sawyer_door_pull",
    "shelf-place": "sawyer_shelf_placing",
    "sweep-into": "sawyer_table_with_hole",
    "lever-pull": "sawyer_lever_pull",
    "window-close": "sawyer_window_horizontal",
}
"""Task -> the package's model."""


class Steps(struct.PyTreeNode):
    """Recorded steps `[N]` of a task.

    Attributes:
      scene: after each.
      before: `[N, 18]` what was observed of the moment before it.
      obs: `[N, 39]` observation after it, its target zero as in meta-learning.
      reward: `[N]`.
      success: `[N]` bool.
    """

    scene: Scene
    before: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    success: np.ndarray


@functools.cache
def archive(file):
    """Returns the arrays of a file; none if it is not there."""
    return np.load(file) if file and file.exists() else {}


def committed(task):
    """Returns the steps of a task that are in the repository."""
    arrays, start = archive(COMMITTED), f"{task}/"
    names = [name for name in arrays if name.startswith(start)]
    flat = {name.removeprefix(start): arrays[name] for name in names}
    fields = traverse_util.unflatten_dict(flat, sep="/")
    start = Start(**fields["scene"].pop("start"))
    return Steps(**{**fields, "scene": Scene(**fields["scene"], start=start)})


def recorded(task, arrays):
    """Returns the steps of a task in an archive of recordings."""
    name = functools.partial("{}-v3/{}".format, task)
    rows = {key: arrays[name(key)] for key in ("episode", "action", "next_state")}
    obs = arrays[name("next_obs")] * (np.arange(SIZE) < 2 * CURRENT_SIZE)
    return Steps(
        scene=scenes(task, rows, lambda key: arrays[name(key)][rows["episode"]]),
        before=arrays[name("obs")][:, :CURRENT_SIZE],
        obs=obs,
        reward=arrays[name("reward")],
        success=arrays[name("success")],
    )


def scenes(task, rows, of_episode):
    """Returns the scenes after the recorded steps.

    `of_episode(name)` gives the rows of an array that has one for each episode.
    """
    assert MODELS
    model = mujoco.MjModel.from_xml_path(str(MODELS / f"{XML[task]}.xml"))
    data = mujoco.MjData(model)
    fixed = [of_episode(name) for name in ("body_pos", "body_quat", "site_pos")]
    keys = ("target", "object_start", "hand_start", "tcp_start")
    starts = zip(*[of_episode(key) for key in keys])
    read = []
    for *places, state, action, start in zip(
        *fixed, rows["next_state"], rows["action"], starts
    ):
        model.body_pos[:], model.body_quat[:], model.site_pos[:] = places
        data.qpos[:] = state[: model.nq]
        mujoco.mj_kinematics(model, data)
        read.append(look(data, SOURCES[task], action, Start(*start)))
    return jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *read)


def look(data, source, action, start):
    """Returns the scene, as its fields say."""
    finger, other = (data.site(name).xpos for name in scene_lib.FINGERS)
    place = getattr(data, source.position.kind)(source.position.name)
    points = [data.site(name).xpos for name in source.points]
    fields: Any = {
        "hand": data.body(scene_lib.HAND).xpos.copy(),
        "opening": opening(*[data.body(name).xpos for name in scene_lib.CLAWS]),
        "tcp": (finger + other) / 2,
        "pads": np.stack([data.body(name).xpos for name in scene_lib.PADS]),
        "object": place.xpos + np.array(source.offset),
        "quaternion": data.body(source.body).xquat.copy(),
        "joint": data.joint(source.joint).qpos[0] if source.joint else 0.0,
        "points": np.reshape(points, (-1, 3)),
    }
    return Scene(**fields, action=action, start=start)
