"""Builds the engine that C MuJoCo has without Python in between."""

import sys

from cemrl_jax.commands import command_line
from cemrl_jax.envs.engines import mujoco_ffi

EPILOG = """\
It needs a C++ compiler, half a minute at most, and is needed again when mujoco, jaxlib
or its source change. From then on env.engine=auto uses it on CPU devices.
"""


def main() -> int:
    """Builds it, or says that it is there."""
    command_line.parser("Builds the engine mujoco_ffi.", EPILOG).parse_args()
    there = mujoco_ffi.is_built()
    try:
        path = mujoco_ffi.build()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"the engine mujoco_ffi {'was built before' if there else 'is built'}: {path}"
    )
    return 0


def console() -> None:
    """Runs the command; the entry point of the script and `cemrl-build-engine`."""
    command_line.run(main)
