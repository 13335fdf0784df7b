"""C MuJoCo without Python between it and the compiled program.

It steps what `mujoco.py` steps, to the last digit. A control step of one half-cheetah
takes a tenth of the time, and its programs can be kept in JAX's compile cache. It has
to be built once, by `scripts/build_engine.py`, which needs a C++ compiler.
"""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import ctypes
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import Array

from cemrl_jax.envs.engines.base import ModelFile
from cemrl_jax.envs.engines.mujoco import HostSimulator, compile_model

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
TARGET = "cemrl_jax_mujoco"
"""What compiled programs call the library's function."""


@dataclasses.dataclass(frozen=True, eq=False)
class FfiSimulator(HostSimulator):
    """See `HostSimulator`; programs call MuJoCo themselves."""

    def advance(
        self,
        num_steps: int,
        inputs: dict[str, Array],
        overrides: dict[str, Array],
        outputs: dict[str, int],
    ) -> dict[str, Array]:
        """See `HostSimulator.advance`."""
        fields = dict(sorted(overrides.items()))
        call = jax.ffi.ffi_call(
            TARGET,
            [jax.ShapeDtypeStruct((size,), jnp.float32) for size in outputs.values()],
            vmap_method="broadcast_all",
        )
        results = call(
            *inputs.values(),
            *(jnp.ravel(value) for value in fields.values()),
            model=self._key,
            inputs=" ".join(inputs),
            overrides=" ".join(fields),
            outputs=" ".join(outputs),
            num_steps=np.int64(num_steps),
            stage=np.int64(self.stage),
            num_threads=np.int64(self.num_threads),
        )
        return dict(zip(outputs, results))

    @functools.cached_property
    def _key(self) -> np.int64:
        """The model's number in the library: the same in every process."""
        content = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, content)
        digest = hashlib.sha256(content.tobytes()).digest()
        key = np.frombuffer(digest[:8], np.int64)[0]
        _library().KnowModel(
            ctypes.c_int64(int(key)), ctypes.c_void_p(self.model._address)
        )
        return key


def load(source: ModelFile) -> FfiSimulator:
    """Returns the simulator of a model file."""
    return FfiSimulator(compile_model(source), source)


def library_path() -> pathlib.Path:
    """Where the library of this source and these versions is, or would be."""
    versions = " ".join(map(metadata.version, ("mujoco", "jaxlib")))
    digest = hashlib.sha256(SOURCE.read_bytes() + versions.encode()).hexdigest()
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return base / "cemrl_jax" / "engines" / f"mujoco_ffi-{digest[:16]}.so"


def is_built() -> bool:
    """Whether the library is there for this source and these versions."""
    return library_path().exists()


def build() -> pathlib.Path:
    """Builds the library, if it is not there, and returns where it is.

    Raises:
      RuntimeError: there is no C++ compiler, or it failed.
    """
    path = library_path()
    if path.exists():
        return path
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if sys.platform != "linux" or compiler is None:
        raise RuntimeError(
            "the engine mujoco_ffi is built on Linux by a C++ compiler: install one"
            " (g++ or clang) or name it in CXX; without it the engine mujoco does the"
            " same, with slower calls"
        )
    package = pathlib.Path(mujoco.__file__).parent
    (shared,) = package.glob("libmujoco.so*")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    command = [
        *(compiler, "-O2", "-std=c++17", "-shared", "-fPIC"),
        *("-isystem", jax.ffi.include_dir(), "-isystem", package / "include"),
        *(SOURCE, shared, f"-Wl,-rpath,{package}", "-o", partial),
    ]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"{compiler} could not build {SOURCE}:\n{done.stderr}")
    partial.replace(path)
    return path


@functools.cache
def _library() -> ctypes.CDLL:
    """Loads the library and makes its function known to XLA."""
    library = ctypes.CDLL(str(library_path()))
    handler = jax.ffi.pycapsule(library.Advance)
    jax.ffi.register_ffi_target(TARGET, handler, platform="cpu")
    return library
