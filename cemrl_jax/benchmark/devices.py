"""Accelerators that programs are compiled for without having one.

What a data sheet says of each, with its source, and how XLA is told about it.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
from typing import Any

from jax.experimental import topologies

from cemrl_jax.config import ConfigError

TARGETS = pathlib.Path(__file__).parent / "targets"
"""Descriptions of GPUs, as XLA reads them."""


@dataclasses.dataclass(frozen=True)
class Device:
    """One chip.

    Attributes:
      kind: as JAX names it.
      platform: `cuda` or `tpu`.
      product_flops: per second, matrix products of float32 at JAX's default
        precision: TF32 on the tensor cores, one pass of bfloat16 on a TPU.
      precise_flops: the same at the highest precision: float32 units, six passes.
      vector_flops: elementwise float32; None where no source says.
      bandwidth: of the main memory, bytes per second.
      memory: bytes.
      link: to the other chips, one direction, bytes per second.
      network: the same to chips of other hosts.
      launch_seconds: from the start of a small kernel to that of the next one; None
        where kernels are not launched one by one.
      host_read_seconds: until the host has read a condition and gone on; None where
        the device decides by itself.
      link_seconds: of a message to a neighbour, however short.
      network_seconds: the same to a chip of another host.
      sources: of the figures, by field.
    """

    kind: str
    platform: str
    product_flops: float
    precise_flops: float
    vector_flops: float | None
    bandwidth: float
    memory: float
    link: float
    network: float
    launch_seconds: float | None
    host_read_seconds: float | None
    link_seconds: float
    network_seconds: float
    sources: dict[str, str]


_H100 = "NVIDIA H100 Tensor Core GPU data sheet, SXM; TF32 without sparsity"
_CLOUD = "Google Cloud documentation, TPU {0}: key chip specifications"
_TPU_SOURCES = {
    "product_flops, bandwidth, memory, link": _CLOUD,
    "network": "the same links: a slice is one mesh",
    "precise_flops": "a sixth: float32 products are six passes of bfloat16",
    "vector_flops": "not published; elementwise work counts by its bytes alone",
    "launch_seconds": "one program runs without the host; not modelled",
    "link_seconds, network_seconds": "estimate: a microsecond a hop",
}


def _tpu(name: str, flops: float, bandwidth: float, gib: int, gbits: float) -> Device:
    sources = {what: text.format(name) for what, text in _TPU_SOURCES.items()}
    return Device(
        kind=f"TPU {name}",
        platform="tpu",
        product_flops=flops,
        precise_flops=flops / 6,
        vector_flops=None,
        bandwidth=bandwidth,
        memory=gib * 2.0**30,
        link=gbits * 1e9 / 8,
        network=gbits * 1e9 / 8,
        launch_seconds=None,
        host_read_seconds=None,
        link_seconds=1e-6,
        network_seconds=1e-6,
        sources=sources,
    )


DEVICES = {
    "h100": Device(
        kind="NVIDIA H100 80GB HBM3",
        platform="cuda",
        product_flops=494.7e12,
        precise_flops=66.9e12,
        vector_flops=66.9e12,
        bandwidth=3.35e12,
        memory=80e9,
        link=450e9,
        network=50e9,
        launch_seconds=3e-6,
        host_read_seconds=10e-6,
        link_seconds=5e-6,
        network_seconds=10e-6,
        sources={
            "product_flops, precise_flops, vector_flops, bandwidth, memory": _H100,
            "link": "the same, NVLink: 900 GB/s of both directions together",
            "launch_seconds": "estimate: small kernels follow each other in 2 to 4 us",
            "host_read_seconds": "estimate: copy of a flag, synchronisation, launch",
            "network": "NVIDIA DGX H100 data sheet: 400 Gb/s for each GPU",
            "link_seconds, network_seconds": "estimate: half a small all-reduce",
        },
    ),
    "tpu-v5e": _tpu("v5e", 197e12, 819e9, 16, 1600),
    "tpu-v5p": _tpu("v5p", 459e12, 2765e9, 95, 4800),
    "tpu-v6e": _tpu("v6e", 918e12, 1640e9, 32, 3584),
}
"""By the name that `--compile-for` takes."""

FORMS = "h100, h100x4, tpu-v5e, tpu-v5e:2x2, tpu-v5p:2x2x1, tpu-v6e:4x4"
_SMALLEST = {"tpu-v5e": "2x2", "tpu-v5p": "2x2x1", "tpu-v6e": "2x2"}
"""A topology to take one chip of."""
_GPUS_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    Attributes:
      name: as on the command line.
      device: the kind of its chips.
      chips: JAX's descriptions of them.
      sides: of the torus that they are in; of GPUs, how many there are on a host, all
        of which are neighbours.
      num_hosts: of GPUs, how many hosts they are on.
    """

    name: str
    device: Device
    chips: tuple[Any, ...]
    sides: tuple[int, ...] = (1,)
    num_hosts: int = 1

    @property
    def all_reduce_seconds_at_least(self) -> float:
        """What an all-reduce takes that has next to nothing to add: there and back."""
        if len(self.chips) == 1:
            return 0.0
        if self.device.platform == "tpu":
            hops = sum(side // 2 for side in self.sides)  # the links of a side close up
            return 2 * hops * self.device.link_seconds
        far = self.device.network_seconds * (self.num_hosts - 1).bit_length()
        return 2 * (self.device.link_seconds + far)


def find_target(name: str) -> Target:
    """Returns the described devices of a name such as `h100x4` or `tpu-v5e:2x2`.

    Must come before JAX is used: what compiles for them is loaded with it.

    Raises:
      ConfigError: nothing is known by this name, or the compiler is not installed.
    """
    found = re.fullmatch(
        r"(h100)(?:x([1-9]\d*))?|(tpu-v\w+?)(?::(\d+(?:x\d+)+))?", name
    )
    kind = found[1] or found[3] if found else None
    if found is None or kind not in DEVICES:
        raise ConfigError(f"--compile-for={name} is not known; it takes {FORMS}")
    if found[1]:
        count = int(found[2] or 1)
        chips = _gpus(name, kind, count)
        hosts = -(-count // _GPUS_PER_HOST)
        return Target(name, DEVICES[kind], chips, (count // hosts,), hosts)
    chips = _tpus(name, kind, found[4])
    sides = tuple(int(side) for side in (found[4] or "1").split("x"))
    return Target(name, DEVICES[kind], chips, sides)


def _gpus(name: str, kind: str, count: int) -> tuple[Any, ...]:
    plugins = importlib.util.find_spec("jax_plugins")
    places = plugins.submodule_search_locations if plugins else []
    if not any(pathlib.Path(x, y).is_dir() for x in places or [] for y in _CUDA):
        raise ConfigError(_missing(name, "cuda13"))
    hosts = -(-count // _GPUS_PER_HOST)
    if count > _GPUS_PER_HOST and count % _GPUS_PER_HOST:
        raise ConfigError(f"--compile-for={name}: more than 8 must be multiples of 8")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver
    description = topologies.get_topology_desc(
        "",
        "cuda",
        target_config=(TARGETS / f"{kind}.txt").read_text(),
        topology=f"1x{hosts}x{count // hosts}",
    )
    return tuple(description.devices)


def _tpus(name: str, kind: str, topology: str | None) -> tuple[Any, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(_missing(name, "tpu"))
    for variable, value in _TPU_ALONE.items():
        os.environ.setdefault(variable, value)
    wanted = f"{kind.removeprefix('tpu-')}:{topology or _SMALLEST[kind]}"
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=wanted)
    except Exception as error:  # of no narrower type
        raise ConfigError(f"--compile-for={name}: {error}") from error
    return tuple(description.devices[: None if topology else 1])


_TPU_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu otherwise looks for in vain on a machine without TPU, or locks."""
_CUDA = ("xla_cuda13", "xla_cuda12")


def _missing(name: str, extra: str) -> str:
    return (
        f"--compile-for={name} needs a compiler that is not installed (no such device"
        f" is needed): pip install -e '.[{extra}]', best in an environment of its own"
    )
