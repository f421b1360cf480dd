"""Sixteen floats as one value, and other single instructions of the processor, for numba's loops.

Numba turns loops over arrays into vector instructions, but it keeps no part of an array in
registers: a sum that a matrix product goes back to for each of its inputs is loaded and stored each
time. A `Floats` is a value of its own and stays there. LLVM makes two or four instructions of one
where the processor's registers are shorter.

Numba's cache does not see a change in this file: `VECTORS` in `ad/transformer_kernel.py` has to
change with it, as a test asks.
"""

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic, models, register_model

FLOATS = 16

# Some processors round to bfloat16 in one instruction; for others LLVM would ask a library.
_THIS_PROCESSOR = config.CPU_NAME is None and config.CPU_FEATURES is None and config.ENABLE_AVX
_ROUNDS = _THIS_PROCESSOR and binding.get_host_cpu_features().get("avx512bf16", False)
_SHORT, _INT = ir.IntType(16), ir.IntType(32)
_VECTOR = ir.VectorType(ir.FloatType(), FLOATS)
_INTS = ir.VectorType(_INT, FLOATS)
_HALVES = ir.VectorType(_SHORT, FLOATS)


class Floats(types.Type):
    """The type of sixteen floats."""

    def __init__(self):
        super().__init__("Floats")


@register_model(Floats)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


_floats = Floats()


@intrinsic
def load(context, array, index):
    """Those from `index` on of a float32 `array`, counted as if it had one dimension."""

    def make(context, builder, signature, arguments):
        return _load(context, builder, signature, arguments, _VECTOR, 4)

    return _floats(array, types.intp), make


@intrinsic
def load_half(context, array, index):
    """The same of bfloat16, as uint16."""

    def make(context, builder, signature, arguments):
        halves = _load(context, builder, signature, arguments, _HALVES, 2)
        upper = builder.shl(builder.zext(halves, _INTS), ir.Constant(_INTS, [16] * FLOATS))
        return builder.bitcast(upper, _VECTOR)

    return _floats(array, types.intp), make


@intrinsic
def store(context, array, index, value):
    """Put `value` where `load` finds it."""

    def make(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments, _VECTOR)
        builder.store(arguments[2], place).align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, _floats), make


@intrinsic
def spread(context, number):
    """One float32, sixteen times."""

    def make(context, builder, signature, arguments):
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], _INT(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * FLOATS))

    return _floats(types.float32), make


@intrinsic
def plus(context, a, b):
    """`a` + `b`."""
    return _floats(_floats, _floats), lambda _, builder, __, both: builder.fadd(*both)


@intrinsic
def times(context, a, b):
    """`a` * `b`."""
    return _floats(_floats, _floats), lambda _, builder, __, both: builder.fmul(*both)


@intrinsic
def times_plus(context, a, b, c):
    """`a` * `b` + `c`, rounded once where the processor can."""

    def make(context, builder, signature, arguments):
        a, b, c = arguments
        once = ("contract",)
        return builder.fadd(builder.fmul(a, b, flags=once), c, flags=once)

    return _floats(_floats, _floats, _floats), make


@intrinsic
def larger(context, a, b):
    """The larger ones of `a` and `b`."""
    return _floats(_floats, _floats), lambda _, builder, __, both: _larger(builder, *both)


@intrinsic
def largest(context, a):
    """The largest of sixteen, float32."""

    def make(context, builder, signature, arguments):
        most, apart = arguments[0], FLOATS // 2
        while apart:
            other = ir.Constant(_INTS, [(i + apart) % FLOATS for i in range(FLOATS)])
            most = _larger(builder, most, builder.shuffle_vector(most, most, other))
            apart //= 2
        return builder.extract_element(most, _INT(0))

    return types.float32(_floats), make


@intrinsic
def take(context, counter, amount):
    """Add `amount` to `counter`, int64 [1], at once for all threads; what it was before."""

    def make(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, arguments[1], "monotonic")

    return types.int64(counter, types.int64), make


@intrinsic
def as_float(context, bits):
    """The float32 of these bits, int32."""
    return types.float32(types.int32), lambda _, builder, __, bits: builder.bitcast(
        bits[0], ir.FloatType()
    )


@intrinsic
def rounded(context, number):
    """The bfloat16 nearest to a float32, the even one of two, as uint16; NaN stays NaN.

    What is smaller than the smallest normal number, 2 ** -126, may become 0.
    """

    def make(context, builder, signature, arguments):
        if _ROUNDS:
            return builder.bitcast(builder.fptrunc(arguments[0], _BFloat()), _SHORT)
        bits = builder.bitcast(arguments[0], _INT)
        odd = builder.and_(builder.lshr(bits, _INT(16)), _INT(1))
        upper = builder.lshr(builder.add(builder.add(bits, _INT(0x7FFF)), odd), _INT(16))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.select(is_nan, _SHORT(0x7FC0), builder.trunc(upper, _SHORT))

    return types.uint16(types.float32), make


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


def _load(context, builder, signature, arguments, kind, alignment):
    value = builder.load(_place(context, builder, signature, arguments, kind))
    value.align = alignment
    return value


def _place(context, builder, signature, arguments, kind):
    assert signature.args[0].layout == "C", "counted as if it had one dimension"
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), kind.as_pointer())
