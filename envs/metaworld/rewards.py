"""Rewards (version 2) and success of Meta-World's tasks, for ONE environment.

Formulas and numbers are those of metaworld 3.1.1. A reward grows from 0 to 10 with
the stages of its task. Lengths are in m, angles in rad.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.envs.metaworld.observations import clip_hand
from cemrl_jax.envs.metaworld.scene import Scene
from cemrl_jax.envs.metaworld.shaping import (
    Tail,
    gaussian,
    hamacher,
    long_tail,
    prism,
    tolerance,
)

Judgement = tuple[Array, Array]
"""Reward `[]` float32 and success `[]` bool of a control step."""

CLOSE = 0.05
"""Distance within which most objects are at their target."""
FULL = 10.0
"""Reward of a step at the target."""
PEG_HEAD_START = (-0.1, 0.6, 0.01478468)
"""Where the peg's head is before the peg is placed: progress counts from here."""
BUTTON_TRAVEL = 0.09349997
"""Way of the button."""
DRAWER_TRAVEL = 0.2
"""Way of the drawer that opens."""


def gap(a: Array, b: Array, scale: Sequence[float] = (1.0, 1.0, 1.0)) -> Array:
    """Distance `[]` of two points `[3]`, of which the axes may count differently."""
    return jnp.linalg.norm((a - b) * jnp.array(scale))


def progress(scene: Scene, left: Array, tail: Tail = long_tail) -> Array:
    """Value of having brought the object within `left` of the target."""
    start = scene.start
    return tolerance(left, CLOSE, gap(start.object, start.target), tail=tail)


def closing(scene: Scene) -> Array:
    """How hard the action closes the gripper, 0 to 1."""
    return jnp.clip(scene.action[3], 0.0, 1.0)


def caged(scene: Scene, sides: Array, radius: float) -> Array:
    """How well the object is between the fingers.

    Args:
      scene: the scene.
      sides: `[2]` how well each pad is placed along y.
      radius: how far from the object the tcp may be in the plane of x and z.
    """
    plane = (1.0, 0.0, 1.0)
    margin = gap(scene.start.object, scene.start.tcp, plane) - radius
    inside = tolerance(gap(scene.tcp, scene.object, plane), radius, margin)
    return hamacher(hamacher(sides[0], sides[1]), inside)


def pads(scene: Scene, inner: float, outer: float) -> Array:
    """How well each pad `[2]` is placed if it should be `inner` to `outer` away.

    The margin is measured from where the object started.
    """
    y = scene.pads[:, 1]
    margin = jnp.abs(jnp.abs(y - scene.start.object[1]) - outer)
    return tolerance(jnp.abs(y - scene.object[1]), outer, margin, inner)


def sided_pads(scene: Scene, inner: float, outer: float) -> Array:
    """As `pads`, but a pad on the wrong side counts as less than 0 away.

    The original means to measure the margin from the pads at the start, but has views
    of them that move along.
    """
    away = (scene.pads[:, 1] - scene.object[1]) * jnp.array([1.0, -1.0])
    return tolerance(away, outer, jnp.abs(jnp.abs(away) - CLOSE), inner)


def gripped(scene: Scene, cage: Array) -> Array:
    """Value of closing the gripper, which counts only around the object."""
    return hamacher(cage, jnp.where(cage > 0.97, closing(scene), 0.0))


def grasped(scene: Scene, cage: Array) -> Array:
    """Half for the cage, half for the grip."""
    return (gripped(scene, cage) + cage) / 2


def held(scene: Scene, radius: float) -> Array:
    """Whether open fingers are within `radius` of an object 1 cm above its start."""
    near = gap(scene.object, scene.tcp) < radius
    lifted = scene.object[2] - 0.01 > scene.start.object[2]
    return near & (scene.opening > 0) & lifted


def bonus(up: Array, there: Array) -> Array:
    """Reward for having the object up, more the closer it is to the target."""
    return jnp.where(up, 1 + 5 * there, 0.0)


def reach(scene: Scene) -> Judgement:
    """Moves the hand to a place in the air."""
    left = gap(scene.tcp, scene.start.target)
    margin = gap(scene.start.hand, scene.start.target)
    return FULL * tolerance(left, CLOSE, margin), left <= CLOSE


def push(scene: Scene) -> Judgement:
    """Moves a puck to a place on the table."""
    left = gap(scene.object, scene.start.target)
    reward = 2 * grasped(scene, caged(scene, pads(scene, 0.015, 0.05), 0.005))
    near = (gap(scene.object, scene.tcp) < 0.02) & (scene.opening > 0)
    reward += jnp.where(near, 1 + reward + 5 * progress(scene, left), 0.0)
    return jnp.where(left < CLOSE, FULL, reward), left <= CLOSE


def pick_place(scene: Scene) -> Judgement:
    """Moves a puck to a place in the air."""
    left = gap(scene.object, scene.start.target)
    there = progress(scene, left)
    cage = caged(scene, sided_pads(scene, 0.015, 0.05), 0.005)
    reward = hamacher(grasped(scene, cage), there) + bonus(held(scene, 0.02), there)
    return jnp.where(left < CLOSE, FULL, reward), left <= 0.07


