"""What physics engines have in common: model files, states, the way to step them."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import abc
import dataclasses
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax import Array

ASSETS = pathlib.Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class PhysicsState(struct.PyTreeNode):
    """What must survive from one control step to the next.

    A whole `mjx.Data` is ten times as large and makes a rollout slower.

    Attributes:
      qpos: `[nq]` positions, m and rad.
      qvel: `[nv]` velocities, m/s and rad/s.
      warmstart: `[nv]` the solver's last accelerations.
      readings: fields of `mjx.Data` by name, as the last sub-step left them: those
        that depend on positions are from before its integration (Euler) or from its
        last stage (RK4), as in the original; with `ModelFile.current_readings` from
        after it. Under RK4 C MuJoCo has `cfrc_ext` of the first stage, MJX of the last.
      mocap: `[nmocap, 3]` places of the bodies that are moved by hand, m; None in a
        model without any.
    """

    qpos: Array
    qvel: Array
    warmstart: Array
    readings: dict[str, Array]
    mocap: Array | None = None


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A model file of gymnasium and how it is edited in memory.

    Contact margins are halved: MuJoCo now adds the margins of two geoms where it
    used to take the larger, so this restores the original's contact distance. The
    solver is Newton.

    Attributes:
      file: name of the XML file in gymnasium's assets, or an absolute path.
      substeps: physics steps in a control step.
      iterations: MJX's limit of the constraint solver's iterations; MJX runs its loops
        to the limit, and this one changes a step by less than float32 does. C MuJoCo
        stops early and keeps the file's own.
      ls_iterations: likewise, of its line search.
      readings: names of the `mjx.Data` fields to keep in `PhysicsState.readings`;
        `cfrc_ext`, the contact forces on bodies, costs an extra pass.
      current_readings: compute places anew after a control step's last integration.
    """

    file: str
    substeps: int
    iterations: int
    ls_iterations: int
    readings: tuple[str, ...]
    current_readings: bool = False

    def compile(
        self, edit: Callable[[mujoco.MjSpec], None] = lambda spec: None
    ) -> mujoco.MjModel:
        """Returns the model; `edit` is an engine's own change."""
        spec = mujoco.MjSpec.from_file(str(ASSETS / self.file))
        edit(spec)
        model = _quietly(spec.compile)
        model.geom_margin[:] *= 0.5
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        return model

    def edit_for_mjx(self, spec: mujoco.MjSpec) -> None:
        """Changes what MJX cannot do; a robot's file needs nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Simulator(abc.ABC):
    """A compiled model and how to step it; one subclass for each engine.

    Attributes:
      model: the edited MuJoCo model, for names, sizes and rendering.
      source: what it is made of.
    """

    model: mujoco.MjModel
    source: ModelFile

    @property
    def substeps(self) -> int:
        """Physics steps in a control step."""
        return self.source.substeps

    @property
    def readings(self) -> tuple[str, ...]:
        """See `ModelFile`."""
        return self.source.readings

    def start(self, qpos: Array, qvel: Array) -> PhysicsState:
        """Returns the state `qpos` `[nq]`, `qvel` `[nv]` with readings up to date."""
        warmstart = jnp.zeros_like(qvel)
        return self.read(PhysicsState(qpos, qvel, warmstart, {}), {})

    @abc.abstractmethod
    def read(self, state: PhysicsState, overrides: dict[str, Array]) -> PhysicsState:
        """Returns a state with readings up to date, whatever readings it has."""

    @abc.abstractmethod
    def step(
        self, state: PhysicsState, action: Array, overrides: dict[str, Array]
    ) -> PhysicsState:
        """Advances one control step.

        Args:
          state: the state before.
          action: `[nu]` in [-1, 1].
          overrides: fields of the model by name; constants that MuJoCo derives from
            them stay nominal, as in the original, but the masses of subtrees follow
            those of bodies.

        Returns:
          The state after.
        """

    @property
    def control_dt(self) -> float:
        """Duration of a control step, s."""
        return self.substeps * self.model.opt.timestep

    def body(self, name: str) -> int:
        """Returns the index of a body."""
        return self.model.body(name).id

    def control(self, action: Array) -> Array:
        """Maps an action `[nu]` in [-1, 1] onto the actuators' range, clipped."""
        low, high = self.model.actuator_ctrlrange.T
        return jnp.clip(low + (action + 1) * 0.5 * (high - low), low, high)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Simulator":
        """It never changes, so a copy of a robot can have the same."""
        return self


def _quietly(compile_model: Callable[[], mujoco.MjModel]) -> mujoco.MjModel:
    """Compiles a model without the note on its `settotalmass` attribute."""
    previous: Any = mujoco.get_mju_user_warning()

    def warn(message: str) -> None:
        if "settotalmass" not in message:
            (previous or print)(message)

    mujoco.set_mju_user_warning(warn)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*settotalmass")
            return compile_model()
    finally:
        mujoco.set_mju_user_warning(previous)


def perturbed_start(
    simulator: Simulator,
    key: Array,
    noise: float,
    sample_velocity: Callable[..., Array] = jax.random.normal,
) -> tuple[Array, Array]:
    """Returns the model's initial pose and rest, perturbed: `[nq]`, `[nv]`.

    Args:
      simulator: the model.
      key: the key is consumed.
      noise: positions move uniformly within +- this (m, rad); and the factor on the
        velocities (m/s, rad/s).
      sample_velocity: `jax.random.normal` or `uniform_noise`.
    """
    key_position, key_velocity = jax.random.split(key)
    qpos0 = jnp.asarray(np.asarray(simulator.model.qpos0), jnp.float32)
    qpos = qpos0 + noise * uniform_noise(key_position, qpos0.shape)
    return qpos, noise * sample_velocity(key_velocity, (simulator.model.nv,))


def uniform_noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns uniform draws between -1 and 1."""
    return jax.random.uniform(key, shape, minval=-1, maxval=1)


def nominal_parameters(simulator: Simulator) -> dict[str, np.ndarray]:
    """Returns the model's own values of the fields that tasks change, by name."""
    return {
        name: np.asarray(getattr(simulator.model, name), np.float32)
        for name in _parts(simulator.model)
    }


def body_parts(simulator: Simulator) -> dict[str, np.ndarray]:
    """Returns to which body each row of `nominal_parameters` belongs, by name."""
    return _parts(simulator.model)


def _parts(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    bodies = np.arange(model.nbody)
    return {
        "body_mass": bodies,
        "body_inertia": bodies,
        "dof_damping": np.asarray(model.dof_bodyid),
        "geom_friction": np.asarray(model.geom_bodyid),
        "actuator_gear": np.asarray(model.jnt_bodyid)[model.actuator_trnid[:, 0]],
    }
