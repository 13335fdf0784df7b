"""Where the arm is when an episode begins.

`starts.json` is made by `tests/fixtures/make_metaworld_starts.py`, which says how.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("starts.json")


@dataclasses.dataclass(frozen=True)
class Pose:
    """The state at the start of an episode, apart from what the task places.

    Attributes:
      qpos: `[nq]` positions, m and rad.
      qvel: `[nv]` velocities: the hand still moves.
      warmstart: `[nv]` the solver's last accelerations.
      hand: `[3]` where the hand is sent, which is where the mocap body is, m.
      tcp: `[3]` the point between the fingers, m.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    warmstart: np.ndarray
    hand: np.ndarray
    tcp: np.ndarray


@functools.cache
def poses() -> dict[str, Pose]:
    """Returns task -> pose at the start."""
    stored = json.loads(FILE.read_text())
    return {
        name: Pose(**{part: np.array(x, np.float32) for part, x in parts.items()})
        for name, parts in stored.items()
    }
