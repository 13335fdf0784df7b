"""The physical models of Meta-World, edited in memory for MuJoCo 4 and for MJX.

Files and meshes are those of the installed metaworld package, of which nothing else
is used.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import collections
import dataclasses
import functools
import importlib.util
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import mujoco
import numpy as np

from cemrl_jax.envs.engines import ModelFile

MISSING = (
    "name='sawyer' needs the model files of Meta-World: pip install --no-deps"
    " metaworld==3.1.1 (its dependencies pin an older mujoco)"
)
CONTACTS = pathlib.Path(__file__).with_name("contacts.json")
"""What collides in each file, by `geom_names`: a geom and those that it may meet.

`tests/fixtures/make_metaworld_contacts.py` makes it, and says how.
"""
TABLE = "tablelink"
HULL_VERTICES = 32
"""Of the hull of a mesh on MJX, at most."""
Point = tuple[float, float, float]
HAND_BOX = ((-0.5, 0.4, 0.05), (0.5, 1.0, 0.5))
"""Where the mocap body may be in most structures, m."""
MOCAP_QUATERNION = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)
"""Its orientation: the fingers point down."""
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0, 0.0)
"""`eq_data` of the weld of hand and mocap body: no offset, torques scaled by 5."""
SIDES = 16
"""Of the prism that stands for a cylinder where MJX knows no other way."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """What tasks have in common that differ in numbers and formulas only.

    Attributes:
      file: name of the XML file in the package's folder "sawyer_xyz".
      names: the tasks.
      fixture: body that a task places, None if there is none.
      hand_box: where the mocap body may be, m.
    """

    file: str
    names: tuple[str, ...]
    fixture: str | None = None
    hand_box: tuple[Point, Point] = HAND_BOX


STRUCTURES = (
    Structure("sawyer_pick_place_v3.xml", ("reach", "push", "pick-place")),
    Structure("sawyer_door_pull.xml", ("door-open", "door-close"), fixture="door"),
    Structure("sawyer_drawer.xml", ("drawer-close", "drawer-open"), fixture="drawer"),
    Structure(
        "sawyer_window_horizontal.xml",
        ("window-open", "window-close"),
        fixture="window",
    ),
    Structure(
        "sawyer_button_press_topdown.xml", ("button-press-topdown",), fixture="box"
    ),
    Structure("sawyer_peg_insertion_side.xml", ("peg-insert-side",), fixture="box"),
    Structure("sawyer_sweep_v3.xml", ("sweep",)),
    Structure("sawyer_basketball.xml", ("basketball",), fixture="basket_goal"),
    Structure("sawyer_shelf_placing.xml", ("shelf-place",), fixture="shelf"),
    Structure("sawyer_table_with_hole.xml", ("sweep-into",)),
    Structure(
        "sawyer_lever_pull.xml",
        ("lever-pull",),
        fixture="lever",
        hand_box=((-0.5, 0.4, -0.15), (0.5, 1.0, 0.5)),
    ),
)


def structure_of(names: Iterable[str]) -> Structure:
    """Returns the structure that all of these tasks have.

    Raises:
      ValueError: there is no such structure.
    """
    for structure in STRUCTURES:
        if set(names) <= set(structure.names):
            return structure
    known = "; ".join(", ".join(structure.names) for structure in STRUCTURES)
    raise ValueError(
        f"names={tuple(names)} must be tasks of one physical model: {known}"
    )


@functools.cache
def assets() -> pathlib.Path:
    """Returns the folder of the package's model files.

    Raises:
      ValueError: the package is not there; says how to get it.
    """
    found = importlib.util.find_spec("metaworld")
    if found is None or found.origin is None:
        raise ValueError(MISSING)
    return pathlib.Path(found.origin).parent / "assets"


@functools.cache
def contacts() -> dict[str, dict[str, list[str]]]:
    """Returns file -> name of a geom -> names of those that it meets."""
    return json.loads(CONTACTS.read_text())


def geom_names(model: mujoco.MjModel) -> dict[int, str]:
    """Returns the names of geoms that can collide: their body's and a number.

    A body without a name goes by that of the body that it is part of.
    """
    names, counts = {}, collections.Counter()
    for geom in np.flatnonzero(model.geom_contype | model.geom_conaffinity):
        body = model.geom_bodyid[geom]
        while not model.body(body).name:
            body = model.body_parentid[body]
        owner = model.body(body).name
        names[int(geom)] = f"{owner}/{counts[owner]}"
        counts[owner] += 1
    return names


@dataclasses.dataclass(frozen=True)
class SawyerFile(ModelFile):
    """See `ModelFile`; margins and the solver stay as they are."""

    def compile(
        self, edit: Callable[[mujoco.MjSpec], None] = lambda spec: None
    ) -> mujoco.MjModel:
        """See `ModelFile.compile`."""
        spec = mujoco.MjSpec.from_file(self._path)
        spec.body("mocap").quat = MOCAP_QUATERNION
        edit(spec)
        model = spec.compile()
        model.eq_data[0] = WELD
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MULTICCD
        return model

    @property
    def _path(self) -> str:
        return str(assets() / "sawyer_xyz" / self.file)

    def make_pairs(self, spec: mujoco.MjSpec) -> None:
        """Lets those geoms collide that `contacts` names, as the file has it, alone."""
        plain = mujoco.MjModel.from_xml_path(self._path)
        numbers = {name: number for number, name in geom_names(plain).items()}
        geoms = list(spec.geoms)
        for number, geom in enumerate(geoms):
            geom.name = geom.name or f"geom {number}"
            geom.contype = geom.conaffinity = 0
        for first, others in contacts()[self.file].items():
            for second in others:
                pair = (numbers[first], numbers[second])
                names = {f"geomname{n}": geoms[g].name for n, g in enumerate(pair, 1)}
                spec.add_pair(**names, **_contact(plain, *pair))

    def edit_for_mjx(self, spec: mujoco.MjSpec) -> None:
        """Names the pairs that collide, and gives them shapes that MJX knows.

        Cylinders meet boxes and meshes as prisms, the table is a plane where it is but
        one box, and the hulls of meshes have few vertices. MJX knows no margin of
        meshes: a prism is larger by the pair's, the hand's mesh goes without.
        """
        self.make_pairs(spec)
        tops = {pair.geomname1 for pair in spec.pairs}
        tops |= {pair.geomname2 for pair in spec.pairs}
        tops = {name for name in tops if spec.geom(name).parent.name == TABLE}
        for pair in spec.pairs:
            for side, other in (("geomname1", "geomname2"), ("geomname2", "geomname1")):
                geom, met = (spec.geom(getattr(pair, x)) for x in (side, other))
                if _is(geom, "box") and {geom.name} == tops:
                    _flatten(geom)
                if _is(geom, "cylinder") and (_is(met, "box") or _is(met, "mesh")):
                    setattr(pair, side, _add_prism(spec, geom, pair.margin))
                    pair.margin = 0
                if _is(geom, "mesh"):
                    spec.mesh(geom.meshname).maxhullvert = HULL_VERTICES
                    pair.margin = 0


def _is(geom: Any, kind: str) -> bool:
    return geom.type == getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}")


def _contact(model: mujoco.MjModel, first: Any, second: Any) -> dict[str, Any]:
    """Returns the parameters of the contact of two geoms of one priority.

    The margin is the larger of the two, as MuJoCo took it up to 3.3.
    """
    pair = [first, second]
    weight = model.geom_solmix[pair] / model.geom_solmix[pair].sum()
    slide, spin, roll = model.geom_friction[pair].max(0)
    return {
        "condim": int(model.geom_condim[pair].max()),
        "friction": [slide, slide, spin, roll, roll],
        "solref": weight @ model.geom_solref[pair],
        "solimp": weight @ model.geom_solimp[pair],
        "margin": float(model.geom_margin[pair].max()),
        "gap": float(model.geom_gap[pair].max()),
    }


def _flatten(geom: Any) -> None:
    """Makes an upright box the plane of its top: what is on it cannot leave it."""
    height = geom.size[2]
    geom.type = mujoco.mjtGeom.mjGEOM_PLANE
    geom.pos = [*geom.pos[:2], geom.pos[2] + height]
    geom.size = [*geom.size[:2], 1.0]


def _add_prism(spec: mujoco.MjSpec, cylinder: Any, margin: float) -> str:
    """Adds a prism without mass in place of a cylinder; returns its name.

    Its base has the area of the circle, and it is larger by a margin all around. A
    cylinder that is turned has its quaternion or, in place of it, angles.
    """
    name = f"{cylinder.name} prism {margin}"
    if spec.geom(name) is not None:
        return name
    radius, half = cylinder.size[:2] + margin
    radius *= math.sqrt(2 * math.pi / SIDES / math.sin(2 * math.pi / SIDES))
    angle = 2 * math.pi * np.arange(SIDES) / SIDES
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    ends = [np.column_stack([circle, np.full(SIDES, z)]) for z in (-half, half)]
    spec.add_mesh(name=name, uservert=np.concatenate(ends).ravel())
    prism = cylinder.parent.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=name,
        pos=cylinder.pos,
        quat=cylinder.quat,
        mass=0,
        contype=0,
        conaffinity=0,
        group=3,
    )
    prism.alt.type, prism.alt.euler = cylinder.alt.type, cylinder.alt.euler
    return name
