"""Devices and processes: the only file that names them.

A run on several hosts is one process per host, each of which runs the same program.
Between phases the learner and the workers are then global arrays, of which a process
holds its own devices' part; everything else that a process has is its own.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cemrl_jax.data.types import Trainable
from cemrl_jax.data.vectors import tree_of
from cemrl_jax.runtime import memory

Aux = TypeVar("Aux")

DEVICES = "devices"
MAX_SKIPPED = 100
"""Gradients in a row that are not finite before a run gives up."""


def spmd(step: Callable[..., Any], devices: Sequence[Any] | None = None) -> Any:
    """Maps `step(learner, worker) -> (learner, worker, metrics)` over all devices.

    Or over those that are given: described ones, which only compile.

    The learner is the same on every device and has no device axis; every leaf of the
    worker has a leading device axis `[D, ...]`. Both are donated. `step` must return
    a learner and metrics that agree on all devices: of values that differ, device 0's
    would be taken without a word, hence `assert_replicated`. Where there are several
    processes it is lowered for the shapes of this process's rows; what is compiled of
    it takes and returns global arrays, see `join`.
    """
    if devices is None and jax.process_count() == 1:
        devices = in_order(jax.devices())
    return jax.pmap(
        step,
        axis_name=DEVICES,
        in_axes=(None, 0),
        out_axes=(None, 0, None),
        donate_argnums=(0, 1),
        devices=devices,
    )


def lower(mapped: Any, learner: Any, worker: Any) -> Any:
    """Lowers a function of `spmd` for shapes, the worker's of this process's rows.

    Where there are several processes pmap wants arrays: zeros, dropped afterwards.
    """
    if jax.process_count() == 1:
        return mapped.lower(learner, worker)
    return mapped.lower(*jax.tree.map(_zeros, (learner, worker)))


def _zeros(shape: Any) -> Array:
    if isinstance(shape, jax.Array):
        return shape
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), shape.shape)
    return jnp.zeros(shape.shape, shape.dtype)


def average(tree: Any) -> Any:
    """Averages over devices, inside a mapped function."""
    return jax.lax.pmean(tree, DEVICES)


def total(tree: Any) -> Any:
    """Adds up over devices, inside a mapped function."""
    return jax.lax.psum(tree, DEVICES)


def one_of(tree: Any, there: Array) -> Any:
    """Returns one row of a tree `[E, ...]`, inside a mapped function.

    The first of those that `there` `[E]` marks, of the first device that has any; of
    zeros if none has.
    """
    number, count = jax.lax.axis_index(DEVICES), jax.device_count()
    first = jax.lax.pmin(jnp.where(there.any(), number, count), DEVICES)
    row, mine = jnp.argmax(there), number == first
    return total(jax.tree.map(lambda x: jnp.where(mine, x[row], 0), tree))


def gradient_step(
    loss: Callable[..., tuple[Array, Aux]],
    optimizer: optax.GradientTransformation,
    state: Trainable,
    *args: Any,
) -> tuple[Trainable, Aux]:
    """Takes one step along the gradient of `loss`, averaged over all devices.

    Returns what `take_step` does, and what `loss` returns beside its value.
    """
    grads, aux = gradient(loss, state, *args)
    return take_step(optimizer, state, average(grads)), aux


def gradient(
    loss: Callable[..., tuple[Array, Aux]], state: Trainable, *args: Any
) -> tuple[Any, Aux]:
    """Returns the gradient of `loss` on this device, and what it returns beside.

    The parameters may be packed, see `cemrl_jax.data.vectors`; the loss gets a tree.
    """
    return jax.grad(lambda params: loss(tree_of(params), *args), has_aux=True)(
        state.params
    )


def take_step(
    optimizer: optax.GradientTransformation, state: Trainable, grads: Any
) -> Trainable:
    """Takes one step along a gradient that is the average over all devices.

    A gradient that is not finite, or too large for its square to be, is skipped, on
    all devices alike since it is their average: parameters and the optimiser stay as
    they were. After `MAX_SKIPPED` in a row all are skipped, so that the host, which
    looks between phases only, finds them still in a row.
    """
    sound = jnp.isfinite(optax.tree.norm(grads, squared=True))
    sound &= state.skipped[1] < MAX_SKIPPED
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = Trainable(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        skipped=state.skipped.at[1].set(0),
    )
    return where(sound, new, state.replace(skipped=state.skipped + 1))


def shares_work() -> bool:
    """Returns whether a mapped function runs on several devices."""
    return jax.lax.axis_size(DEVICES) > 1


def where(condition: Array, new: Any, old: Any) -> Any:
    """Selects one of two trees, `condition` being `[]`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def split_keys(key: Array, num_devices: int) -> Array:
    """Returns a key per device, `[D]`."""
    return jax.random.split(key, num_devices)


def in_order(devices: Sequence[Any]) -> list[Any]:
    """Returns devices by process, then by number.

    Rows of a device axis lie in this order on all hosts; `jax.devices()` may follow the
    wires of a pod instead.
    """
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def num_devices() -> int:
    """Returns the number of devices that `spmd` maps over, on all hosts together."""
    return jax.device_count()


def num_local_devices() -> int:
    """Returns the number of this process's devices."""
    return jax.local_device_count()


def is_first_process() -> bool:
    """Returns whether this process is the one that writes what a run produces."""
    return jax.process_index() == 0


