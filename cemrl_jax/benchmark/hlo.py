"""HLO text, read: computations, instructions, shapes as they lie in memory.

Only what counting needs. The text is that of `jax.stages.Compiled.as_text()`: after
optimisation, one instruction a line, operands without their types.
"""

import dataclasses
import functools
import math
import re

BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Of types whose name does not end in their number of bits."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array.

    Attributes:
      dtype: as HLO has it, `f32`, `pred`.
      dims: its dimensions.
      order: numbers of the dimensions, the one that lies closest together first.
      tile: the last dimensions of a tile that memory is made of, `(8, 128)` on a TPU;
        empty where there are none.
      space: number of the memory it is in; 0 is the device's main memory.
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes of the elements."""
        return _bytes(self.size, self.dtype)

    @property
    def padded_bytes(self) -> int:
        """Bytes in memory, with the padding that tiles need."""
        dims = [self.dims[number] for number in self.order]
        for place, size in enumerate(reversed(self.tile)):
            if place < len(dims):
                dims[place] = -(-dims[place] // size) * size
        return _bytes(math.prod(dims), self.dtype) if dims else self.num_bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line.

    Attributes:
      name: unique in its computation.
      opcode: `fusion`, `while`, ...
      shapes: of the result; of a tuple, those of its leaves.
      operands: names.
      arguments: the text between the parentheses.
      attributes: the text behind them.
      is_root: whether it is its computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """Returns what an attribute is set to, for plain words and names."""
        found = re.search(rf'\b{name}="?%?([\w.$:-]+)', self.attributes)
        return found[1] if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns an attribute such as `lhs_contracting_dims={0,1}`."""
        found = re.search(rf'\b{name}"?[=:][{{\[]([\d,"]*)[}}\]]', self.attributes)
        text = found[1].replace('"', "") if found else ""
        return tuple(int(number) for number in text.split(",") if number)

    @property
    def target(self) -> str:
        """What a custom call calls; else empty."""
        return self.attribute("custom_call_target") or ""

    @property
    def branches(self) -> tuple[str, ...]:
        """Computations of a conditional."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if listed:
            return tuple(re.findall(r"%([\w.-]+)", listed[1]))
        both = (self.attribute(f"{way}_computation") for way in ("true", "false"))
        return tuple(name for name in both if name)

    @property
    def source(self) -> str:
        """The names of the JAX functions and operations that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def num_bytes(self) -> int:
        """Bytes of the result."""
        return sum(shape.num_bytes for shape in self.shapes)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of instructions.

    Attributes:
      name: unique in the module.
      instructions: in their order.
    """

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        found = [x for x in self.instructions if x.opcode == "parameter"]
        return {int(x.arguments): x for x in found}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instructions that read one, by its name."""
        result: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                result.setdefault(operand, []).append(instruction)
        return result

    @property
    def root(self) -> Instruction:
        """The result."""
        return next(x for x in self.instructions if x.is_root)


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      computations: by name.
      entry: name of the one that runs.
    """

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads a program.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, Computation] = {}
    entry, name, lines = "", "", []
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            head = re.match(r"(ENTRY )?%?([\w.-]+)", line)
            if head is None:
                continue
            name, lines = head[2], []
            entry = name if head[1] else entry
        elif line == "}" and name:
            computations[name] = Computation(name, tuple(lines))
            name = ""
        elif name and " = " in line:
            lines.append(_instruction(line))
    if not entry:
        raise ValueError("this is no HLO text: it has no ENTRY computation")
    return Module(computations, entry)


def _instruction(line: str) -> Instruction:
    head, rest = line.split(" = ", 1)
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = start + _closing(rest[start:])
    arguments = rest[start + 1 : end - 1]
    return Instruction(
        name=head.split("%")[-1].strip().removeprefix("ROOT "),
        opcode=rest[:start],
        shapes=_shapes(kind),
        operands=tuple(re.findall(r"%([\w.-]+)", arguments)),
        arguments=arguments,
        attributes=rest[end:],
        is_root=head.lstrip().startswith("ROOT"),
    )


def _closing(text: str) -> int:
    """Returns the place behind the parenthesis that closes the first one."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


_SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


def _shapes(text: str) -> tuple[Shape, ...]:
    shapes = []
    for dtype, dims, order, rest in _SHAPE.findall(text):
        tile = re.match(r"T\(([\d,]+)\)", rest)
        space = re.search(r"S\((\d+)\)", rest)
        shapes.append(
            Shape(
                dtype,
                _numbers(dims),
                _numbers(order),
                _numbers(tile[1]) if tile else (),
                int(space[1]) if space else 0,
            )
        )
    return tuple(shapes)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in re.findall(r"\d+", text))


def _bytes(size: int, dtype: str) -> int:
    found = re.match(r"[a-z]+(\d+)", dtype)
    bits = BITS.get(dtype, int(found[1]) if found else 32)
    return size * bits // 8
