"""What the machine could do at best."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from cemrl_jax.benchmark.timing import Row, count_kernels, median_seconds, num_bytes

NUM_ROUNDS = 1000
"""Of the loops that measure what small kernels cost."""


def machine_limits(matmul_size: int, copy_mebibytes: int, num_repeats: int) -> Row:
    """Measures what one device can do at best, on random data.

    Returns:
      Rate of a float32 matrix product at JAX's default precision (which on some GPUs
      is TF32) and at the highest, and of a copy, each byte read and written once; and
      what `small_kernels` measures.
    """
    key = jax.random.key(0)
    a = jax.random.normal(key, (matmul_size, matmul_size)) / math.sqrt(matmul_size)
    flops = 2 * matmul_size**3
    limits = {}
    for name, precision in (("matmul", "default"), ("matmul_highest", "highest")):
        product = jax.jit(functools.partial(jnp.matmul, a, precision=precision))
        seconds = median_seconds(product, a, max(num_repeats, 5))
        limits[f"limit_{name}_flops_per_second"] = flops / seconds
    x = jax.random.normal(key, (int(copy_mebibytes * 2**20) // 4,))
    # In place and with an addition: a plain copy could be optimised away.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    rate = 2 * num_bytes(x) / median_seconds(copy, x, max(num_repeats, 5))
    limits |= {"limit_copy_bytes_per_second": rate}
    return limits | small_kernels(max(num_repeats, 5))


def small_kernels(num_repeats: int) -> Row:
    """Measures what kernels cost that have next to nothing to do.

    Returns:
      Seconds of one such kernel in a loop of known length, and of a step of the same
      loop where only the device knows whether it goes on.
    """
    x = jnp.eye(64)

    def known(x: Array) -> Array:
        return jax.lax.fori_loop(0, NUM_ROUNDS, lambda _, x: jnp.tanh(x @ x), x)

    def unknown(x: Array) -> Array:
        going_on = lambda state: (state[0] < NUM_ROUNDS) & (state[1][0, 0] < 2)  # noqa: E731
        step = lambda state: (state[0] + 1, jnp.tanh(state[1] @ state[1]))  # noqa: E731
        return jax.lax.while_loop(going_on, step, (0, x))[1]

    loops = {}
    for name, loop in (("known", known), ("unknown", unknown)):
        compiled = jax.jit(loop).lower(x).compile()
        loops[name] = (compiled, median_seconds(compiled, x, num_repeats))
    program, seconds = loops["known"]
    num_kernels = NUM_ROUNDS * max(1, count_kernels(program.as_text() or ""))
    return {
        "limit_kernel_seconds": seconds / num_kernels,
        "limit_unknown_loop_step_seconds": loops["unknown"][1] / NUM_ROUNDS,
    }
