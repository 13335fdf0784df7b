"""What a compiled program does, counted in its text with loops multiplied out.

A device runs one kernel for each instruction outside of fusions that computes or moves
anything. Loops whose length the program does not fix count up to their limit, which
their condition names.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator

from cemrl_jax.benchmark.costs import (
    COLLECTIVES,
    FREE,
    IN_PLACE,
    MOVES,
    Costs,
    is_product_call,
    through,
)
from cemrl_jax.benchmark.hlo import Computation, Instruction, Module, Shape

FREE_CALLS = frozenset(
    ("AllocateBuffer", "ConcatBitcast", "Sharding", "GatherScatterIndicesBitpacked")
)
"""Custom calls that run nothing."""
HOST = ("infeed", "outfeed", "send", "recv")
KINDS = (
    "matrix product",
    "reduction",
    "elementwise",
    "random",
    "gather",
    "write",
    "copy",
    "scatter",
    "sort",
    "library",
    "collective",
)

Counts = collections.Counter[str]
"""Name -> number: `kernels/<kind>`, `library/<call>`, `flops/product` at default
precision, `flops/precise` (products at the highest), `flops/other`, `bytes`,
`collectives`, `collective_bytes`, `callbacks`, `host_transfers`, `replay_copies`,
`replay_copy_bytes`, `dynamic_loops`, `host_reads`."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What one instruction runs.

    Attributes:
      name: of the instruction.
      kind: one of `KINDS`.
      source: the names of the JAX functions that it comes from.
      result: the largest array of its result.
      counts: what one run of it does.
    """

    name: str
    kind: str
    source: str
    result: Shape | None
    counts: Counts


@dataclasses.dataclass(frozen=True)
class Block:
    """The body of a loop, or a whole program.

    Attributes:
      name: of the loop's instruction.
      source: see `Kernel`.
      trips: how often it runs, the limit where only the device knows.
      known: whether the program fixes that; False where `trips` is a limit.
      limited: whether there is a limit at all; else it counts as one.
      kernels: its own, calls and the longer branch of conditions included.
      loops: within.
      extra: what is counted besides kernels.
    """

    name: str
    source: str
    trips: int
    known: bool
    limited: bool
    kernels: tuple[Kernel, ...]
    loops: tuple["Block", ...]
    extra: Counts

    @functools.cached_property
    def own(self) -> Counts:
        """What one run of the body does, loops within left out."""
        total = Counts(self.extra)
        for kernel in self.kernels:
            total.update(kernel.counts)
        return total

    @functools.cached_property
    def once(self) -> Counts:
        """What one run of the body does, loops within multiplied out."""
        total = Counts(self.own)
        for loop in self.loops:
            total.update(loop.total)
        return total

    @property
    def total(self) -> Counts:
        """What all runs together do."""
        return scaled(self.once, self.trips)

    @property
    def num_kernels(self) -> float:
        """Kernels of all runs."""
        return num_kernels(self.total)

    def walk(self, times: int = 1) -> Iterator[tuple[int, Kernel]]:
        """Yields each kernel with how often one run of the body runs it."""
        for kernel in self.kernels:
            yield times, kernel
        for loop in self.loops:
            yield from loop.walk(times * loop.trips)

    def all_loops(self, depth: int = 0) -> Iterator[tuple[int, "Block"]]:
        """Yields the loops within, at any depth, with how deep they are."""
        for loop in self.loops:
            yield depth, loop
            yield from loop.all_loops(depth + 1)


def scaled(counts: Counts, factor: float) -> Counts:
    """Returns every number times a factor."""
    return Counts({name: value * factor for name, value in counts.items()})  # pyright: ignore


def num_kernels(counts: Counts) -> float:
    """Returns the kernels of every kind together."""
    return sum(n for name, n in counts.items() if name.startswith("kernels/"))


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts in a module.

    Attributes:
      module: the program.
      replay_sizes: numbers of elements of the replay's arrays on a device: an
        instruction that reads one and writes as many elements anew copies it.
      on_chip: number of the memory space that is not the main memory, if there is one.
      host_loops: whether the host decides about each round of a loop whose length
        only the device knows, and about each condition.
    """

    module: Module
    replay_sizes: frozenset[int] = frozenset()
    on_chip: int | None = None
    host_loops: bool = True

    @property
    def costs(self) -> Costs:
        """What instructions compute and move."""
        return Costs(self.module, self.on_chip)

    def count(self) -> Block:
        """Returns the whole program."""
        return self._body(self.module.entry)

    # -------------------------------------------------------- walking

    def _body(self, name: str) -> Block:
        """Returns a computation, with what it calls."""
        computation = self.module.computations[name]
        kernels: list[Kernel] = []
        loops: list[Block] = []
        extra = Counts()
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                loops.append(self._loop(instruction))
                if not loops[-1].known:
                    extra["dynamic_loops"] += 1
                    extra["host_reads"] += int(self.host_loops)  # the last one
            elif called := self._called(instruction):
                longest = max(map(self._body, called), key=lambda x: x.num_kernels)
                kernels += longest.kernels
                loops += longest.loops
                extra.update(longest.extra)
                is_choice = instruction.opcode == "conditional"
                extra["host_reads"] += int(is_choice and self.host_loops)
            else:
                kernels += self._kernel(instruction, computation)
        return Block(name, "", 1, True, True, tuple(kernels), tuple(loops), extra)

    def _called(self, x: Instruction) -> tuple[str, ...]:
        """Returns the computations of which an instruction runs one."""
        if x.opcode == "conditional":
            return x.branches
        if x.opcode not in ("call", "async-start"):
            return ()
        name = x.attribute("to_apply") or x.attribute("calls")
        return (name,) if name else ()

    def _loop(self, loop: Instruction) -> Block:
        body, condition = loop.attribute("body"), loop.attribute("condition")
        assert body is not None
        assert condition is not None
        block = self._body(body)
        fixed = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        limit, alone = self._limit(condition)
        known = fixed is not None or (alone and not self.host_loops)
        trips = int(fixed[1]) if fixed else limit
        if not known:  # the condition runs as well: as often as the body, and once more
            check = self._body(condition)
            block = dataclasses.replace(
                block,
                kernels=block.kernels + check.kernels,
                loops=block.loops + check.loops,
                extra=block.extra + Counts(host_reads=int(self.host_loops)),
            )
        return dataclasses.replace(
            block,
            name=loop.name,
            source=loop.source,
            trips=1 if trips is None else trips,
            known=known,
            limited=trips is not None,
        )

    def _limit(self, condition: str) -> tuple[int | None, bool]:
        """Returns the largest constant that a condition compares a number with.

        And whether it does nothing else.
        """
        limits, alone = [], False
        for computation in self._reached(condition):
            for x in computation.instructions:
                if x.opcode == "compare" and x.attribute("direction") in _ORDER:
                    found = [_constant(computation, name) for name in x.operands]
                    limits += [number for number in found if number is not None]
                    alone |= x.is_root and computation.name == condition
        return max(limits, default=None), alone

    def _reached(self, name: str) -> Iterator[Computation]:
        """Yields a computation and those that its fusions and calls are made of."""
        computation = self.module.computations[name]
        yield computation
        for x in computation.instructions:
            called = x.attribute("calls") if x.opcode != "while" else None
            if x.opcode == "call":
                called = x.attribute("to_apply")
            if called in self.module.computations:
                yield from self._reached(called)

    # -------------------------------------------------------- kernels

    def _kernel(self, x: Instruction, inside: Computation) -> list[Kernel]:
        """Returns the kernel of an instruction, if it runs one."""
        opcode = x.opcode.removesuffix("-done")
        if opcode in FREE or x.opcode.endswith(("-start", "-update")):
            return []
        if x.target in FREE_CALLS:
            return []
        if x.opcode.endswith("-done"):  # of a pair, this one has the result's shape
            start = inside.by_name[x.operands[0]]
            if start.opcode == "async-start":
                return []  # counted where it calls
            x = dataclasses.replace(
                start, opcode=opcode, shapes=x.shapes, name=start.name
            )
        kind = self._kind(x)
        counts = Counts({f"kernels/{kind}": 1})
        if kind == "collective":
            counts["collectives"] = 1
            counts["collective_bytes"] = x.num_bytes
        if kind == "library":
            counts[f"library/{x.target}"] = 1
        if "triton" in x.attributes:
            counts["library/triton"] = 1
        if "callback" in x.target:
            counts["callbacks"] = 1
        if opcode in HOST:
            counts["host_transfers"] = 1
        for how, number in self.costs.flops(x, inside).items():
            counts[f"flops/{how}"] = number  # pyright: ignore
        counts["bytes"] = self.costs.num_bytes(x, inside)
        counts.update(self._replay_copies(x, inside))
        largest = max(x.shapes, key=lambda shape: shape.size, default=None)
        return [Kernel(x.name, kind, x.source, largest, counts)]

    def _kind(self, x: Instruction) -> str:
        if x.opcode in COLLECTIVES:
            return "collective"
        if x.opcode == "custom-call":
            return "matrix product" if is_product_call(x) else "library"
        opcodes = {x.opcode}
        called = x.attribute("calls")
        if x.opcode == "fusion" and called:
            opcodes = {y.opcode for part in self._reached(called) for y in _used(part)}
        opcodes.discard("fusion")
        for kind, some in (
            ("matrix product", {"dot", "convolution"}),
            ("scatter", {"scatter"}),
            ("sort", {"sort"}),
            ("collective", set(COLLECTIVES)),
            ("reduction", {"reduce", "reduce-window"}),
            ("random", {"xor", "rng-bit-generator"}),
            ("gather", {"gather"}),
        ):
            if opcodes & some:
                return kind
        if opcodes <= MOVES:
            return "copy"
        if opcodes <= MOVES | _WRITES and "dynamic-update-slice" in opcodes:
            return "write"
        return "elementwise"

    def _result(self, x: Instruction) -> Instruction:
        """Returns the root of what a fusion calls; else the instruction."""
        called = x.attribute("calls")
        if x.opcode == "fusion" and called in self.module.computations:
            return self.module.computations[called].root
        return x

    # -------------------------------------------------------- replay

    def _replay_copies(self, x: Instruction, inside: Computation) -> Counts:
        """Counts results as large as an array of the replay, made of one.

        Not those that are fetched into the memory on the chip.
        """
        sizes = {
            shape.size
            for name in x.operands
            if name in inside.by_name
            for shape in inside.by_name[name].shapes
        } & self.replay_sizes
        root = self._result(x)
        leaves = [root]
        called = x.attribute("calls")
        computation = self.module.computations.get(called or "", inside)
        if root.opcode == "tuple":
            leaves = [computation.by_name[name] for name in root.operands]
        found = Counts()
        for leaf, shape in zip(leaves, x.shapes):
            if shape.size not in sizes or not self.costs.in_main(shape):
                continue
            if through(computation, leaf).opcode not in IN_PLACE:
                found["replay_copies"] += 1
                found["replay_copy_bytes"] += shape.padded_bytes
        return found


_ORDER = ("LT", "LE", "GT", "GE")
_WRITES = frozenset(("dynamic-update-slice", "compare", "add", "select", "clamp"))
"""What a fusion that writes into an array needs, the place included."""


def _used(computation: Computation) -> Iterator[Instruction]:
    return (x for x in computation.instructions if x.opcode not in FREE)


def _constant(computation: Computation, name: str) -> int | None:
    """Returns the integer that an operand is, if it is a constant above 0."""
    x = computation.by_name.get(name)
    while x is not None and x.opcode in ("broadcast", "bitcast", "copy", "convert"):
        x = computation.by_name.get(x.operands[0])
    if x is None or x.opcode != "constant" or not x.shapes:
        return None
    is_number = x.shapes[0].dtype[0] in "su" and re.fullmatch(r"\d+", x.arguments)
    return int(x.arguments) or None if is_number else None
