"""CEMRL in JAX: meta-reinforcement learning in changing environments."""

import cemrl_jax.envs.engines.mjx  # noqa: F401  first: imports MJX without its notes on Warp
