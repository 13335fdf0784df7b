"""Sweep of the half-cheetah at the original's network sizes: one H100, 8 minutes."""

from cemrl_jax.benchmark.settings import BenchmarkConfig
from cemrl_jax.configs import cheetah_stationary_vel


def get_config() -> BenchmarkConfig:
    """Small sizes first: a sweep that is cut short has them in its file."""
    return BenchmarkConfig(
        name="benchmark_gpu",
        base=cheetah_stationary_vel.get_config(),
        num_envs=(256, 1024, 4096),
        batch_sizes=(256, 2048, 8192),
        num_steps=100,
        num_updates=200,
        replay_points=1_000_000,
        num_repeats=5,
        matmul_size=8192,
        copy_mebibytes=2048,
        max_minutes=6.0,
    )