def assert_replicated(tree: Any) -> None:
    """Checks that every device of every host holds the same values.

    Raises:
      AssertionError: a leaf differs between devices or hosts; names it.
    """
    names, sums = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for number, other in enumerate(others, start=1):
            if not np.array_equal(first, other, equal_nan=first.dtype.kind == "f"):
                raise AssertionError(f"{name} differs between device 0 and {number}")
        names.append(name)
        sums.append(zlib.crc32(np.ascontiguousarray(first).tobytes()))
    per_host = gather(np.array(sums, np.uint32))
    for name, values in zip(names, per_host.T):
        if (values != values[0]).any():
            host = int(np.argmax(values != values[0]))
            raise AssertionError(f"{name} differs between process 0 and {host}")


def on_each_device(make: Callable[..., Any], keys: Array, *shared: Any) -> Any:
    """Returns `make(key, *shared)` of every device, `[D, ...]`, each on its own.

    Where there are several processes each gets the rows of its own devices.
    """
    in_axes = (0, *(None for _ in shared))
    mapped = jax.pmap(make, in_axes=in_axes, devices=in_order(jax.devices()))
    return mapped(own_rows(keys), *shared)


def agree(text: str) -> str:
    """Returns the first process's text; all must call it at once."""
    if jax.process_count() == 1:
        return text
    letters = np.frombuffer(text.encode(), np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(letters)).decode()


def gather(values: np.ndarray) -> np.ndarray:
    """Returns an array of each process, `[P, ...]`; all must call it at once."""
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))


def all_rows(values: Array) -> np.ndarray:
    """Returns an array `[D, ...]` as a host array with the rows of all devices."""
    if jax.process_count() == 1:
        return np.asarray(values)
    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def to_host(values: Array) -> np.ndarray:
    """Returns an array `[D, E, ...]` as `[d * E, ...]` of this process's d devices."""
    shards = sorted(
        values.addressable_shards, key=lambda shard: shard.index[0].start or 0
    )
    return np.concatenate([np.asarray(row) for s in shards for row in s.data])


def own_rows(worker: Any) -> Any:
    """Returns the rows of `[D, ...]` arrays that belong to this process's devices."""
    count = jax.local_device_count()
    rows = slice(jax.process_index() * count, (jax.process_index() + 1) * count)
    return jax.tree.map(lambda leaf: leaf[rows], worker)


def place(worker: Any) -> Any:
    """Puts the rows of `[D, ...]` arrays of the host on one device each."""
    return place_own(own_rows(worker))


def place_own(rows: Any) -> Any:
    """Puts rows that are this process's own on one of its devices each."""
    sharding = NamedSharding(_own_devices(), PartitionSpec(DEVICES))
    return jax.device_put(rows, sharding)


def join(learner: Any, worker: Any) -> tuple[Any, Any]:
    """Returns learner and workers as the programs of `spmd` want them.

    Args:
      learner: arrays of one device; in all processes the same.
      worker: `[D, ...]`, the rows of this process's devices, each on its device.
    """
    if jax.process_count() == 1:
        everywhere = NamedSharding(_own_devices(), PartitionSpec())
        return jax.device_put(learner, everywhere), worker
    to_global = multihost_utils.host_local_array_to_global_array
    return (
        to_global(learner, _all_devices(), PartitionSpec()),
        to_global(worker, _all_devices(), PartitionSpec(DEVICES)),
    )


def on_first_device(tree: Any) -> Any:
    """Returns arrays that are the same on every device as arrays of one device."""
    own = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
    return jax.device_put(own, jax.local_devices()[0])


def on_own_devices(learner: Any) -> Any:
    """Returns a learner that is the same on all devices, as `spread` takes it."""
    if jax.process_count() == 1:
        return learner
    own = jax.tree.map(lambda leaf: leaf.addressable_data(0), learner)
    return jax.device_put(own, NamedSharding(_own_devices(), PartitionSpec()))


def on_host(tree: Any) -> Any:
    """Returns arrays that are the same on every device as arrays of the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def spread(function: Callable[..., Any]) -> Any:
    """Maps `function(learner, part) -> result` over this process's devices.

    The learner is the same on every device; part and result are `[D, ...]`.
    """
    own = in_order(jax.local_devices())
    return jax.pmap(function, in_axes=(None, 0), devices=own)


def share(tree: Any) -> tuple[Any, int]:
    """Returns rows `[n, ...]` shared out over this process's devices, `[D, n', ...]`.

    All processes call it with the same rows. The last ones are padded with copies of
    the first; `collect_rows` leaves them out.
    """
    count = jax.device_count()
    size = jax.tree.leaves(tree)[0].shape[0]
    each = -(-size // count)

    def split(leaf: Any) -> Any:
        index = np.arange(count * each)
        rows = leaf[np.where(index < size, index, 0)]
        return rows.reshape(count, each, *leaf.shape[1:])

    return own_rows(jax.tree.map(split, tree)), size


def collect_rows(rows: Any, size: int) -> np.ndarray:
    """Returns the rows `[size, ...]` that `share` has shared out, on every process."""
    own = np.asarray(rows)
    if jax.process_count() > 1:
        own = np.asarray(multihost_utils.process_allgather(own, tiled=True))
    return own.reshape(-1, *own.shape[2:])[:size]


def memory_bytes() -> int | None:
    """Returns the memory that is free on each device, bytes; None if it does not say.

    The devices of a CPU share what their host has.
    """
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    host = memory.host_bytes() if devices[0].platform == "cpu" else None
    return None if host is None else host // len(devices)


def _all_devices() -> Mesh:
    return Mesh(np.array(in_order(jax.devices())), (DEVICES,))


def _own_devices() -> Mesh:
    return Mesh(np.array(in_order(jax.local_devices())), (DEVICES,))
