"""The Sawyer arm of Meta-World among the things of a structure."""

import copy
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cemrl_jax.envs.base import Task
from cemrl_jax.envs.engines import ModelFile, PhysicsState
from cemrl_jax.envs.engines.simulated import Simulated
from cemrl_jax.envs.metaworld import models, observations, rewards, scene
from cemrl_jax.envs.metaworld.scene import SOURCES, Place, Scene, Source, Start
from cemrl_jax.envs.metaworld.starts import poses
from cemrl_jax.envs.metaworld.vectors import FIRST_KIND, NAMES

STEP = 0.01
"""How far an action of 1 moves the mocap body along an axis, m."""
NUM_ARM_JOINTS = 9
"""Seven of the arm and two of the fingers; joints of things follow them."""


class Workplace(struct.PyTreeNode):
    """The state of the physics.

    Attributes:
      body: joints, mocap body, and places of all bodies.
      fixture: `[3]` where the fixture has been since the episode began, m.
      previous: `[18]` what was observed a step before.
    """

    body: PhysicsState
    fixture: Array
    previous: Array

    @property
    def qpos(self) -> Array:
        """Positions of the joints `[nq]`, m and rad."""
        return self.body.qpos


@dataclasses.dataclass
class Sawyer(Simulated):
    """A hand moved by its place, two fingers; 39 observations, 4 actions, 0.0125 s.

    An action moves the mocap body that the hand is welded to, by up to 1 cm along each
    axis, and closes (1) or opens (-1) the fingers. See `cemrl_jax.envs.base.World`.
    """

    def __post_init__(self) -> None:
        """What tasks it gets is no setting: `suited` says it."""
        self.structure = models.STRUCTURES[0]

    def suited(self, distribution: Any) -> "Sawyer":
        """See `World`.

        Raises:
          ValueError: these are no tasks of Meta-World, or of several structures.
        """
        names = getattr(distribution, "base_names", ())
        if not names:
            raise ValueError(
                "a sawyer needs tasks of Meta-World (env.task='metaworld'), not"
                f" {type(distribution).__name__}"
            )
        result = copy.copy(self)
        for name in ("simulator", "_reader"):
            result.__dict__.pop(name, None)
        result.structure = models.structure_of(names)
        return result

    @property
    def source(self) -> ModelFile:
        """See `Simulated.source`."""
        return models.SawyerFile(
            self.structure.file,
            substeps=5,
            iterations=4,
            ls_iterations=8,
            readings=("xpos", "xquat"),
            current_readings=True,
        )

    @property
    def action_size(self) -> int:
        """See `World.action_size`."""
        return 4

    @property
    def obs_size(self) -> int:
        """See `World.obs_size`."""
        return observations.SIZE

    @property
    def can_fall(self) -> bool:
        """See `World`."""
        return False

    @property
    def is_solvable(self) -> bool:
        """See `World.is_solvable`."""
        return True

    def reset(self, key: Array, task: Task) -> Workplace:
        """See `World.reset`: nothing is random but the task."""
        del key
        kind = self._kind(task)
        part = lambda name: self._starts[name][kind]  # noqa: E731
        fixture, start, _ = jnp.split(task.spec, 3)
        body = PhysicsState(
            qpos=self._placed(part("qpos"), start),
            qvel=part("qvel"),
            warmstart=part("warmstart"),
            readings={},
            mocap=part("hand")[None],
        )
        body = self.simulator.read(body, self._overrides(fixture))
        nothing = jnp.zeros(observations.CURRENT_SIZE)
        state = Workplace(body=body, fixture=fixture, previous=nothing)
        return state.replace(previous=self._current(state, task))

    def step(self, physics: Workplace, action: Array, task: Task) -> Workplace:
        """See `World.step`."""
        low, high = map(jnp.array, self.structure.hand_box)
        assert physics.body.mocap is not None
        way = STEP * jnp.clip(action[:3], -1, 1)
        mocap = jnp.clip(physics.body.mocap + way, low, high)
        body = self.simulator.step(
            physics.body.replace(mocap=mocap),
            jnp.stack([action[3], -action[3]]),
            self._overrides(physics.fixture),
        )
        return physics.replace(body=body, previous=self._current(physics, task))

    def observe(self, physics: Workplace, task: Task) -> Array:
        """See `World.observe`."""
        now = self._current(physics, task)
        return observations.observation(now, physics.previous)

    def judge(
        self, before: Workplace, after: Workplace, action: Array, task: Task
    ) -> tuple[Array, Array]:
        """See `World.judge`."""
        del before
        seen = self._scene(after, action, task)
        return rewards.judge(self.structure.names, self._kind(task), seen)

    def x_position(self, physics: Workplace) -> Array:
        """See `Robot.x_position`: that of the hand."""
        return self._reader.position(physics.body, Place(scene.BODY, scene.HAND))[0]

    def terminated(self, physics: Workplace) -> Array:
        """See `Robot.terminated`: an episode ends with its time only."""
        del physics
        return jnp.bool_(False)

    def validate(self) -> list[str]:
        """Returns what is wrong: there are no settings, but files may be missing."""
        try:
            models.assets()
        except ValueError as error:
            return [str(error)]
        return []

    @functools.cached_property
    def _reader(self) -> "_Reader":
        return _Reader(self.simulator.model)

    @property
    def _starts(self) -> dict[str, Array]:
        """Parts of the pose at the start by name, `[number of tasks, ...]`."""
        own = [poses()[name] for name in self.structure.names]
        parts = ("qpos", "qvel", "warmstart", "hand", "tcp")
        return {x: jnp.stack([getattr(pose, x) for pose in own]) for x in parts}

    def _kind(self, task: Task) -> Array:
        """Returns the task's number in the structure, `[]` int32."""
        numbers = np.zeros(len(NAMES), np.int32)
        for number, name in enumerate(self.structure.names):
            numbers[NAMES.index(name)] = number
        return jnp.array(numbers)[task.kind - FIRST_KIND]

    def _placed(self, qpos: Array, start: Array) -> Array:
        """Returns joints `[nq]` with the object at `start` `[3]`, if it lies about."""
        if self.simulator.model.nq == NUM_ARM_JOINTS + 7:
            place = slice(NUM_ARM_JOINTS, NUM_ARM_JOINTS + 3)
            return qpos.at[place].set(start)
        return qpos

    def _overrides(self, fixture: Array) -> dict[str, Array]:
        """Returns the fields of the model that put the fixture at its place."""
        if self.structure.fixture is None:
            return {}
        nominal = jnp.asarray(self.simulator.model.body_pos, jnp.float32)
        body = self.simulator.body(self.structure.fixture)
        return {"body_pos": nominal.at[body].set(fixture)}

    def _current(self, physics: Workplace, task: Task) -> Array:
        """Returns what is observed of one moment, `[18]`."""
        seen = self._scene(physics, jnp.zeros(self.action_size), task)
        return observations.current(self.structure.names, self._kind(task), seen)

    def _scene(self, physics: Workplace, action: Array, task: Task) -> Scene:
        """Returns what rewards and observations look at.

        A change of the task does not move the fixture: the task comes to it.
        """
        kind, read, body = self._kind(task), self._reader, physics.body
        place = functools.partial(read.position, body)
        placed, start, target = jnp.split(task.spec, 3)
        moved = physics.fixture - placed
        right, left = (place(Place(scene.BODY, name)) for name in scene.CLAWS)
        tips = jnp.stack([place(Place(scene.SITE, name)) for name in scene.FINGERS])
        things = [read.thing(body, SOURCES[name]) for name in self.structure.names]
        seen = jax.tree.map(lambda *x: jnp.stack(x)[kind], *_same_shapes(things))
        return Scene(
            hand=place(Place(scene.BODY, scene.HAND)),
            opening=observations.opening(right, left),
            tcp=tips.mean(0),
            pads=jnp.stack([place(Place(scene.BODY, name)) for name in scene.PADS]),
            action=action,
            start=Start(
                target=target + moved,
                object=start + moved,
                hand=self._starts["hand"][kind],
                tcp=self._starts["tcp"][kind],
            ),
            **seen,
        )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads places of a model's parts from those of its bodies."""

    model: Any

    def position(self, body: PhysicsState, place: Place) -> Array:
        """Returns where a body, geom or site is, `[3]`, m."""
        part = getattr(self.model, place.kind)(place.name)
        if place.kind == scene.BODY:
            return body.readings["xpos"][part.id]
        owner = int(part.bodyid[0])
        turned = _rotate(body.readings["xquat"][owner], jnp.float32(part.pos))
        return body.readings["xpos"][owner] + turned

    def thing(self, body: PhysicsState, source: Source) -> dict[str, Array]:
        """Returns the fields of a `Scene` that a source tells, by name."""
        joint = jnp.float32(0)
        if source.joint is not None:
            joint = body.qpos[int(self.model.joint(source.joint).qposadr[0])]
        points = [
            self.position(body, Place(scene.SITE, name)) for name in source.points
        ]
        return {
            "object": self.position(body, source.position) + jnp.array(source.offset),
            "quaternion": body.readings["xquat"][self.model.body(source.body).id],
            "joint": joint,
            "points": jnp.stack(points) if points else jnp.zeros((0, 3)),
        }


def _same_shapes(things: Iterable[dict[str, Array]]) -> list[dict[str, Array]]:
    """Fills up the points of things that have fewer than others."""
    things = list(things)
    count = max(len(thing["points"]) for thing in things)
    fill = lambda x: jnp.pad(x, ((0, count - len(x)), (0, 0)))  # noqa: E731
    return [thing | {"points": fill(thing["points"])} for thing in things]


def _rotate(quaternion: Array, vector: Array) -> Array:
    """Turns a vector `[3]` by a unit quaternion `[4]` (w, x, y, z)."""
    axis = quaternion[1:]
    across = 2 * jnp.cross(axis, vector)
    return vector + quaternion[0] * across + jnp.cross(axis, across)
