"""Eight virtual devices and a compile cache for all tests."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax

import cemrl_jax  # noqa: F401

_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
jax.config.update("jax_compilation_cache_dir", str(_CACHE / "cemrl_jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
