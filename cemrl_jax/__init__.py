"""CEMRL in JAX: meta-reinforcement learning in changing environments."""

import envs.physics  # noqa: F401  first: imports MJX without its notes on Warp
