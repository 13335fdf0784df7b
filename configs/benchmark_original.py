"""The original's sizes on the half-cheetah, to be compared with the original's times.

Window 10, width factor 10, batch 256, SAC with 3 layers of 300, 200,000 transitions.
The original took 73 to 75 ms a reconstruction step and 27 to 30 ms a policy step, made
1,166 to 1,310 environment steps/s and relabelled 4,752 transitions/s on a machine with
two cores (AMD EPYC).
"""

from cemrl_jax.benchmark.settings import BenchmarkConfig
from cemrl_jax.configs import cheetah_stationary_vel


def get_config() -> BenchmarkConfig:
    """One environment, as the original acts, and the preset's 20 side by side."""
    return BenchmarkConfig(
        name="benchmark_original",
        base=cheetah_stationary_vel.get_config(),
        num_envs=(1, 20),
        batch_sizes=(256,),
        num_steps=200,
        num_updates=50,
        replay_points=200_000,
        num_repeats=5,
    )
