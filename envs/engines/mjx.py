"""MJX: MuJoCo in JAX, for accelerators; runs on a CPU as well."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import contextlib
import dataclasses
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import Array

from cemrl_jax.envs.engines import collisions, cones, dynamics, kinematics, tree
from cemrl_jax.envs.engines.base import ModelFile, PhysicsState, Simulator

with contextlib.redirect_stdout(io.StringIO()):  # prints that Warp is missing
    from mujoco import mjx


@dataclasses.dataclass(frozen=True, eq=False)
class MjxSimulator(Simulator):
    """See `Simulator`."""

    @property
    def mjx_model(self) -> mjx.Model:
        """The model on the device, made of `_host_model` anew for each trace.

        MJX takes arrays of numpy for what it may look at while it is traced, so those
        stay what they are.
        """
        leaves, traced, structure = self._host_model
        made = [jnp.asarray(x) if on else x for x, on in zip(leaves, traced)]
        return jax.tree.unflatten(structure, made)

    @functools.cached_property
    def _host_model(self) -> tuple[list[Any], list[bool], Any]:
        """The model's leaves on the host, which of them are a device's, the structure.

        Arrays of a device made under a trace would carry its mesh into the next one.
        """
        with jax.ensure_compile_time_eval():  # may be asked for under a trace
            leaves, structure = jax.tree.flatten(mjx.put_model(self.model))
            traced = [isinstance(leaf, jax.Array) for leaf in leaves]
            host = [np.asarray(x) if on else x for x, on in zip(leaves, traced)]
        return host, traced, structure

    def read(self, state: PhysicsState, overrides: dict[str, Array]) -> PhysicsState:
        """See `Simulator.read`."""
        model, data = self._model(overrides), self._data(state)
        with jax.default_matmul_precision("highest"):
            if self.source.current_readings:  # places are all that is read
                return self._state(state, _places(model, data))
            if dynamics.handles(self.model):
                own = tree.Model(self.model, overrides)
                return self._state(state, dynamics.forward(own, model, data))
            return self._state(state, _forward(model, data))

    def step(
        self, state: PhysicsState, action: Array, overrides: dict[str, Array]
    ) -> PhysicsState:
        """See `Simulator.step`."""
        model = self._model(overrides)
        data = self._data(state).replace(ctrl=self.control(action))
        own = tree.Model(self.model, overrides)

        def step(_: int, data: mjx.Data) -> mjx.Data:
            if dynamics.handles(self.model):
                return dynamics.step(own, model, data)
            return _step(model, data)

        # Some accelerators round the factors of a product unless told not to.
        with jax.default_matmul_precision("highest"):
            data = jax.lax.fori_loop(0, self.substeps, step, data)
            if self.source.current_readings:
                data = _places(model, data)
            return self._state(state, data)

    def _model(self, overrides: dict[str, Array]) -> mjx.Model:
        model: Any = self.mjx_model
        return model.tree_replace(dict(overrides)) if overrides else model

    def _data(self, state: PhysicsState) -> mjx.Data:
        data = _make_data(self.mjx_model).replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart
        )
        return data if state.mocap is None else data.replace(mocap_pos=state.mocap)

    def _state(self, before: PhysicsState, data: mjx.Data) -> PhysicsState:
        if "cfrc_ext" in self.readings:
            data = mjx.rne_postconstraint(self.mjx_model, data)
        return before.replace(
            qpos=data.qpos,
            qvel=data.qvel,
            warmstart=data.qacc_warmstart,
            readings={name: _field(data, name) for name in self.readings},
        )


def load(source: ModelFile) -> MjxSimulator:
    """Returns the simulator of a model file."""
    model = source.compile(source.edit_for_mjx)
    model.opt.iterations = source.iterations
    model.opt.ls_iterations = source.ls_iterations
    return MjxSimulator(model, source)


def _step(model: Any, data: Any) -> Any:
    """Takes a physics step, `mjx.step`, one matrix factorisation at a time.

    Euler's implicit damping factorises a matrix that depends on positions alone, so a
    CPU does it beside the solver. In jaxlib 0.10.2 two large batches of factorisations
    at once wait for each other's threads for ever. Zero times the solver's result puts
    them in order.
    """
    if model.opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
        return mjx.step(model, data)
    data = _forward(model, data)
    damping = model.dof_damping + 0 * data.qacc
    return mjx.euler(model.tree_replace({"dof_damping": damping}), data)


def _forward(model: Any, data: Any) -> Any:
    """Computes forces and accelerations, as `mjx.forward` does, sensors left out."""
    data = _places(model, data)
    for stage in _AFTER_PLACES:
        data = stage(model, data)
    if not data._impl.efc_J.size:
        return data.replace(qacc=data.qacc_smooth)
    if cones.handles(model):
        return cones.solve(model, data)
    return mjx.solve(model, data)


def _make_data(model: Any) -> Any:
    data = mjx.make_data(model)
    return collisions.fit(model, data) if collisions.handles(model) else data


def _collide(model: Any, data: Any) -> Any:
    if collisions.handles(model):
        return collisions.collide(model, data)
    return mjx.collision(model, data)


_AFTER_PLACES = (
    *(mjx.com_pos, mjx.camlight, mjx.tendon, mjx.crb, mjx.tendon_armature),
    *(mjx.factor_m, _collide, mjx.make_constraint, mjx.transmission),
    *(mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration),
)


def _places(model: Any, data: Any) -> Any:
    if kinematics.handles(model):
        return kinematics.places(model, data)
    return mjx.kinematics(model, data)


def _field(data: mjx.Data, name: str) -> Array:
    """Returns a field that `mjx.Data` shows, or that its back end keeps for itself."""
    return getattr(data._impl if hasattr(data._impl, name) else data, name)
