"""Products of bfloat16 matrices for numba's loops, a tile of the result at a time in registers.

A word (uint32) is a pair of bfloat16 numbers that are neighbours in what a product sums over, the
first of them in its lower half. A processor with AVX-512 BF16 multiplies sixteen pairs and adds
them up in one instruction; on another float32 instructions do the same.

Why not a library's product: those of training are small. To call one, and what a library then looks
up and lays out anew, takes longer than the product, and what lies between two of them leaves the
core's cache. `scripts/benchmark` has both beside each other.

Numba's cache does not see a change in this file: see `simd.py`.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ad.models.kernels.simd import (
    FLOATS,
    INT,
    INTS,
    VECTOR,
    BFloat,
    everywhere,
    ints,
    loops_may_use,
    place,
    read,
)
from ad.runtime.parallel import HELPER

LEAST = 8  # rows of a result come in multiples of this, columns in multiples of FLOATS

_ROWS = LEAST if loops_may_use("avx512f") else 2  # of a tile: so many sums have registers
_IN_ONE = loops_may_use("avx512bf16")


def _tile(vectors: int, more: bool):
    """The intrinsic for a tile so many vectors wide: it is stored, or added to what is there."""

    @intrinsic
    def tile(context, a, at, row, step, b, begin, across, pairs, c, into, below):
        def make(context, builder, signature, arguments):
            a, at, row, step, b, begin, across, pairs, c, into, below = arguments
            kind_a, kind_b, kind_c = (signature.args[i] for i in (0, 4, 8))

            def on(index, stride, count: int):
                return builder.add(index, builder.mul(stride, stride.type(count)))

            def result(i: int, j: int):
                index = builder.add(on(into, below, i), into.type(j * FLOATS))
                return place(context, builder, kind_c, c, index, VECTOR)

            def words(kind_array, array, index, kind):
                return read(builder, place(context, builder, kind_array, array, index, kind, INT))

            # In registers, as nobody asks where in memory they are.
            sums = {
                (i, j): cgutils.alloca_once(builder, VECTOR)
                for i in range(_ROWS)
                for j in range(vectors)
            }
            for ij, total in sums.items():
                zero = ir.Constant(VECTOR, [0.0] * FLOATS)
                builder.store(read(builder, result(*ij)) if more else zero, total)
            with cgutils.for_range(builder, pairs) as loop:
                first_b = builder.add(begin, builder.mul(loop.index, across))
                first_a = builder.add(at, builder.mul(loop.index, step))
                columns = [
                    words(kind_b, b, builder.add(first_b, begin.type(j * FLOATS)), INTS)
                    for j in range(vectors)
                ]
                for i in range(_ROWS):
                    pair = everywhere(builder, words(kind_a, a, on(first_a, row, i), INT), INTS)
                    for j, column in enumerate(columns):
                        total = sums[i, j]
                        builder.store(_plus(builder, builder.load(total), pair, column), total)
            for ij, total in sums.items():
                builder.store(builder.load(total), result(*ij)).align = 4
            return context.get_dummy_value()

        three = [types.intp] * 3
        return types.none(a, *three, b, *three, c, types.intp, types.intp), make

    return tile


def _plus(builder, total, a, b):
    """`total` + the products of the pairs of numbers in the words `a` and `b`."""
    if _IN_ONE:
        name, halves = "llvm.x86.avx512bf16.dpbf16ps.512", BFloat(2 * FLOATS)
        kind = ir.FunctionType(VECTOR, [VECTOR, halves, halves])
        call = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(call, [total, *(builder.bitcast(x, halves) for x in (a, b))])
    once = ("contract",)
    for half in (_first, _second):
        x, y = (builder.bitcast(half(builder, words), VECTOR) for words in (a, b))
        total = builder.fadd(total, builder.fmul(x, y, flags=once), flags=once)
    return total


def _first(builder, words):
    return builder.shl(words, ints(16))


def _second(builder, words):
    return builder.and_(words, ints(0xFFFF0000))


def _whole(wide, narrow):
    """A whole result of such tiles."""

    @njit(**HELPER)
    def whole(a, at, row, step, b, begin, across, pairs, c, into, below, rows, columns):
        for j in range(0, columns, 2 * FLOATS):
            for i in range(0, rows, _ROWS):
                first, corner = at + i * row, into + i * below + j
                if columns - j > FLOATS:
                    wide(a, first, row, step, b, begin + j, across, pairs, c, corner, below)
                else:
                    narrow(a, first, row, step, b, begin + j, across, pairs, c, corner, below)

    return whole


# `c` [`rows`, `columns`] = `a` @ `b`, a sum over so many `pairs`. Of these k is, in row i of `a`,
# its word `at` + i `row` + k `step`, and in column j of `b` its word `begin` + k `across` + j. `c`,
# which is float32, begins at its number `into`, and its rows are `below` apart.
product = _whole(_tile(2, more=False), _tile(1, more=False))
# The same, added to what is in `c`.
more_product = _whole(_tile(2, more=True), _tile(1, more=True))
