"""Physics engines: one file each; robots do not know which one they have.

"mjx" runs on every device and is compiled into the program. "mujoco" is C MuJoCo, on
CPU devices only, where it is several times as fast and has little to compile.
"mujoco_ffi" is the same C MuJoCo, called without Python; it has to be built once.
"""

import functools

import jax

from cemrl_jax.envs.engines import mujoco, mujoco_ffi
from cemrl_jax.envs.engines.base import (
    ModelFile,
    PhysicsState,
    Simulator,
    body_parts,
    nominal_parameters,
    perturbed_start,
    uniform_noise,
)

C_ENGINES = ("mujoco", "mujoco_ffi")
"""Those that step C MuJoCo on the host."""

ENGINES = ("auto", "mjx", *C_ENGINES)
"""What `env.engine` may be; "auto" is C MuJoCo on CPU devices and MJX on others."""


def resolve(engine: str) -> str:
    """Returns the engine that a name stands for on the devices that are here.

    Raises:
      ValueError: the engine cannot run on them, or there is none of this name.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} must be one of {', '.join(ENGINES)}")
    platform = jax.default_backend()
    if engine == "auto":
        fastest = "mujoco_ffi" if mujoco_ffi.is_built() else "mujoco"
        return fastest if platform == "cpu" else "mjx"
    if engine in C_ENGINES and platform != "cpu":
        raise ValueError(
            f"engine={engine!r} steps physics on the host's CPU and would make a"
            f" {platform} wait for it in every step; use 'mjx' or 'auto'"
        )
    if engine == "mujoco_ffi" and not mujoco_ffi.is_built():
        raise ValueError(
            "engine='mujoco_ffi' is not built for these versions of mujoco and jaxlib:"
            " run scripts/build_engine.py, or use 'mujoco' or 'auto'"
        )
    return engine


@functools.lru_cache(maxsize=64)
def load(engine: str, source: ModelFile) -> Simulator:
    """Returns the simulator of a model file, the same for the same arguments.

    Args:
      engine: one of `ENGINES`, but not "auto".
      source: the file.
    """
    if engine in C_ENGINES:
        return {"mujoco": mujoco, "mujoco_ffi": mujoco_ffi}[engine].load(source)
    from cemrl_jax.envs.engines import mjx  # takes seconds to import

    return mjx.load(source)


__all__ = [
    "C_ENGINES",
    "ENGINES",
    "ModelFile",
    "PhysicsState",
    "Simulator",
    "body_parts",
    "load",
    "nominal_parameters",
    "perturbed_start",
    "resolve",
    "uniform_noise",
]
