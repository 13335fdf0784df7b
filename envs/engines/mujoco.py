"""C MuJoCo: many simulations at once on the threads of a CPU.

A compiled program calls the engine on the host once for each control step of all
environments. All simulations belong to one thread of this module, whichever thread of
XLA asks: a `Batch` must not be used by several, and devices that step at the same time
take turns. The result does not depend on the number of threads.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import abc
import concurrent.futures
import dataclasses
import functools
import math
import os
import threading
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import Array
from mujoco.batch import Batch

from cemrl_jax.envs.engines.base import ModelFile, PhysicsState, Simulator

Arrays = dict[str, np.ndarray]

_EXPECTED = ("Nan, Inf or huge value", "Inertia matrix is too close to singular")
"""Warnings about simulations that `NonStationaryEnv` finds to be broken."""


class _Owner:
    """The thread that all simulations belong to; made when it is first needed."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def run(self, function: Any, *args: Any) -> Any:
        """Returns the result of a function that runs on the thread."""
        with self._making:  # the first calls of several devices may come at once
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(1, "mujoco")
            pool = self._pool
        return pool.submit(function, *args).result()

    def _forget(self) -> None:
        """A child process has no threads of its parent; one may hold the lock."""
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._making = threading.Lock()


_OWNER = _Owner()


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a callback does.

    Attributes:
      num_steps: steps of physics, 0 to bring the readings up to date only.
      inputs: fields of the simulations that it sets, side by side in its argument.
      outputs: fields that it returns, likewise.
    """

    num_steps: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class HostSimulator(Simulator):
    """See `Simulator`; subclasses say how a compiled program reaches MuJoCo.

    Attributes:
      num_threads: threads that step simulations; 0 for as many as there are cores
        that this process may use.
    """

    num_threads: int = 0

    def read(self, state: PhysicsState, overrides: dict[str, Array]) -> PhysicsState:
        """See `Simulator.read`."""
        return self._call(0, state, None, self._complete(overrides))

    def step(
        self, state: PhysicsState, action: Array, overrides: dict[str, Array]
    ) -> PhysicsState:
        """See `Simulator.step`."""
        control, overrides = self.control(action), self._complete(overrides)
        return self._call(self.substeps, state, control, overrides)

    @abc.abstractmethod
    def advance(
        self,
        num_steps: int,
        inputs: dict[str, Array],
        overrides: dict[str, Array],
        outputs: dict[str, int],
    ) -> dict[str, Array]:
        """Has the host take steps, or with none bring the readings up to date.

        Args:
          num_steps: of physics.
          inputs: `[n]` fields of the simulation to set, by name.
          overrides: fields of the model, likewise.
          outputs: sizes of the fields to return, by name.

        Returns:
          The outputs, `[n]` each, by name.
        """

    def _complete(self, overrides: dict[str, Array]) -> dict[str, Array]:
        """Adds the masses of subtrees, by which C divides to find their centres."""
        if "body_mass" not in overrides:
            return overrides
        masses = (self._hangs_on * overrides["body_mass"]).sum(1)
        return {"body_subtreemass": masses, **overrides}

    @functools.cached_property
    def _hangs_on(self) -> np.ndarray:
        """Whether a body (column) is another (row) or hangs on it, `[nbody, nbody]`."""
        result = np.eye(self.model.nbody, dtype=np.float32)
        for body in range(self.model.nbody - 1, 0, -1):
            result[self.model.body_parentid[body]] += result[body]
        return result

    @property
    def stage(self) -> int:
        """What is computed anew after the last physics step."""
        stages = mujoco.mjtStage
        current = self.source.current_readings
        return int(stages.mjSTAGE_POS if current else stages.mjSTAGE_NONE)

    def _call(
        self,
        num_steps: int,
        state: PhysicsState,
        control: Array | None,
        overrides: dict[str, Array],
    ) -> PhysicsState:
        inputs = {
            "qpos": state.qpos,
            "qvel": state.qvel,
            "qacc_warmstart": state.warmstart,
            "ctrl": control,
            "mocap_pos": state.mocap,
        }
        inputs = {name: x.ravel() for name, x in inputs.items() if x is not None}
        data = mujoco.MjData(self.model)
        outputs = ("qpos", "qvel", "qacc_warmstart", *self.readings)
        shapes = {name: np.shape(getattr(data, name)) for name in outputs}
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        flat = self.advance(num_steps, inputs, overrides, sizes)
        result = {name: flat[name].reshape(shapes[name]) for name in outputs}
        return state.replace(
            qpos=result["qpos"],
            qvel=result["qvel"],
            warmstart=result["qacc_warmstart"],
            readings={name: result[name] for name in self.readings},
        )


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSimulator(HostSimulator):
    """See `HostSimulator`; programs call Python, which calls MuJoCo."""

    _batches: dict[Any, Batch] = dataclasses.field(default_factory=dict, repr=False)

    def advance(
        self,
        num_steps: int,
        inputs: dict[str, Array],
        overrides: dict[str, Array],
        outputs: dict[str, int],
    ) -> dict[str, Array]:
        """See `HostSimulator.advance`.

        One array goes there and one comes back: each costs a callback some time.
        """
        call = _Call(num_steps, tuple(inputs), tuple(outputs))

        def on_host(packed: np.ndarray, overrides: Arrays) -> np.ndarray:
            return _OWNER.run(self._advance, call, packed, overrides)

        packed = jax.pure_callback(
            on_host,
            jax.ShapeDtypeStruct((sum(outputs.values()),), jnp.float32),
            jnp.concatenate(list(inputs.values())),
            overrides,
            vmap_method="broadcast_all",
        )
        ends = np.cumsum(list(outputs.values()))
        return dict(zip(outputs, jnp.split(packed, ends[:-1])))

    def _advance(
        self, call: "_Call", packed: np.ndarray, overrides: Arrays
    ) -> np.ndarray:
        """Steps `[..., n]` states; runs on the owner's thread."""
        packed = np.asarray(packed)
        leading = packed.shape[:-1]
        batch = self._batch(int(np.prod(leading)), tuple(sorted(overrides)))
        batch.state[:] = self._start
        rows, start = packed.reshape(batch.nsim, -1), 0
        for name in call.inputs:
            field = batch.bind(name)
            end = start + math.prod(field.shape[1:])
            field[:] = rows[:, start:end].reshape(field.shape)
            start = end
        for name, value in overrides.items():
            field = batch.expand(name)
            field[:] = np.reshape(value, field.shape)
        if call.num_steps:
            batch.step(nstep=call.num_steps, stage=self.stage)
        else:
            batch.forward()
        columns = [batch.bind(name).reshape(batch.nsim, -1) for name in call.outputs]
        result = np.concatenate(columns, 1, dtype=np.float32)
        return result.reshape(*leading, -1)

    @functools.cached_property
    def _start(self) -> np.ndarray:
        """The state of a simulation that has just been made: what no input sets."""
        return Batch(self.model, 1, 1).state[0].copy()

    def _batch(self, num_simulations: int, overrides: tuple[str, ...]) -> Batch:
        """Returns simulations whose expanded fields are those that are overridden.

        Only the owner's thread asks, so that nobody else makes the same meanwhile.
        """
        key = (os.getpid(), num_simulations, overrides)  # a child has no threads
        if key not in self._batches:
            threads = min(self.num_threads or _num_cores(), num_simulations)
            batch = Batch(self.model, num_simulations, threads)
            for name in self.readings:  # is computed from the first call on
                batch.bind(name)
            self._batches[key] = batch
        return self._batches[key]


def _num_cores() -> int:
    """Returns the cores that this process may use (`taskset`, cgroups' cpusets)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(source: ModelFile) -> BatchSimulator:
    """Returns the simulator of a model file."""
    return BatchSimulator(compile_model(source), source)


def compile_model(source: ModelFile) -> mujoco.MjModel:
    """Returns a model whose broken states stay broken, not reset without a word.

    The solver's limits are the file's own, except that PGS's would not suit Newton.
    """

    def edit(spec: mujoco.MjSpec) -> None:
        if "cfrc_ext" in source.readings:  # computed only where a sensor needs it
            body = spec.worldbody.first_body()
            spec.add_sensor(
                name="contact_forces",
                type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=body.name,
            )

    _expect_warnings()
    model = source.compile(edit)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def _expect_warnings() -> None:
    """Keeps MuJoCo from writing a log file about simulations that are broken."""
    previous: Any = mujoco.get_mju_user_warning()
    if getattr(previous, "expects_broken", False):
        return

    def warn(message: str) -> None:
        if not message.startswith(_EXPECTED):
            (previous or print)(message)

    warn.expects_broken = True  # pyright: ignore[reportFunctionMemberAccess]
    mujoco.set_mju_user_warning(warn)
