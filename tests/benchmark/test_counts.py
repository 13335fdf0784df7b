import pathlib

import jax
import jax.numpy as jnp
import pytest

from cemrl_jax.benchmark import counts, hlo

REPLAY = 1000 * 4
PROGRAM = pathlib.Path(__file__).with_name("program.hlo")
"""A phase of ten steps with one of everything that is counted."""


@pytest.fixture(scope="module")
def module() -> hlo.Module:
    return hlo.parse(PROGRAM.read_text())


@pytest.fixture(scope="module")
def step(module) -> counts.Block:
    (loop,) = counts.Counter(module, frozenset({REPLAY})).count().loops
    return loop


def compiled_block(function, *args) -> counts.Block:
    text = jax.jit(function).lower(*args).compile().as_text() or ""
    return counts.Counter(hlo.parse(text)).count()


# ---------------------------------------------------------------- kernels, loops


def test_kernels_of_a_step_are_counted_by_kind(step):
    kinds = {kind: step.once[f"kernels/{kind}"] for kind in counts.KINDS}
    expected = dict.fromkeys(counts.KINDS, 0) | {
        "matrix product": 1,
        "gather": 1,
        "collective": 1,
        "copy": 1,
        "write": 1,
        # the callback, and the factorisation in each of the solver's four rounds
        "library": 1 + 4,
        "reduction": 4,  # the solver's condition
    }
    assert kinds == expected
    assert counts.num_kernels(step.total) == 10 * counts.num_kernels(step.once)


def test_a_loop_of_unknown_length_counts_up_to_the_limit_in_its_condition(step):
    (solver,) = step.loops
    assert (solver.trips, solver.known, solver.limited) == (4, False, True)
    assert (step.trips, step.known) == (10, True)
    assert step.once["dynamic_loops"] == 1
    assert step.once["host_reads"] == 4 + 1


def test_a_device_that_decides_by_itself_needs_no_host(module):
    (step,) = counts.Counter(module, host_loops=False).count().loops
    assert step.once["host_reads"] == 0
    assert step.once["dynamic_loops"] == 1


def test_calls_collectives_callbacks_and_copies_of_the_replay_are_counted(step):
    once = step.once
    assert once["library/cusolver_potrf_ffi"] == 4
    assert once["library/triton"] == 1
    assert (once["collectives"], once["collective_bytes"]) == (1, 8 * 4 * 4)
    assert once["callbacks"] == 1
    # the write in place is none
    assert (once["replay_copies"], once["replay_copy_bytes"]) == (1, REPLAY * 4)


def test_slices_and_writes_in_place_do_not_move_the_whole_array(step):
    moved = {kernel.name: kernel.counts["bytes"] for kernel in step.kernels}
    batch, places = 8 * 4 * 4, 8 * 4
    assert moved["batch"] == batch + batch + places
    assert moved["written"] == batch + batch + 4
    assert moved["copied"] == 2 * REPLAY * 4
    assert moved["product"] == 4 * (8 * 4 + 4 * 16 + 8 * 16)


def test_operations_are_those_of_the_products_and_of_every_element(step):
    assert step.own["flops/precise"] == 2 * 8 * 4 * 16
    assert step.own["flops/product"] == 0
    assert step.own["flops/other"] == 8 * 4  # the addition after the gather


def test_kernels_are_listed_with_how_often_they_run_and_where_they_come_from(step):
    runs = {kernel.name: (times, kernel) for times, kernel in step.walk()}
    assert runs["solved"][0] == 4
    assert runs["product"][0] == 1
    assert runs["product"][1].source.endswith("Dense_0/dot_general")


