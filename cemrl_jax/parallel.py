"""Devices: the only file that names them."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from cemrl_jax.types import Trainable

Aux = TypeVar("Aux")

DEVICES = "devices"


def spmd(step: Callable[..., Any]) -> Callable[..., Any]:
    """Maps `step(learner, worker) -> (learner, worker, metrics)` over all devices.

    The learner is the same on every device and has no device axis; every leaf of the
    worker has a leading device axis `[D, ...]`. Both are donated. `step` must return
    a learner and metrics that agree on all devices: of values that differ, device 0's
    would be taken without a word, hence `assert_replicated`.
    """
    return jax.pmap(
        step,
        axis_name=DEVICES,
        in_axes=(None, 0),
        out_axes=(None, 0, None),
        donate_argnums=(0, 1),
    )


def average(tree: Any) -> Any:
    """Averages over devices, inside a mapped function."""
    return jax.lax.pmean(tree, DEVICES)


def gradient_step(
    loss: Callable[..., tuple[Array, Aux]],
    optimizer: optax.GradientTransformation,
    state: Trainable,
    *args: Any,
) -> tuple[Trainable, Aux]:
    """Takes one step along the gradient of `loss`, averaged over all devices.

    Returns the new parameters with their optimiser's state, and what `loss` returns
    beside its value.
    """
    grads, aux = jax.grad(loss, has_aux=True)(state.params, *args)
    updates, opt_state = optimizer.update(average(grads), state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return Trainable(params=params, opt_state=opt_state), aux


def split_keys(key: Array, num_devices: int) -> Array:
    """Returns a key per device, `[D]`."""
    return jax.random.split(key, num_devices)


def num_devices() -> int:
    """Returns the number of devices that `spmd` maps over."""
    return jax.local_device_count()


def assert_replicated(tree: Any) -> None:
    """Checks that every device holds the same values.

    Raises:
      AssertionError: a leaf differs between devices; names it.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for number, other in enumerate(others, start=1):
            if not np.array_equal(first, other, equal_nan=first.dtype.kind == "f"):
                name = jax.tree_util.keystr(path)
                raise AssertionError(f"{name} differs between device 0 and {number}")


def on_each_device(make: Callable[..., Any], keys: Array, *shared: Any) -> Any:
    """Returns `make(key, *shared)` of every device, `[D, ...]`, each on its own."""
    return jax.pmap(make, in_axes=(0, *(None for _ in shared)))(keys, *shared)


def place(worker: Any) -> Any:
    """Puts the rows of `[D, ...]` arrays of the host on one device each."""
    mesh = jax.make_mesh((num_devices(),), (DEVICES,), devices=jax.local_devices())
    return jax.device_put(worker, NamedSharding(mesh, PartitionSpec(DEVICES)))


def on_first_device(tree: Any) -> Any:
    """Returns arrays that are the same on every device as arrays of one device."""
    return jax.device_put(tree, jax.local_devices()[0])


def memory_bytes() -> int | None:
    """Returns the memory that is free on a device, bytes; None if it does not say."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if devices[0].platform == "cpu" and hasattr(os, "sysconf"):
        pages = os.sysconf("SC_AVPHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") // len(devices)
    return None
