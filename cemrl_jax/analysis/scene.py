"""Pictures of a robot in a pose: by MuJoCo where it can render, else a stick figure."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import copy
import importlib
import os
import subprocess
import sys
from typing import Any, Protocol

import mujoco
import numpy as np

from cemrl_jax.analysis.strip import silhouettes, view_of

BACKENDS = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Ways to render without a display -> the package of the system that brings them."""
SKY, GROUND, OUTLINE = "#eaf2f8", "#c9cfd4", "#3b3b3b"


class Scene(Protocol):
    """Draws one robot."""

    def draw(self, qpos: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Returns a picture `[H, W, 3]` uint8 of a pose `[nq]` at a place `[2]`, m."""
        ...


class Rendered:
    """MuJoCo's renderer, with a camera that moves along."""

    def __init__(self, model: Any, width: int, height: int, backend: str) -> None:
        """Opens a context of a back end that `find_backend` has found."""
        os.environ.setdefault("PYOPENGL_PLATFORM", backend)
        module = importlib.import_module(f"mujoco.{backend}")
        self._gl = module.GLContext(width, height)
        self._gl.make_current()
        self._model = _calm(copy.deepcopy(model))
        self._model.vis.global_.offwidth = width
        self._model.vis.global_.offheight = height
        self._data = mujoco.MjData(self._model)
        self._scene = mujoco.MjvScene(self._model, maxgeom=200)
        scale = mujoco.mjtFontScale.mjFONTSCALE_100
        self._context = mujoco.MjrContext(self._model, scale)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._camera = mujoco.MjvCamera()
        size, self._height = _extent(self._model, self._data)
        self._camera.distance = 1.4 + 1.5 * size
        self._camera.azimuth, self._camera.elevation = 90, -12

    def __del__(self) -> None:
        """Frees what is in the graphics memory, in its own context and no other."""
        leaving = not sys or sys.is_finalizing()  # modules may be gone already
        if hasattr(self, "_context") and not leaving:
            self._gl.make_current()
            self._context.free()
            self._gl.free()

    def draw(self, qpos: np.ndarray, place: np.ndarray) -> np.ndarray:
        """See `Scene.draw`."""
        self._gl.make_current()  # another one, made or freed since, takes that away
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._camera.lookat[:] = [*place, 0.8 * self._height]
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            mujoco.MjvOption(),
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        picture = np.empty((self._area.height, self._area.width, 3), np.uint8)
        mujoco.mjr_render(self._area, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, self._area, self._context)
        return picture[::-1]


def _calm(model: Any) -> Any:
    """Returns a model whose floor does not outshine the robot: paler, no mirror."""
    model.mat_reflectance[:] = 0
    model.vis.headlight.ambient[:] = 0.45  # in which shadows are grey
    model.vis.headlight.diffuse[:] = 0.35
    model.light_diffuse[:] = 0.35
    model.light_specular[:] = 0
    model.tex_data[:] = (160 + 0.35 * model.tex_data.astype(float)).astype(np.uint8)
    return model


def _extent(model: Any, data: Any) -> tuple[float, float]:
    """Returns how long a robot is and how high its middle lies in its first pose, m."""
    mujoco.mj_resetData(model, data)
    mujoco.mj_kinematics(model, data)
    plane = int(mujoco.mjtGeom.mjGEOM_PLANE)
    own = [n for n in range(model.ngeom) if int(model.geom_type[n]) != plane]
    places = data.geom_xpos[own]
    return float(np.ptp(places, 0).max()), float(places[:, 2].mean())


class Drawn:
    """A stick figure from the side, which needs no graphics driver."""

    def __init__(self, model: Any, width: int, height: int) -> None:
        """Of a model, or of a point where it is None."""
        self._model, self._width, self._height = model, width, height
        self._view = view_of(model)
        self._scale = height / 2.4  # pixels of a metre

    def draw(self, qpos: np.ndarray, place: np.ndarray) -> np.ndarray:
        """See `Scene.draw`."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (self._width, self._height), SKY)
        pen = ImageDraw.Draw(picture)
        ground = round(0.82 * self._height)
        pen.rectangle((0, ground, self._width, self._height), GROUND)
        middle = self._view.middle
        x = float(place[0]) if middle is None else middle
        half = self._width / 2 / self._scale
        for metre in range(int(x - half) - 1, int(x + half) + 2):
            mark = self._width / 2 + (metre - x) * self._scale
            pen.line((mark, ground, mark, ground + 8), OUTLINE, 2)
            pen.text((mark + 4, ground + 6), f"{metre} m", OUTLINE)
        corner = np.array([self._width / 2 - x * self._scale, ground])
        for shape in silhouettes(self._model, qpos, self._view.axis):
            outline = corner + shape.outline * [self._scale, -self._scale]
            fill = shape.colour and tuple(round(255 * part) for part in shape.colour)
            pen.polygon([*map(tuple, outline)], fill, OUTLINE, 2)
        return np.asarray(picture)


def find_backend() -> str | None:
    """Returns a way to render that works on this machine, or None.

    Each is tried in a process of its own: one that fails leaves traces.
    """
    for backend in BACKENDS:
        environment = dict(os.environ, MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
        command = "import mujoco; mujoco.GLContext(8, 8).make_current()"
        with contextlib.suppress(subprocess.TimeoutExpired):
            tried = subprocess.run(
                [sys.executable, "-c", command],
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
            if tried.returncode == 0:
                return backend
    return None


def make_scene(
    model: Any, width: int, height: int, backend: str | None
) -> tuple[Scene, str]:
    """Returns a scene and what there is to say about how it is drawn.

    Args:
      model: the robot's MuJoCo model, None without physics engine.
      width: of a picture, pixels.
      height: of a picture, pixels.
      backend: what `find_backend` has found.
    """
    if model is None:
        return Drawn(None, width, height), "without a MuJoCo model, drawn as a ball"
    if backend is None:
        packages = " or ".join(BACKENDS.values())
        words = f"drawn as a stick figure: to render it, install {packages} (apt-get)"
        return Drawn(model, width, height), words
    return Rendered(model, width, height, backend), f"rendered with {backend}"
