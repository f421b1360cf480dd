"""Products of bfloat16 matrices for numba's loops, a tile of the result at a time in registers.

A word (uint32) is a pair of bfloat16 numbers, the first of them in its lower half. A matrix that
enters a product pairs neighbors along the dimension that is summed over, k. AVX-512 BF16 multiplies
sixteen pairs and adds them up in one instruction; other processors use float32 instructions.

Why not a BLAS: the products of training are small. A call, with the library's dispatch and packing,
takes longer than the product, and the operations between two products would leave the core's
cache. `scripts/benchmark` compares both.

Numba's cache does not see a change in this file: see `llvm.py`.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ad.models.kernels.bf16 import BFloat
from ad.models.kernels.llvm import (
    FLOAT32X16,
    INT32,
    INT32X16,
    LANES,
    ZEROS,
    array_data,
    int_vector,
    load_aligned,
    pointer,
    splat,
    target_supports,
)
from ad.runtime.parallel import NUMBA_INLINE

ROW_MULTIPLE = 8  # rows of a result come in multiples of it, columns in multiples of LANES

# Rows of a tile: as many as its accumulators have registers
_TILE_ROWS = ROW_MULTIPLE if target_supports("avx512f") else 2
_HAS_BF16_DOT = target_supports("avx512bf16")


def _tile(vectors: int, accumulate: bool):
    """Return an intrinsic for a tile of `c` [_TILE_ROWS, vectors * LANES], as in `gemm`.

    With `accumulate` the product is added to `c`.
    """

    @intrinsic
    def tile(context, a, b, k_pairs, c):
        matrices = a, b, c

        def make(context, builder, signature, arguments):
            a, b, k_pairs, c = arguments
            a, a_offset, a_row_stride, a_col_stride = cgutils.unpack_tuple(builder, a)
            b, b_offset, b_row_stride = cgutils.unpack_tuple(builder, b)
            c, c_offset, c_row_stride = cgutils.unpack_tuple(builder, c)
            a, b, c = (
                array_data(context, builder, kind.types[0], array)
                for kind, array in zip(matrices, (a, b, c), strict=True)
            )

            def advance(offset, stride, count: int):
                return builder.add(offset, builder.mul(stride, stride.type(count)))

            def result(i: int, j: int):
                row = advance(c_offset, c_row_stride, i)
                index = builder.add(row, c_offset.type(j * LANES))
                return pointer(builder, c, index, FLOAT32X16)

            def load_words(array, index, kind):
                return load_aligned(builder, pointer(builder, array, index, kind, INT32))

            # LLVM keeps these in registers: no address of theirs is used elsewhere.
            sums = {
                (i, j): cgutils.alloca_once(builder, FLOAT32X16)
                for i in range(_TILE_ROWS)
                for j in range(vectors)
            }
            for ij, total in sums.items():
                start = load_aligned(builder, result(*ij)) if accumulate else ZEROS
                builder.store(start, total)
            with cgutils.for_range(builder, k_pairs) as loop:
                b_row = builder.add(b_offset, builder.mul(loop.index, b_row_stride))
                a_column = builder.add(a_offset, builder.mul(loop.index, a_col_stride))
                columns = [
                    load_words(b, builder.add(b_row, b_offset.type(j * LANES)), INT32X16)
                    for j in range(vectors)
                ]
                for i in range(_TILE_ROWS):
                    pair = load_words(a, advance(a_column, a_row_stride, i), INT32)
                    pair = splat(builder, pair, INT32X16)
                    for j, column in enumerate(columns):
                        total = sums[i, j]
                        value = _multiply_add_pairs(builder, builder.load(total), pair, column)
                        builder.store(value, total)
            for ij, total in sums.items():
                builder.store(builder.load(total), result(*ij)).align = 4
            return context.get_dummy_value()

        return types.none(a, b, types.intp, c), make

    return tile


def _multiply_add_pairs(builder, total, a, b):
    """Return `total` + the products of both numbers in the words `a` and `b`, lane by lane."""
    if _HAS_BF16_DOT:
        name, pairs = "llvm.x86.avx512bf16.dpbf16ps.512", BFloat(2 * LANES)
        kind = ir.FunctionType(FLOAT32X16, [FLOAT32X16, pairs, pairs])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [total, *(builder.bitcast(x, pairs) for x in (a, b))])
    contract = ("contract",)
    for float32_bits in (  # of the first and of the second number of each pair
        lambda words: builder.shl(words, int_vector(16)),
        lambda words: builder.and_(words, int_vector(0xFFFF0000)),
    ):
        x, y = (builder.bitcast(float32_bits(words), FLOAT32X16) for words in (a, b))
        total = builder.fadd(total, builder.fmul(x, y, flags=contract), flags=contract)
    return total


def _covered(wide_tile, narrow_tile):
    """Return a product that covers `c` with tiles two vectors wide, or one at an odd end."""

    @njit(**NUMBA_INLINE)
    def gemm(a, b, k_pairs, c, rows, columns):
        """Write `a` @ `b` to `c` [rows, columns], float32, or add it to `c`.

        `a` [rows, k_pairs] and `b` [k_pairs, columns] hold words. Each matrix is a tuple: an array,
        an offset, a row stride, and that of `a` also a column stride. In the flattened array word
        (i, k) of `a` is at offset + i * row stride + k * column stride; columns of `b` and `c` are
        1 apart. Offsets and strides of `a` and `b` count words whatever the dtype of the arrays.
        """
        a_array, a_offset, a_row_stride, a_col_stride = a
        b_array, b_offset, b_row_stride = b
        c_array, c_offset, c_row_stride = c
        for j in range(0, columns, 2 * LANES):
            for i in range(0, rows, _TILE_ROWS):
                a_tile = a_array, a_offset + i * a_row_stride, a_row_stride, a_col_stride
                b_tile = b_array, b_offset + j, b_row_stride
                c_tile = c_array, c_offset + i * c_row_stride + j, c_row_stride
                if columns - j > LANES:
                    wide_tile(a_tile, b_tile, k_pairs, c_tile)
                else:
                    narrow_tile(a_tile, b_tile, k_pairs, c_tile)

    return gemm


gemm = _covered(_tile(2, accumulate=False), _tile(1, accumulate=False))
gemm_accumulate = _covered(_tile(2, accumulate=True), _tile(1, accumulate=True))
