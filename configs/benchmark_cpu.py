"""Sweep of the half-cheetah at the original's network sizes: two cores, ten minutes."""

from cemrl_jax.benchmark.settings import BenchmarkConfig
from cemrl_jax.configs import cheetah_stationary_vel


def get_config() -> BenchmarkConfig:
    """Environments and batches around what two cores can train with."""
    return BenchmarkConfig(
        name="benchmark_cpu",
        base=cheetah_stationary_vel.get_config(),
        num_envs=(32, 128, 512),
        batch_sizes=(256, 1024),
        num_steps=50,
        num_updates=20,
        replay_points=100_000,
        num_repeats=5,
        max_minutes=8.0,
    )