def test_of_a_condition_the_branch_with_more_to_do_counts(module):
    text = """
%less (p.0: f32[4]) -> f32[4] {
  %p.0 = f32[4]{0} parameter(0)
  ROOT %a.0 = f32[4]{0} negate(%p.0)
}
%more (p.1: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  %b.0 = f32[4]{0} negate(%p.1)
  ROOT %b.1 = f32[4]{0} sine(%b.0)
}
ENTRY %main (p.2: f32[4], p.3: pred[]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  %p.3 = pred[] parameter(1)
  ROOT %c.0 = f32[4]{0} conditional(%p.3, %p.2, %p.2), true_computation=%less, false_computation=%more
}
"""  # noqa: E501
    block = counts.Counter(hlo.parse(text)).count()
    assert counts.num_kernels(block.once) == 2
    assert block.once["host_reads"] == 1


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("a recipe for soup")


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[1000,20]{1,0:T(8,128)}", 1000 * 128 * 4),
        ("f32[1000,20]{0,1:T(8,128)}", 1024 * 24 * 4),
        ("f32[3,5,20]{2,1,0:T(8,128)S(1)}", 3 * 8 * 128 * 4),
        ("bf16[7]{0:T(1024)}", 1024 * 2),
        ("pred[]", 1),
        ("f32[6,5]{1,0}", 120),
    ],
)
def test_tiles_pad_the_dimensions_that_lie_closest_together(text, size):
    program = f"ENTRY %main () -> f32[] {{\n  ROOT %p.0 = {text} parameter(0)\n}}"
    (shape,) = hlo.parse(program).computations["main"].root.shapes
    assert shape.padded_bytes == size
    assert shape.space == int("S(1)" in text)


# ---------------------------------------------------------------- real programs


def test_products_of_loops_in_loops_are_multiplied_out():
    matrix = jnp.ones((16, 32))

    def inner(x, _):
        return x @ matrix @ matrix.T, None

    def outer(x, _):
        return jax.lax.scan(inner, x, length=3)[0], None

    block = compiled_block(
        lambda x: jax.lax.scan(outer, x, length=5)[0], jnp.ones((8, 16))
    )
    products = sum(block.total[f"flops/{how}"] for how in ("product", "precise"))
    assert products == 5 * 3 * (2 * 8 * 16 * 32 * 2)
    assert [loop.trips for _, loop in block.all_loops()] == [5, 3]
    assert block.total["dynamic_loops"] == 0


def test_a_loop_that_ends_early_is_seen_and_its_limit_found():
    def going_on(state):
        return (state[0] < 7) & (state[1].sum() < 1e6)

    def step(state):
        return state[0] + 1, jnp.sin(state[1])

    block = compiled_block(
        lambda x: jax.lax.while_loop(going_on, step, (0, x)), jnp.ones(32)
    )
    (loop,) = block.loops
    assert (loop.trips, loop.known, loop.limited) == (7, False, True)


@pytest.mark.parametrize(
    ("line", "products"),
    [
        # a matrix product as a TPU has it
        (
            "f32[256,108]{1,0} convolution(%a, %b), dim_labels=bf_io->bf",
            256 * 108 * 27,
        ),
        # 32 products side by side, which share one factor
        (
            "f32[32,17,70]{2,1,0} convolution(%c, %d), window={size=1},"
            " dim_labels=b0f_io0->b0f",
            32 * 17 * 70 * 47,
        ),
        # an ordinary one: a window of 3 over 10 numbers and a border of one zero
        (
            "f32[1,10,1]{2,1,0} convolution(%e, %f), window={size=3 pad=1_1},"
            " dim_labels=b0f_0io->b0f",
            3 * 10 - 2,
        ),
        # four products, each of its own factors, as one with gaps
        (
            "f32[4,5,6]{2,1,0} convolution(%g, %h), window={size=4 stride=3"
            " pad=0_0 lhs_dilate=4}, dim_labels=0bf_0io->0bf",
            4 * 5 * 6 * 7,
        ),
    ],
)
def test_products_of_a_convolution_leave_padding_out(line, products):
    shapes = {
        **{"a": "f32[256,27]", "b": "f32[27,108]"},
        **{"c": "f32[32,17,47]", "d": "f32[47,70,1]"},
        **{"e": "f32[1,10,1]", "f": "f32[3,1,1]"},
        **{"g": "f32[4,5,7]", "h": "f32[4,7,6]"},
    }
    lines = [
        f"  %{name} = {shape} parameter({number})"
        for number, (name, shape) in enumerate(shapes.items())
    ]
    text = "\n".join(["ENTRY %main () -> f32[] {", *lines, f"  ROOT %r = {line}", "}"])
    block = counts.Counter(hlo.parse(text)).count()
    assert block.once["flops/product"] == 2 * products
    assert block.once["kernels/matrix product"] == 1
