"""What one instruction computes and moves."""

import dataclasses
import math
import re

from cemrl_jax.benchmark.hlo import Computation, Instruction, Module, Shape

FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
        *("after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency"),
        "domain",
    )
)
"""Instructions that run nothing."""
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
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


@dataclasses.dataclass(frozen=True)
class Costs:
    """Operations and bytes of a module's instructions.

    Attributes:
      module: the program.
      on_chip: number of the memory space that is not the main memory, if there is one.
    """

    module: Module
    on_chip: int | None = None

    def flops(self, x: Instruction, inside: Computation) -> dict[str, float]:
        """Counts operations: `product`, `precise` (at the highest precision), `other`.

        Args:
          x: the instruction.
          inside: where it stands.
        """
        called = x.attribute("calls")
        if x.opcode == "fusion" and called:
            total: dict[str, float] = {}
            computation = self.module.computations[called]
            for y in computation.instructions:
                for name, number in self.flops(y, computation).items():
                    total[name] = total.get(name, 0) + number
            return total
        if x.opcode in ("dot", "convolution") or is_product_call(x):
            flops = 2.0 * _products(x, inside)
            precise = re.search(
                r'operand_precision"?[=:][{\[]"?highest', x.attributes, re.I
            )
            return {"precise" if precise else "product": flops}
        if x.opcode in ("reduce", "reduce-window"):
            operand = inside.by_name.get(x.operands[0])
            return {"other": operand.shapes[0].size if operand else 0}
        if x.opcode in MOVES or x.opcode in FREE or x.opcode in IN_PLACE:
            return {}
        if x.opcode in ("custom-call", "fusion", "gather", *COLLECTIVES):
            return {}
        return {"other": x.shapes[0].size if x.shapes else 0}

    def num_bytes(self, x: Instruction, inside: Computation) -> int:
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
            if all(self.in_main(shape) for shape in shapes):
                total += self._read(parameter, called)
        root = called.root
        leaves = (
            [called.by_name[name] for name in root.operands]
            if root.opcode == "tuple"
            else [root]
        )
        for leaf, shape in zip(leaves, x.shapes):
            if not self.in_main(shape):
                continue
            origin = through(called, leaf)
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
        return sum(shape.padded_bytes for shape in shapes if self.in_main(shape))

    def in_main(self, shape: Shape) -> bool:
        """Returns whether an array is in the main memory."""
        return self.on_chip is None or shape.space != self.on_chip


def _users(computation: Computation, x: Instruction) -> list[Instruction]:
    """Returns who reads an instruction, bitcasts left out."""
    users = []
    for user in computation.users.get(x.name, []):
        users += _users(computation, user) if user.opcode == "bitcast" else [user]
    return users


def through(computation: Computation, x: Instruction) -> Instruction:
    """Returns what an instruction is a bitcast of."""
    while x.opcode == "bitcast" and x.operands[0] in computation.by_name:
        x = computation.by_name[x.operands[0]]
    return x


def is_product_call(x: Instruction) -> bool:
    """Returns whether a library is called to multiply matrices."""
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
