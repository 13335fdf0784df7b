"""What a compiled program does, counted in its text with loops multiplied out.

A device runs one kernel for each instruction outside of fusions that computes or moves
anything. Loops whose length the program does not fix count up to their limit, which
their condition names.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from cemrl_jax.benchmark.hlo import Computation, Instruction, Module, Shape

FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
        *("after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency"),
        "domain",
    )
)
"""Instructions that run nothing."""
FREE_CALLS = frozenset(
    ("AllocateBuffer", "ConcatBitcast", "Sharding", "GatherScatterIndicesBitpacked")
)
"""Custom calls that run nothing."""
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
HOST = ("infeed", "outfeed", "send", "recv")
MOVES = frozenset(
    (
        *("transpose", "copy", "concatenate", "pad", "slice", "bitcast", "reshape"),
        *("broadcast", "convert", "reverse", "dynamic-slice", "iota"),
        *("parameter", "constant", "tuple", "get-tuple-element"),
    )
)
"""A fusion of nothing else only moves numbers."""
SLICES = frozenset(("slice", "dynamic-slice", "gather"))
"""They read no more of their first operand than they return."""
IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}
"""They write into their first operand; which operand says how much."""

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
    "other",
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

    def count(self) -> Block:
        """Returns the whole program."""
        kernels, loops, extra = self._body(self.module.entry)
        return Block("entry", "", 1, True, True, kernels, loops, extra)

    # -------------------------------------------------------- walking

    def _body(self, name: str) -> tuple[tuple[Kernel, ...], tuple[Block, ...], Counts]:
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
            elif instruction.opcode in ("call", "async-start", "conditional"):
                parts = [self._body(called) for called in self._called(instruction)]
                chosen = max(parts, key=_work)
                kernels += chosen[0]
                loops += chosen[1]
                extra.update(chosen[2])
                if instruction.opcode == "conditional" and self.host_loops:
                    extra["host_reads"] += 1
            else:
                kernels += self._kernel(instruction, computation)
        return tuple(kernels), tuple(loops), extra

    def _called(self, instruction: Instruction) -> tuple[str, ...]:
        if instruction.opcode == "conditional":
            return instruction.branches
        name = instruction.attribute("to_apply") or instruction.attribute("calls")
        return (name,) if name else ()

    def _loop(self, loop: Instruction) -> Block:
        body, condition = loop.attribute("body"), loop.attribute("condition")
        assert body is not None
        assert condition is not None
        kernels, loops, extra = self._body(body)
        trips = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        limit, alone = self._limit(condition)
        known = trips is not None or (alone and not self.host_loops)
        number = int(trips[1]) if trips else limit
        if not known:
            # The condition runs as well, once more than the body: not counted.
            more, inner, _ = self._body(condition)
            kernels, loops = kernels + more, loops + inner
        block = Block(
            loop.name,
            loop.source,
            1 if number is None else number,
            known,
            number is not None,
            kernels,
            loops,
            extra,
        )
        if not known:
            block.extra["host_reads"] += int(self.host_loops)
        return block

    def _limit(self, condition: str) -> tuple[int | None, bool]:
        """Returns the largest constant that a condition compares a number with.

        And whether it does nothing else.
        """
        limits, alone = [], False
        for computation in self._reached(condition):
            for x in computation.instructions:
                if x.opcode == "compare" and x.attribute("direction") not in (
                    "EQ",
                    "NE",
                ):
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
        counts.update(self._flops(x, inside))
        counts["bytes"] = self._bytes(x, inside)
        counts.update(self._replay_copies(x, inside))
        largest = max(x.shapes, key=lambda shape: shape.size, default=None)
        return [Kernel(x.name, kind, x.source, largest, counts)]

    def _kind(self, x: Instruction) -> str:
        if x.opcode in COLLECTIVES:
            return "collective"
        if x.opcode == "custom-call":
            is_product = re.search(r"gemm|matmul", x.target, re.I)
            return "matrix product" if is_product else "library"
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
        return "elementwise" if x.opcode != "custom-call" else "other"

    def _result(self, x: Instruction) -> Instruction:
        """Returns the root of what a fusion calls; else the instruction."""
        called = x.attribute("calls")
        if x.opcode == "fusion" and called in self.module.computations:
            return self.module.computations[called].root
        return x

    # -------------------------------------------------------- operations

    def _flops(self, x: Instruction, inside: Computation) -> Counts:
        called = x.attribute("calls")
        if x.opcode == "fusion" and called:
            total = Counts()
            computation = self.module.computations[called]
            for y in computation.instructions:
                total.update(self._flops(y, computation))
            return total
        if x.opcode in ("dot", "convolution") or _is_product_call(x):
            flops = 2.0 * _products(x, inside)
            precise = re.search(
                r'operand_precision"?[=:][{\[]"?highest', x.attributes, re.I
            )
            return Counts({"flops/precise" if precise else "flops/product": flops})  # pyright: ignore
        if x.opcode in ("reduce", "reduce-window"):
            operand = inside.by_name.get(x.operands[0])
            return Counts({"flops/other": operand.shapes[0].size if operand else 0})
        if x.opcode in MOVES or x.opcode in FREE or x.opcode in IN_PLACE:
            return Counts()
        if x.opcode in ("custom-call", "fusion", "gather", *COLLECTIVES):
            return Counts()
        return Counts({"flops/other": x.shapes[0].size if x.shapes else 0})

    # -------------------------------------------------------- bytes

    def _bytes(self, x: Instruction, inside: Computation) -> int:
        """Returns what a kernel reads and writes in main memory, padding included."""
        called = x.attribute("calls")
        if x.opcode == "fusion" and called:
            return self._fusion_bytes(x, self.module.computations[called], inside)
        operands = [inside.by_name[name] for name in dict.fromkeys(x.operands)]
        if x.opcode in IN_PLACE and len(operands) > 1:
            moved = inside.by_name[x.operands[IN_PLACE[x.opcode]]]
            return 2 * self._size(moved.shapes)
        if x.opcode in SLICES:
            return 2 * self._size(x.shapes)
        return self._size(x.shapes) + sum(self._size(y.shapes) for y in operands)

    def _fusion_bytes(
        self, x: Instruction, called: Computation, inside: Computation
    ) -> int:
        total = 0
        for number, parameter in called.parameters.items():
            shapes = inside.by_name[x.operands[number]].shapes
            if all(self._in_main(shape) for shape in shapes):
                total += self._read(parameter, called)
        root = called.root
        leaves = (
            [called.by_name[name] for name in root.operands]
            if root.opcode == "tuple"
            else [root]
        )
        for leaf, shape in zip(leaves, x.shapes):
            if not self._in_main(shape):
                continue
            origin = _through(called, leaf)
            place = IN_PLACE.get(origin.opcode)
            if place is None:
                total += shape.padded_bytes
            else:
                total += self._size(called.by_name[origin.operands[place]].shapes)
        return total

    def _read(self, parameter: Instruction, called: Computation) -> int:
        """Returns what a fusion reads of a parameter."""
        whole = self._size(parameter.shapes)
        part = 0
        for user in _users(called, parameter):
            if user.opcode in SLICES and user.operands[0] == parameter.name:
                part += self._size(user.shapes)
            elif user.opcode in IN_PLACE and user.operands[0] == parameter.name:
                pass
            elif user.opcode in SLICES or user.opcode in IN_PLACE:
                # behind a bitcast, or as an index
                first = called.by_name[user.operands[0]]
                behind = first.opcode == "bitcast" and parameter.name in first.operands
                if not behind:
                    return whole
                part += self._size(user.shapes) if user.opcode in SLICES else 0
            else:
                return whole
        return min(part, whole)

    def _size(self, shapes: tuple[Shape, ...]) -> int:
        return sum(shape.padded_bytes for shape in shapes if self._in_main(shape))

    def _in_main(self, shape: Shape) -> bool:
        return self.on_chip is None or shape.space != self.on_chip

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
            if shape.size not in sizes or not self._in_main(shape):
                continue
            if _through(computation, leaf).opcode not in IN_PLACE:
                found["replay_copies"] += 1
                found["replay_copy_bytes"] += shape.padded_bytes
        return found


_WRITES = frozenset(("dynamic-update-slice", "compare", "add", "select", "clamp"))
"""What a fusion that writes into an array needs, the place included."""


def _work(part: tuple[tuple[Kernel, ...], tuple[Block, ...], Counts]) -> float:
    kernels, loops, _ = part
    return len(kernels) + sum(loop.num_kernels for loop in loops)


def _used(computation: Computation) -> Iterator[Instruction]:
    return (x for x in computation.instructions if x.opcode not in FREE)


def _users(computation: Computation, x: Instruction) -> list[Instruction]:
    """Returns who reads an instruction, bitcasts left out."""
    users = []
    for user in computation.users.get(x.name, []):
        users += _users(computation, user) if user.opcode == "bitcast" else [user]
    return users


def _through(computation: Computation, x: Instruction) -> Instruction:
    """Returns what an instruction is a bitcast of."""
    while x.opcode == "bitcast" and x.operands[0] in computation.by_name:
        x = computation.by_name[x.operands[0]]
    return x


def _constant(computation: Computation, name: str) -> int | None:
    """Returns the integer that an operand is, if it is a constant above 0."""
    x = computation.by_name.get(name)
    while x is not None and x.opcode in ("broadcast", "bitcast", "copy", "convert"):
        x = computation.by_name.get(x.operands[0])
    if x is None or x.opcode != "constant" or not x.shapes:
        return None
    is_number = x.shapes[0].dtype[0] in "su" and re.fullmatch(r"\d+", x.arguments)
    return int(x.arguments) or None if is_number else None


def _is_product_call(x: Instruction) -> bool:
    return x.opcode == "custom-call" and bool(re.search("gemm|matmul", x.target, re.I))


def _products(x: Instruction, inside: Computation) -> float:
    """Returns the multiplications of a matrix product or a convolution."""
    left, right = (inside.by_name.get(name) for name in x.operands[:2])
    if left is None or right is None or not x.shapes:
        return 0.0
    result, a, b = x.shapes[0], left.shapes[0], right.shapes[0]
    if x.opcode == "convolution":
        return _convolution(x, result, a, b)
    summed = x.numbers("lhs_contracting_dims") or x.numbers(
        "lhs_contracting_dimensions"
    )
    return result.size * math.prod(a.dims[number] for number in summed)


def _convolution(x: Instruction, result: Shape, a: Shape, b: Shape) -> float:
    """Counts the products of a convolution that fall on numbers, not on padding."""
    labels = x.attribute("dim_labels")
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    if labels is None or found is None:
        return 0.0
    lhs, rhs, out = found.groups()
    total = float(b.dims[rhs.index("i")])
    for label, size in zip(out, result.dims):
        if not label.isdigit():
            total *= size
    window = re.search(r"window=\{([^}]*)\}", x.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    for number in range(sum(label.isdigit() for label in out)):
        read = lambda name, default, n=number: (  # noqa: E731
            fields[name].split("x")[n] if name in fields else default
        )
        total *= _valid(
            a.dims[lhs.index(str(number))],
            result.dims[out.index(str(number))],
            int(read("size", "1")),
            int(read("stride", "1")),
            int(read("pad", "0_0").split("_")[0]),
            int(read("lhs_dilate", "1")),
            int(read("rhs_dilate", "1")),
        )
    return total


def _valid(
    size: int, out: int, window: int, stride: int, pad: int, dilate: int, spread: int
) -> int:
    """Counts pairs of a result and a window's place that fall on a number."""
    places = (o * stride + k * spread - pad for o in range(out) for k in range(window))
    end = (size - 1) * dilate
    return sum(0 <= place <= end and place % dilate == 0 for place in places)
