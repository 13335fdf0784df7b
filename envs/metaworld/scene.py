"""What rewards and observations of Meta-World look at, and where it is read.

Everything describes ONE environment at the end of a control step, when the places of
all bodies have been computed anew from the joints (`mj_kinematics`).
"""

import dataclasses
import enum
from typing import NamedTuple

from flax import struct
from jax import Array

HAND = "hand"
"""Body whose position is `Scene.hand`."""
CLAWS = ("rightclaw", "leftclaw")
"""Bodies between which `Scene.opening` is measured, see `observations.opening`."""
PADS = ("leftpad", "rightpad")
"""Bodies whose positions are `Scene.pads`."""
FINGERS = ("rightEndEffector", "leftEndEffector")
"""Sites whose mean position is `Scene.tcp`."""


class Start(struct.PyTreeNode):
    """What stays the same as long as a task does.

    The tasks of a structure differ in these numbers as well as in their formulas.

    Attributes:
      target: `[3]` the goal, m.
      object: `[3]` where the object was placed, m. Of what is fixed to the table (door,
        drawer to open, window, lever, button) it is the place of that body; of the
        drawer to close it is the observed handle.
      hand: `[3]` where the hand is sent at the start of an episode, m.
      tcp: `[3]` the point between the fingers at the start of an episode, m.
    """

    target: Array
    object: Array
    hand: Array
    tcp: Array


class Scene(struct.PyTreeNode):
    """One environment after a control step.

    Attributes:
      hand: `[3]` position of `HAND`, m.
      opening: `[]` distance of the claws, 0 (closed) to 1 (10 cm or more).
      tcp: `[3]` point between the fingers, m.
      pads: `[2, 3]` positions of `PADS`, m.
      object: `[3]` observed position of the object as `SOURCES` says, m.
      quaternion: `[4]` orientation of `Source.body` in MuJoCo's order (w, x, y, z) and
        with the sign that it has in the physics.
      joint: `[]` displacement of `Source.joint`, rad or m; 0 if there is none.
      points: `[P, 3]` positions of the sites `Source.points`, m.
      action: `[4]` action of the step: where the hand goes, how hard it grips.
      start: what stays the same.
    """

    hand: Array
    opening: Array
    tcp: Array
    pads: Array
    object: Array
    quaternion: Array
    joint: Array
    points: Array
    action: Array
    start: Start


BODY = "body"
GEOM = "geom"
SITE = "site"


class Place(NamedTuple):
    """A body, geom or site of a physical model.

    Attributes:
      kind: `BODY`, `GEOM` or `SITE`.
      name: its name in the model.
    """

    kind: str
    name: str


class Order(enum.Enum):
    """How a task observes the orientation of its object."""

    NONE = enum.auto()
    """Four zeros."""
    SCALAR_FIRST = enum.auto()
    """w, x, y, z with the sign of the physics."""
    SCALAR_LAST = enum.auto()
    """x, y, z, w with the component of largest magnitude positive."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a task's object is read in the physical model.

    Attributes:
      position: what has the object's position.
      body: the body that turns with the object.
      order: how the orientation is observed.
      offset: added to the position in world axes, m.
      turn: `[4]` orientation (w, x, y, z) of what is observed in the frame of `body`;
        of a mesh it is the one that MuJoCo 3.3 computes, later ones differ by 1e-3.
      joint: name of the joint that the reward looks at, if there is one.
      points: names of the sites that the reward looks at.
    """

    position: Place
    body: str
    order: Order
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    joint: str | None = None
    points: tuple[str, ...] = ()


PUCK = Source(Place(BODY, "obj"), "obj", Order.SCALAR_LAST)
DOOR = Source(
    Place(GEOM, "handle"),
    "door_link",
    Order.SCALAR_LAST,
    turn=(0.151171086, 0.690758498, -0.150620969, 0.690878661),
    joint="doorjoint",
)
DRAWER = "drawer_link"
PANE = "windowb_a"

SOURCES: dict[str, Source] = {
    "reach": PUCK,
    "push": PUCK,
    "pick-place": PUCK,
    "door-open": DOOR,
    "drawer-close": Source(
        Place(BODY, DRAWER), DRAWER, Order.NONE, offset=(0.0, -0.16, 0.05)
    ),
    "button-press-topdown": Source(
        Place(BODY, "button"), "button", Order.SCALAR_FIRST, offset=(0.0, 0.0, 0.193)
    ),
    "peg-insert-side": Source(
        Place(SITE, "pegGrasp"),
        "peg",
        Order.SCALAR_LAST,
        points=(
            "pegHead",
            "bottom_right_corner_collision_box_1",
            "top_left_corner_collision_box_1",
            "bottom_right_corner_collision_box_2",
            "top_left_corner_collision_box_2",
        ),
    ),
    "window-open": Source(Place(SITE, "handleOpenStart"), PANE, Order.NONE),
    "sweep": Source(Place(BODY, "obj"), "obj", Order.SCALAR_FIRST),
    "basketball": Source(Place(BODY, "bsktball"), "bsktball", Order.SCALAR_FIRST),
    "drawer-open": Source(
        Place(BODY, DRAWER), DRAWER, Order.SCALAR_FIRST, offset=(0.0, -0.16, 0.0)
    ),
    "door-close": DOOR,
    "shelf-place": PUCK,
    "sweep-into": PUCK,
    "lever-pull": Source(
        Place(SITE, "leverStart"),
        "lever_link1",
        Order.SCALAR_LAST,
        turn=(0.662500039, 0.662500039, -0.247171395, 0.247171395),
        joint="LeverAxis",
    ),
    "window-close": Source(Place(SITE, "handleCloseStart"), PANE, Order.NONE),
}
"""Task -> where its object is read: the 15 of ML10 in its order, and window-close."""