def door_open(scene: Scene) -> Judgement:
    """Takes the handle of a door from above and turns the door about its hinge."""
    hand = clip_hand(scene.hand)
    away = jnp.linalg.norm((hand - scene.object)[:2] + jnp.array([0.05, 0.0]))
    outside = away > 0.12
    funnel = 0.4 + 0.04 * jnp.log(jnp.where(outside, away - 0.12, 1.0))
    floor = jnp.where(outside, funnel, 0.0)
    above = tolerance(jnp.maximum(floor - hand[2], 0.0), 0.01, floor / 2)
    behind = gap(hand, scene.object + jnp.array([0.0, 0.03, -0.01]))
    ready = hamacher(above, tolerance(behind, 0.06, 0.5))
    turned = tolerance(2 / 3 * jnp.pi + scene.joint, 0.5, jnp.pi / 3)
    opened = jnp.where(scene.joint < -jnp.pi / 90, 0.2, 0.0) + 0.8 * turned
    pull = (jnp.clip(scene.action[3], -1.0, 1.0) + 1) / 2
    success = jnp.abs(scene.object[0] - scene.start.target[0]) <= 0.08
    return jnp.where(success, FULL, 2 * hamacher(ready, pull) + 8 * opened), success


def door_close(scene: Scene) -> Judgement:
    """Moves the handle of a door to where it is when the door is shut."""
    left = gap(scene.object, scene.start.target)
    margin = gap(scene.start.hand, scene.object) + 0.1
    hand = tolerance(gap(scene.tcp, scene.start.target), 0.0125, margin, tail=gaussian)
    reward = 3 * hand + 6 * progress(scene, left, gaussian)
    return jnp.where(left < CLOSE, FULL, reward), left <= 0.08


def drawer_close(scene: Scene) -> Judgement:
    """Pushes the handle of a drawer with a closed gripper."""
    start = scene.start
    left = gap(scene.object, start.target)
    there = tolerance(left, CLOSE, gap(start.object, start.target) - CLOSE)
    margin = gap(start.object, start.tcp) - 0.005
    near = tolerance(gap(scene.object, scene.tcp), 0.005, margin, tail=gaussian)
    reward = FULL * hamacher(hamacher(near, closing(scene)), there)
    success = left <= 0.065
    return jnp.where(success, FULL, reward), success


def drawer_open(scene: Scene) -> Judgement:
    """Takes the handle of a drawer from above and pulls it."""
    target, scale = scene.start.target, (3.0, 3.0, 1.0)
    left = gap(scene.object, target)
    handle = target + jnp.array([0.0, DRAWER_TRAVEL, 0.0])
    near = gap(scene.object, clip_hand(scene.hand), scale)
    near = tolerance(near, 0.01, gap(handle, scene.start.tcp, scale))
    return 5 * (near + tolerance(left, 0.02, DRAWER_TRAVEL)), left <= 0.03


def button_press_topdown(scene: Scene) -> Judgement:
    """Presses a button down with a closed gripper."""
    away = gap(scene.object, scene.tcp)
    left = jnp.abs(scene.start.target[2] - scene.object[2])
    near = tolerance(away, 0.01, gap(scene.object, scene.start.tcp))
    pressed = tolerance(left, 0.005, BUTTON_TRAVEL)
    reward = 5 * hamacher(1 - scene.opening, near)
    return reward + jnp.where(away <= 0.03, 5 * pressed, 0.0), left <= 0.024


def peg_insert_side(scene: Scene) -> Judgement:
    """Moves the head of a peg into a hole, not through what surrounds the hole."""
    target, scale = scene.start.target, (1.0, 2.0, 2.0)
    head, low_zero, low_one, high_zero, high_one = scene.points
    left = gap(head, target, scale)
    there = tolerance(left, 0.07, gap(jnp.array(PEG_HEAD_START), target, scale))
    free = hamacher(prism(head, high_zero, high_one), prism(head, low_zero, low_one))
    there = hamacher(there, free)
    cage, up = caged(scene, pads(scene, 0.0075, 0.03), 0.005), held(scene, 0.08)
    grasp = jnp.where(up, 1.0, grasped(scene, cage))
    reward = hamacher(grasp, there) + bonus(up, there)
    success = left <= 0.07
    return jnp.where(success, FULL, reward), success


def slide(
    scene: Scene, handle: Sequence[float], travel: float, tail: Tail
) -> Judgement:
    """Slides the handle of a window along x.

    Args:
      scene: the scene.
      handle: `[3]` where the handle is at the start, from the window.
      travel: how far the handle is from the target at the start.
      tail: how the value of being near the handle falls.
    """
    left = jnp.abs(scene.object[0] - scene.start.target[0])
    there = tolerance(left, CLOSE, travel - CLOSE)
    handle_start = scene.start.object + jnp.array(handle)
    margin = gap(handle_start, scene.start.tcp) - 0.02
    near = tolerance(gap(scene.object, scene.tcp), 0.02, margin, tail=tail)
    return FULL * hamacher(near, there), left <= CLOSE


