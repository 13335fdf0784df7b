"""Physics engines: one file each; robots do not know which one they have.

"mjx" runs on every device and is compiled into the program. "mujoco" is C MuJoCo, on
CPU devices only, where it is several times as fast and has little to compile.
"""

import functools

import jax

from cemrl_jax.envs.engines.base import (
    ModelFile,
    PhysicsState,
    Simulator,
    body_parts,
    nominal_parameters,
    perturbed_start,
    uniform_noise,
)

ENGINES = ("auto", "mjx", "mujoco")
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
        return "mujoco" if platform == "cpu" else "mjx"
    if engine == "mujoco" and platform != "cpu":
        raise ValueError(
            f"engine='mujoco' steps physics on the host's CPU and would make a"
            f" {platform} wait for it in every step; use 'mjx' or 'auto'"
        )
    return engine


@functools.lru_cache(maxsize=64)
def load(engine: str, source: ModelFile) -> Simulator:
    """Returns the simulator of a model file, the same for the same arguments.

    Args:
      engine: "mjx" or "mujoco".
      source: the file.
    """
    if engine == "mujoco":
        from cemrl_jax.envs.engines import mujoco

        return mujoco.load(source)
    from cemrl_jax.envs.engines import mjx  # takes seconds to import

    return mjx.load(source)


__all__ = [
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
