"""SIMD intrinsics for numba's loops: vectors of sixteen float32 lanes as values.

Numba turns loops over arrays into vector instructions, but it keeps no part of an array in
registers: an accumulator of a matrix product is loaded and stored in each iteration. A `Float32x16`
is a value of its own and stays in registers.

+, - and * take two vectors, or a vector and a float32. Intrinsics that take an array and an index
count the elements of the flattened array. `bf16.py` has those that read and write bfloat16.

Numba's cache does not see a change in this file: see `llvm.py`.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from ad.models.kernels.llvm import (
    FLOAT32X16,
    INT16,
    INT32,
    INT32X16,
    LANES,
    ZEROS,
    int_vector,
    intrinsic_of,
    load_aligned,
    pointer,
    reduce_lanes,
    select_larger,
    splat,
    target_supports,
)

_HAS_SCALEF = target_supports("avx512f")


class Float32x16(types.Type):
    """Numba's type of a vector of sixteen float32 lanes."""

    def __init__(self):
        super().__init__("Float32x16")


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOAT32X16)


float32x16 = Float32x16()


@intrinsic_of(float32x16, types.Array, types.intp)
def load(builder, array, index):
    """Load sixteen numbers of a float32 `array` from `index` on."""
    return load_aligned(builder, pointer(builder, array, index, FLOAT32X16))


@intrinsic_of(types.none, types.Array, types.intp, float32x16)
def store(builder, array, index, value):
    """Store `value` in a float32 `array` from `index` on."""
    builder.store(value, pointer(builder, array, index, FLOAT32X16)).align = 4


@intrinsic_of(float32x16, types.float32)
def broadcast(builder, number):
    """Return a vector with the float32 `number` in every lane."""
    return splat(builder, number, FLOAT32X16)


def _binary_operator(name: str):
    """Return an overload of an operator of two vectors, or of a vector and a float32.

    `name` is llvmlite's. LLVM may contract a product and a sum to one rounding.
    """

    @intrinsic
    def operation(context, a, b):
        def make(context, builder, signature, both):
            vectors = (
                value if kind == float32x16 else splat(builder, value, FLOAT32X16)
                for kind, value in zip(signature.args, both, strict=True)
            )
            return getattr(builder, name)(*vectors, flags=("contract",))

        return float32x16(a, b), make

    def overloaded(a, b):
        if float32x16 in (a, b) and {a, b} <= {float32x16, types.float32}:
            return lambda a, b: operation(a, b)
        return None

    return overloaded


overload(operator.add)(_binary_operator("fadd"))
overload(operator.sub)(_binary_operator("fsub"))
overload(operator.mul)(_binary_operator("fmul"))


@intrinsic_of(float32x16, float32x16, float32x16)
def maximum(builder, a, b):
    """Return the larger of `a` and `b` in every lane, `a` where one is NaN."""
    return select_larger(builder, a, b)


@intrinsic_of(float32x16, float32x16, float32x16)
def minimum(builder, a, b):
    """Return the smaller of `a` and `b` in every lane, `a` where one is NaN."""
    return builder.select(builder.fcmp_ordered("<", b, a), b, a)


def _lane_mask(relation: str):
    """Return an intrinsic that keeps the lanes of `a` whose number has `relation` to `border`.

    The other lanes are `fill`, float32.
    """

    @intrinsic_of(float32x16, float32x16, types.intp, types.float32)
    def mask(builder, a, border, fill):
        border = splat(builder, builder.trunc(border, INT32), INT32X16)
        lanes = ir.Constant(INT32X16, list(range(LANES)))
        keep = builder.icmp_signed(relation, lanes, border)
        return builder.select(keep, a, splat(builder, fill, FLOAT32X16))

    return mask


mask_tail = _lane_mask("<")  # (a, border, fill): keeps the lanes before `border`
mask_head = _lane_mask(">=")  # (a, border, fill): keeps the lanes from `border` on


@intrinsic_of(float32x16, float32x16, float32x16, float32x16)
def where_negative(builder, x, a, b):
    """Return the lanes of `a` where `x` is below 0 and those of `b` elsewhere."""
    return builder.select(builder.fcmp_ordered("<", x, ZEROS), a, b)


@intrinsic_of(float32x16, float32x16)
def reciprocal(builder, a):
    """Return 1 / `a`."""
    return builder.fdiv(ir.Constant(FLOAT32X16, [1.0] * LANES), a)


def _unary_operator(name: str):
    """Return an intrinsic that applies LLVM's intrinsic `name` to every lane."""

    @intrinsic_of(float32x16, float32x16)
    def operation(builder, a):
        kind = ir.FunctionType(FLOAT32X16, [FLOAT32X16])
        full_name = f"llvm.{name}.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, full_name)
        return builder.call(function, [a])

    return operation


absolute, floor = _unary_operator("fabs"), _unary_operator("floor")


@intrinsic_of(float32x16, float32x16, float32x16)
def ldexp(builder, a, exponent):
    """Return `a` * 2 ** `exponent` for integers `exponent` above -127, given as float32."""
    if _HAS_SCALEF:
        kind = ir.FunctionType(FLOAT32X16, [FLOAT32X16, FLOAT32X16, FLOAT32X16, INT16, INT32])
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [a, exponent, a, INT16(-1), INT32(4)])
    biased = builder.add(builder.fptosi(exponent, INT32X16), int_vector(127))
    bits = builder.shl(biased, int_vector(23))
    return builder.fmul(a, builder.bitcast(bits, FLOAT32X16))


@intrinsic_of(float32x16, *[types.uint32] * 4, types.float32)
def dropout_mask(builder, index, key0, key1, threshold, scale):
    """Return 0 or `scale` for each of sixteen indices (uint32) from `index` on.

    A lane is 0 if a hash of its index and both keys (uint32) is below `threshold`. The second key
    separates masks whose first keys are equal.
    """
    words = index, key0, key1, threshold
    index, key0, key1, threshold = (splat(builder, word, INT32X16) for word in words)

    def xor_shifted(bits, shift: int):
        return builder.xor(bits, builder.lshr(bits, int_vector(shift)))

    bits = builder.xor(builder.add(index, ir.Constant(INT32X16, list(range(LANES)))), key0)
    bits = builder.mul(xor_shifted(bits, 16), int_vector(0x7FEB352D))
    bits = builder.mul(xor_shifted(builder.add(bits, key1), 15), int_vector(0x846CA68B))
    keep = builder.icmp_unsigned(">=", bits, threshold)
    return builder.select(keep, splat(builder, scale, FLOAT32X16), ZEROS)


@intrinsic_of(types.float32, float32x16)
def reduce_max(builder, a):
    """Return the largest lane of `a`, float32."""
    return reduce_lanes(builder, select_larger, a)


@intrinsic_of(types.float32, float32x16)
def reduce_sum(builder, a):
    """Return the sum of the lanes of `a`, float32."""
    return reduce_lanes(builder, lambda builder, one, other: builder.fadd(one, other), a)


@intrinsic_of(types.int64, types.Array, types.int64)
def atomic_fetch_add(builder, counter, amount):
    """Add `amount` to `counter`, int64 [1], atomically, and return its previous value."""
    return builder.atomic_rmw("add", counter, amount, "monotonic")
