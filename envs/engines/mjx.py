"""All calls of the physics engine: loading a model, its edits, stepping it."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax import Array

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco import mjx

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
        last stage (RK4), as in the original.
    """

    qpos: Array
    qvel: Array
    warmstart: Array
    readings: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Simulator:
    """A compiled model and how to step it.

    Attributes:
      model: the edited MuJoCo model, for names, sizes and rendering.
      substeps: physics steps in a control step.
      readings: names of the `mjx.Data` fields to keep in `PhysicsState.readings`;
        `cfrc_ext`, the contact forces on bodies, costs an extra pass.
    """

    model: mujoco.MjModel
    substeps: int
    readings: tuple[str, ...]

    @functools.cached_property
    def mjx_model(self) -> mjx.Model:
        """The model on the accelerator."""
        with jax.ensure_compile_time_eval():  # may be asked for under a trace
            return mjx.put_model(self.model)

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

    def start(self, qpos: Array, qvel: Array) -> PhysicsState:
        """Returns the state `qpos` `[nq]`, `qvel` `[nv]` with readings up to date."""
        data = self._data(qpos, qvel, jnp.zeros_like(qvel))
        with jax.default_matmul_precision("highest"):
            return self._state(mjx.forward(self.mjx_model, data))

    def step(
        self, state: PhysicsState, action: Array, overrides: dict[str, Array]
    ) -> PhysicsState:
        """Advances one control step.

        Args:
          state: the state before.
          action: `[nu]` in [-1, 1].
          overrides: fields of `mjx.Model` by name; constants that MuJoCo derives from
            them stay nominal, as in the original.

        Returns:
          The state after.
        """
        model = self.mjx_model
        if overrides:
            model = model.tree_replace(dict(overrides))
        data = self._data(state.qpos, state.qvel, state.warmstart)
        data = data.replace(ctrl=self.control(action))
        step = lambda _, data: _step(model, data)  # noqa: E731
        # Some accelerators round the factors of a product unless told not to.
        with jax.default_matmul_precision("highest"):
            return self._state(jax.lax.fori_loop(0, self.substeps, step, data))

    def _data(self, qpos: Array, qvel: Array, warmstart: Array) -> mjx.Data:
        data = mjx.make_data(self.mjx_model)
        return data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart)

    def _state(self, data: mjx.Data) -> PhysicsState:
        if "cfrc_ext" in self.readings:
            data = mjx.rne_postconstraint(self.mjx_model, data)
        return PhysicsState(
            qpos=data.qpos,
            qvel=data.qvel,
            warmstart=data.qacc_warmstart,
            readings={name: _field(data, name) for name in self.readings},
        )


def load(
    file: str,
    *,
    substeps: int,
    iterations: int,
    ls_iterations: int,
    readings: tuple[str, ...],
    edit: Callable[[mujoco.MjModel], None] = lambda model: None,
) -> Simulator:
    """Loads a model file of gymnasium and edits it in memory.

    Contact margins are halved: MuJoCo now adds the margins of two geoms where it
    used to take the larger, so this restores the original's contact distance. The
    solver is Newton with few iterations: MJX runs its loops to the limit, and these
    limits change a step by less than float32 does.

    Args:
      file: name of the XML file in gymnasium's assets, or an absolute path.
      substeps: physics steps in a control step.
      iterations: limit of the constraint solver's iterations.
      ls_iterations: limit of its line search.
      readings: see `Simulator`.
      edit: a further change of the model.

    Returns:
      The simulator.
    """
    model = _compile(ASSETS / file)
    model.geom_margin[:] *= 0.5
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    model.opt.iterations = iterations
    model.opt.ls_iterations = ls_iterations
    edit(model)
    return Simulator(model, substeps, readings)


def _step(model: Any, data: Any) -> Any:
    """Takes a physics step, `mjx.step`, one matrix factorisation at a time.

    Euler's implicit damping factorises a matrix that depends on positions alone, so a
    CPU does it beside the solver. In jaxlib 0.10.2 two large batches of factorisations
    at once wait for each other's threads for ever (more than 824 half-cheetahs on two
    cores). Zero times the solver's result puts them in order.
    """
    if model.opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
        return mjx.step(model, data)
    data = mjx.forward(model, data)
    damping = model.dof_damping + 0 * data.qacc
    return mjx.euler(model.tree_replace({"dof_damping": damping}), data)


def _field(data: mjx.Data, name: str) -> Array:
    """Returns a field that `mjx.Data` shows, or that its back end keeps for itself."""
    return getattr(data._impl if hasattr(data._impl, name) else data, name)


def _compile(path: pathlib.Path) -> mujoco.MjModel:
    """Compiles an XML file without the note on its `settotalmass` attribute."""
    previous: Any = mujoco.get_mju_user_warning()

    def warn(message: str) -> None:
        if "settotalmass" not in message:
            (previous or print)(message)

    mujoco.set_mju_user_warning(warn)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
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