def window_open(scene: Scene) -> Judgement:
    """Slides a window to the right."""
    return slide(scene, (-0.04, -0.095, 0.0), 0.2, long_tail)


def window_close(scene: Scene) -> Judgement:
    """Slides a window to the left."""
    return slide(scene, (0.21, -0.095, 0.0), 0.21, gaussian)


def sweep_to(scene: Scene, target: Array, slack: float, radius: float) -> Judgement:
    """Moves an object 4 cm wide along the table with both pads close to it.

    Args:
      scene: the scene.
      target: `[3]` where to.
      slack: gap between object and pad up to which the object is gripped.
      radius: how far from the object the tcp may be in the plane of x and z.
    """
    left = gap(scene.object, target)
    there = tolerance(left, CLOSE, gap(scene.start.object, target))
    cage = caged(scene, sided_pads(scene, 0.02, 0.05), radius)
    grip = hamacher(*sided_pads(scene, 0.02, 0.02 + slack))
    grasp = (cage + jnp.where(cage > 0.95, grip, 0.0)) / 2
    reward = 2 * grasp + 6 * hamacher(grasp, there)
    return jnp.where(left < CLOSE, FULL, reward), left <= CLOSE


def sweep(scene: Scene) -> Judgement:
    """Sweeps a cube off the table."""
    return sweep_to(scene, scene.start.target, 0.01, 0.005)


def sweep_into(scene: Scene) -> Judgement:
    """Sweeps a cube into a hole, at any height."""
    target = scene.start.target.at[2].set(scene.object[2])
    return sweep_to(scene, target, 0.005, 0.01)


def basketball(scene: Scene) -> Judgement:
    """Drops a ball into a basket from 30 cm above the table."""
    start, scale = scene.start, (1.0, 1.0, 2.0)
    target = start.target.at[2].set(0.3)
    left = gap(scene.object, target, scale)
    there = tolerance(left, 0.08, gap(start.object, target, scale))
    cage, up = caged(scene, pads(scene, 0.025, 0.06), 0.005), held(scene, 0.035)
    grasp = jnp.where(up, 1.0, grasped(scene, cage))
    reward = hamacher(grasp, there) + bonus(up, there)
    return jnp.where(left < 0.08, FULL, reward), left <= 0.08


def shelf_place(scene: Scene) -> Judgement:
    """Moves a cube onto a shelf, not below it."""
    target, (x, y, z) = scene.start.target, scene.object
    left = gap(scene.object, target)
    there = progress(scene, left)
    cage = caged(scene, pads(scene, 0.02, 0.05), 0.01)
    grasp = gripped(scene, cage)
    below = (z > 0) & (z < 0.24) & (jnp.abs(x - target[0]) < 0.15)
    depth = 1 + (y - target[1]) / 0.15
    lost = hamacher(jnp.clip(depth, 0.0, 1.0), jnp.clip(1 - z / 0.24, 0.0, 1.0))
    lost = jnp.where(depth > 1, 1.0, lost)
    above = jnp.clip(there - jnp.where(below, lost, 0.0), 0.0, 1.0)
    reward = hamacher(grasp, there) + bonus(held(scene, 0.025), above)
    return jnp.where(left < CLOSE, FULL, reward), left <= 0.07


def lever_pull(scene: Scene) -> Judgement:
    """Takes a lever from below and turns it up."""
    start, scale = scene.start, (4.0, 1.0, 4.0)
    wrist = jnp.array([0.0, 0.055, 0.07])
    lever_start = start.object + jnp.array([0.12, -0.2, 0.25])
    below = gap(clip_hand(scene.hand) + wrist, scene.object, scale)
    ready = tolerance(below, 0.02, gap(start.tcp + wrist, lever_start, scale))
    left = gap(scene.object, start.target)
    there = tolerance(left, 0.04, gap(lever_start, start.target))
    success = jnp.abs(scene.joint + jnp.pi / 2) <= jnp.pi / 24
    return FULL * hamacher(ready, there), success


REWARDS: dict[str, Callable[[Scene], Judgement]] = {
    "reach": reach,
    "push": push,
    "pick-place": pick_place,
    "door-open": door_open,
    "drawer-close": drawer_close,
    "button-press-topdown": button_press_topdown,
    "peg-insert-side": peg_insert_side,
    "window-open": window_open,
    "sweep": sweep,
    "basketball": basketball,
    "drawer-open": drawer_open,
    "door-close": door_close,
    "shelf-place": shelf_place,
    "sweep-into": sweep_into,
    "lever-pull": lever_pull,
    "window-close": window_close,
}
"""Task -> its reward and success, in the order of ML10; and window-close."""


def judge(names: Sequence[str], kind: Array, scene: Scene) -> Judgement:
    """Judges a step by the task `names[kind]`; `kind` is `[]` int32."""
    return jax.lax.switch(kind, [REWARDS[name] for name in names], scene)
