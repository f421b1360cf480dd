"""SIMD intrinsics for bfloat16: conversion to and from float32, pairs, transposition.

Numbers are stored as uint16. A word (uint32) holds a pair of them, the first in its lower half.
Intrinsics that take an array and an index count the elements of the flattened array.

Numba's cache does not see a change in this file: see `llvm.py`.
"""

from llvmlite import ir
from numba import types

from ad.models.kernels.llvm import (
    FLOAT32X16,
    INT16,
    INT16X16,
    INT32,
    INT32X16,
    LANES,
    int_vector,
    intrinsic_of,
    load_aligned,
    pointer,
    target_supports,
)
from ad.models.kernels.simd import float32x16

# Some processors round to bfloat16 in one instruction; for others LLVM would call a library.
_HAS_BF16 = target_supports("avx512bf16")


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not define, or a vector of `count` of them."""

    def __init__(self, count: int | None = None):
        self.count = count

    def _to_string(self) -> str:
        return "bfloat" if self.count is None else f"<{self.count} x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat) and other.count == self.count

    def __hash__(self) -> int:
        return hash((BFloat, self.count))


def round_to_bf16(builder, numbers, count: int | None = None):
    """Return the bfloat16 bits, int16, of a float32 or of a vector of `count` of them."""

    def kind(element):
        return element if count is None else ir.VectorType(element, count)

    def constant(element, bits):
        return ir.Constant(kind(element), bits if count is None else [bits] * count)

    if _HAS_BF16:
        return builder.bitcast(builder.fptrunc(numbers, BFloat(count)), kind(INT16))
    bits = builder.bitcast(numbers, kind(INT32))
    odd = builder.and_(builder.lshr(bits, constant(INT32, 16)), constant(INT32, 1))
    rounded = builder.add(builder.add(bits, constant(INT32, 0x7FFF)), odd)
    upper = builder.trunc(builder.lshr(rounded, constant(INT32, 16)), kind(INT16))
    is_nan = builder.fcmp_unordered("uno", numbers, numbers)
    return builder.select(is_nan, constant(INT16, 0x7FC0), upper)


@intrinsic_of(types.uint16, types.float32)
def to_bf16(builder, number):
    """Return the bfloat16 nearest to a float32, ties to even, as uint16; NaN stays NaN.

    Numbers below the smallest normal number, 2 ** -126, may become 0.
    """
    return round_to_bf16(builder, number)


@intrinsic_of(types.float32, types.uint16)
def from_bf16(builder, number):
    """Return the float32 with the value of one bfloat16 `number` (uint16), its upper half."""
    bits = builder.shl(builder.zext(number, INT32), INT32(16))
    return builder.bitcast(bits, ir.FloatType())


@intrinsic_of(float32x16, types.Array, types.intp)
def load_bf16(builder, array, index):
    """Load sixteen numbers of a bfloat16 `array` from `index` on, as float32."""
    bits = load_aligned(builder, pointer(builder, array, index, INT16X16), 2)
    upper = builder.shl(builder.zext(bits, INT32X16), int_vector(16))
    return builder.bitcast(upper, FLOAT32X16)


@intrinsic_of(types.none, types.Array, types.intp, float32x16)
def store_bf16(builder, array, index, value):
    """Round `value` to bfloat16 and store it in `array` from `index` on."""
    target = pointer(builder, array, index, INT16X16)
    builder.store(round_to_bf16(builder, value, LANES), target).align = 2


@intrinsic_of(types.none, types.Array, types.intp, float32x16, float32x16)
def store_bf16_pairs(builder, words, index, low, high):
    """Round `low` and `high` to bfloat16 and store them as halves of `words` from `index` on."""
    low, high = (builder.zext(round_to_bf16(builder, x, LANES), INT32X16) for x in (low, high))
    target = pointer(builder, words, index, INT32X16)
    builder.store(builder.or_(low, builder.shl(high, int_vector(16))), target).align = 4


@intrinsic_of(types.none, types.Array, types.intp, types.intp, types.Array, types.intp)
def interleave_bf16(builder, array, low, high, words, index):
    """Store sixteen `words` (uint32) from `index` on, pairs of numbers of a bfloat16 `array`.

    Lower halves are its numbers from `low` on, upper halves those from `high` on.
    """

    def load_bits(start):
        source = pointer(builder, array, start, INT16X16)
        return builder.zext(load_aligned(builder, source, 2), INT32X16)

    upper = builder.shl(load_bits(high), int_vector(16))
    target = pointer(builder, words, index, INT32X16)
    builder.store(builder.or_(load_bits(low), upper), target).align = 4


@intrinsic_of(types.none, *[types.Array, types.intp, types.intp] * 2)
def transpose16(builder, source, source_index, source_stride, target, target_index, target_stride):
    """Transpose a 16 x 16 tile of words (uint32) from `source` to `target`.

    Each tile begins at its index; its rows are its stride apart.
    """

    def row_pointer(array, start, stride, row: int):
        index = builder.add(start, builder.mul(stride, stride.type(row)))
        return pointer(builder, array, index, INT32X16)

    tile = source, source_index, source_stride
    rows = [load_aligned(builder, row_pointer(*tile, r)) for r in range(LANES)]
    distance = 1
    while distance < LANES:  # swap off-diagonal blocks of `distance` rows and columns
        for r in range(LANES):
            if not r & distance:
                a, b = rows[r], rows[r + distance]
                lanes = range(LANES)
                low = [n if not n & distance else LANES + n - distance for n in lanes]
                high = [n + distance if not n & distance else LANES + n for n in lanes]
                for row, order in ((r, low), (r + distance, high)):
                    order = ir.Constant(INT32X16, order)
                    rows[row] = builder.shuffle_vector(a, b, order)
        distance *= 2
    tile = target, target_index, target_stride
    for r, row in enumerate(rows):
        builder.store(row, row_pointer(*tile, r)).align = 4
