"""CEMRL in JAX: meta-reinforcement learning in changing environments."""
