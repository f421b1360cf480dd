"""Sixteen floats as one value, and other single instructions of the processor, for numba's loops.

Numba turns loops over arrays into vector instructions, but it keeps no part of an array in
registers: a sum that a matrix product goes back to for each of its inputs is loaded and stored each
time. A `Floats` is a value of its own and stays there. LLVM makes two or four instructions of one
where the processor's registers are shorter.

Numba's cache does not see a change in this file: `COMPILED_FROM` in the files of the loops has to
change with it, as a test asks.
"""

import operator

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

FLOATS = 16

INT = ir.IntType(32)
VECTOR = ir.VectorType(ir.FloatType(), FLOATS)
INTS = ir.VectorType(INT, FLOATS)
_SHORT = ir.IntType(16)
_ZEROS = [0.0] * FLOATS
_HALVES = ir.VectorType(_SHORT, FLOATS)


def loops_may_use(feature: str) -> bool:
    """Whether numba compiles for a processor that has this, by the name that LLVM gives it."""
    this_one = config.CPU_NAME is None and config.CPU_FEATURES is None and config.ENABLE_AVX
    return bool(this_one and binding.get_host_cpu_features().get(feature, False))


# Some processors round to bfloat16 in one instruction; for others LLVM would ask a library.
_ROUNDS = loops_may_use("avx512bf16")
_SCALES = loops_may_use("avx512f")


class Floats(types.Type):
    """The type of sixteen floats."""

    def __init__(self):
        super().__init__("Floats")


@register_model(Floats)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, VECTOR)


_floats = Floats()


@intrinsic
def load(context, array, index):
    """Those from `index` on of a float32 `array`, counted as if it had one dimension."""

    def make(context, builder, signature, arguments):
        return read(builder, place(context, builder, signature.args[0], *arguments, VECTOR))

    return _floats(array, types.intp), make


@intrinsic
def load_half(context, array, index):
    """The same of bfloat16, as uint16."""

    def make(context, builder, signature, arguments):
        at = place(context, builder, signature.args[0], *arguments, _HALVES)
        halves = read(builder, at, 2)
        upper = builder.shl(builder.zext(halves, INTS), ints(16))
        return builder.bitcast(upper, VECTOR)

    return _floats(array, types.intp), make


@intrinsic
def store(context, array, index, value):
    """Put `value` where `load` finds it."""

    def make(context, builder, signature, arguments):
        at = place(context, builder, signature.args[0], arguments[0], arguments[1], VECTOR)
        builder.store(arguments[2], at).align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, _floats), make


@intrinsic
def store_half(context, array, index, value):
    """Put `value` where `load_half` finds it, `rounded`."""

    def make(context, builder, signature, arguments):
        at = place(context, builder, signature.args[0], arguments[0], arguments[1], _HALVES)
        builder.store(_rounded(builder, arguments[2], FLOATS), at).align = 2
        return context.get_dummy_value()

    return types.none(array, types.intp, _floats), make


@intrinsic
def pair_up(context, array, first, second, words, index):
    """Sixteen `words` (uint32) from `index` on, of bfloat16 numbers of an `array` (uint16).

    Those from `first` on are the lower halves, those from `second` on the upper ones.
    """

    def make(context, builder, signature, arguments):
        array, first, second, words, index = arguments

        def halves(start):
            at = place(context, builder, signature.args[0], array, start, _HALVES)
            return builder.zext(read(builder, at, 2), INTS)

        upper = builder.shl(halves(second), ints(16))
        at = place(context, builder, signature.args[3], words, index, INTS)
        builder.store(builder.or_(halves(first), upper), at).align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, words, types.intp), make


@intrinsic
def store_pair(context, words, index, a, b):
    """Sixteen `words` (uint32) from `index` on: `a`, `rounded`, in lower halves, `b` in upper."""

    def make(context, builder, signature, arguments):
        words, index, *both = arguments
        a, b = (builder.zext(_rounded(builder, value, FLOATS), INTS) for value in both)
        at = place(context, builder, signature.args[0], words, index, INTS)
        builder.store(builder.or_(a, builder.shl(b, ints(16))), at).align = 4
        return context.get_dummy_value()

    return types.none(words, types.intp, _floats, _floats), make


@intrinsic
def turn(context, words, index, across, turned, to, apart):
    """Sixteen rows of sixteen `words` (uint32), `across` apart from `index` on, become columns.

    Rows of those are `apart` in `turned` from `to` on.
    """

    def make(context, builder, signature, arguments):
        words, index, across, turned, to, apart = arguments

        def at(kind, array, start, stride, row: int):
            index = builder.add(start, builder.mul(stride, stride.type(row)))
            return place(context, builder, kind, array, index, INTS)

        kind, to_kind = signature.args[0], signature.args[3]
        rows = [read(builder, at(kind, words, index, across, r)) for r in range(FLOATS)]
        distance = 1
        while distance < FLOATS:  # blocks of so many rows and columns change places
            for r in range(FLOATS):
                if not r & distance:
                    a, b = rows[r], rows[r + distance]
                    lanes = range(FLOATS)
                    low = [n if not n & distance else FLOATS + n - distance for n in lanes]
                    high = [n + distance if not n & distance else FLOATS + n for n in lanes]
                    for row, order in ((r, low), (r + distance, high)):
                        order = ir.Constant(INTS, order)
                        rows[row] = builder.shuffle_vector(a, b, order)
            distance *= 2
        for r, row in enumerate(rows):
            builder.store(row, at(to_kind, turned, to, apart, r)).align = 4
        return context.get_dummy_value()

    return types.none(words, *[types.intp] * 2, turned, *[types.intp] * 2), make


@intrinsic
def spread(context, number):
    """One float32, sixteen times."""

    def make(context, builder, signature, arguments):
        return everywhere(builder, arguments[0], VECTOR)

    return _floats(types.float32), make


def _operation(name: str):
    """Of two `Floats`, or one and a number; LLVM may round a product and a sum of it at once."""

    @intrinsic
    def operation(context, a, b):
        def make(context, builder, signature, both):
            vectors = (
                value if kind == _floats else everywhere(builder, value, VECTOR)
                for kind, value in zip(signature.args, both, strict=True)
            )
            return getattr(builder, name)(*vectors, flags=("contract",))

        return _floats(a, b), make

    def chosen(a, b):
        if _floats in (a, b) and {a, b} <= {_floats, types.float32}:
            return lambda a, b: operation(a, b)
        return None

    return chosen


overload(operator.add)(_operation("fadd"))
overload(operator.sub)(_operation("fsub"))
overload(operator.mul)(_operation("fmul"))


@intrinsic
def larger(context, a, b):
    """The larger ones of `a` and `b`; of `a` where one is NaN."""
    return _floats(_floats, _floats), lambda _, builder, __, both: _larger(builder, *both)


@intrinsic
def smaller(context, a, b):
    """The smaller ones of `a` and `b`; of `a` where one is NaN."""

    def make(context, builder, signature, both):
        a, b = both
        return builder.select(builder.fcmp_ordered("<", b, a), b, a)

    return _floats(_floats, _floats), make


def _lanes(relation: str):
    """The intrinsic for the numbers of `a` whose place is so to `border`; elsewhere the `rest`."""

    @intrinsic
    def lanes(context, a, border, rest):
        def make(context, builder, signature, arguments):
            a, border, rest = arguments
            border = everywhere(builder, builder.trunc(border, INT), INTS)
            places = ir.Constant(INTS, list(range(FLOATS)))
            chosen = builder.icmp_signed(relation, places, border)
            return builder.select(chosen, a, everywhere(builder, rest, VECTOR))

        return _floats(_floats, types.intp, types.float32), make

    return lanes


first_of = _lanes("<")  # the first so many of `a`; behind them the number `rest`
last_from = _lanes(">=")  # `a` from a number of its own on; before it the number `rest`


@intrinsic
def below_zero(context, x, a, b):
    """Those of `a` where `x` is below 0, elsewhere those of `b`."""

    def make(context, builder, signature, arguments):
        x, a, b = arguments
        return builder.select(builder.fcmp_ordered("<", x, ir.Constant(VECTOR, _ZEROS)), a, b)

    return _floats(_floats, _floats, _floats), make


@intrinsic
def inverse(context, a):
    """1 / `a`."""
    ones = ir.Constant(VECTOR, [1.0] * FLOATS)
    return _floats(_floats), lambda _, builder, __, a: builder.fdiv(ones, *a)


def _of_each(name: str):
    """The intrinsic of LLVM of that name, of each of sixteen floats."""

    @intrinsic
    def of_each(context, a):
        def make(context, builder, signature, arguments):
            kind = ir.FunctionType(VECTOR, [VECTOR])
            full = f"llvm.{name}.v{FLOATS}f32"
            called = cgutils.get_or_insert_function(builder.module, kind, full)
            return builder.call(called, arguments)

        return _floats(_floats), make

    return of_each


absolute, floor = _of_each("fabs"), _of_each("floor")


@intrinsic
def times_power(context, a, exponent):
    """`a` times 2 to each of sixteen whole numbers, `exponent`, above -127."""

    def make(context, builder, signature, arguments):
        a, exponent = arguments
        if _SCALES:
            kind = ir.FunctionType(VECTOR, [VECTOR, VECTOR, VECTOR, _SHORT, INT])
            name = "llvm.x86.avx512.mask.scalef.ps.512"
            called = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(called, [a, exponent, a, _SHORT(-1), INT(4)])
        bits = builder.shl(builder.add(builder.fptosi(exponent, INTS), ints(127)), ints(23))
        return builder.fmul(a, builder.bitcast(bits, VECTOR))

    return _floats(_floats, _floats), make


@intrinsic
def dropped(context, index, key, other_key, below, gain):
    """0 or the `gain`, by a hash of each of sixteen indices (uint32) from `index` on.

    0 is for hashes smaller than `below`. The second key keeps apart streams whose first are alike.
    """

    def make(context, builder, signature, arguments):
        *words, gain = arguments
        index, key, other_key, below = (everywhere(builder, word, INTS) for word in words)

        def mixed(bits, shift: int):
            return builder.xor(bits, builder.lshr(bits, ints(shift)))

        bits = builder.xor(builder.add(index, ir.Constant(INTS, list(range(FLOATS)))), key)
        bits = builder.mul(mixed(bits, 16), ints(0x7FEB352D))
        bits = builder.mul(mixed(builder.add(bits, other_key), 15), ints(0x846CA68B))
        kept = builder.icmp_unsigned(">=", bits, below)
        gains = everywhere(builder, gain, VECTOR)
        return builder.select(kept, gains, ir.Constant(VECTOR, _ZEROS))

    word = types.uint32
    return _floats(word, word, word, word, types.float32), make


@intrinsic
def largest(context, a):
    """The largest of sixteen, float32."""
    return types.float32(_floats), lambda _, builder, __, a: _of_all(builder, _larger, *a)


@intrinsic
def total(context, a):
    """The sum of sixteen, float32."""
    return types.float32(_floats), lambda _, builder, __, a: _of_all(
        builder, lambda builder, one, other: builder.fadd(one, other), *a
    )


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

    return types.uint16(types.float32), lambda _, builder, __, x: _rounded(builder, *x)


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not know, or a vector of so many."""

    def __init__(self, count: int | None = None):
        self.count = count

    def _to_string(self) -> str:
        return "bfloat" if self.count is None else f"<{self.count} x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat) and other.count == self.count

    def __hash__(self) -> int:
        return hash((BFloat, self.count))


def ints(number: int):
    """The same integer sixteen times."""
    return ir.Constant(INTS, [number] * FLOATS)


def everywhere(builder, number, kind: ir.VectorType):
    """A vector of that `kind` that has the `number` in each of its places."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, number, INT(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(INTS, [0] * FLOATS))


def place(context, builder, array_type, array, index, kind: ir.Type, unit: ir.Type | None = None):
    """Where a `kind` lies in an `array` from `index` on, which counts `unit`s or else elements."""
    assert array_type.layout == "C", "counted as if it had one dimension"
    data = context.make_array(array_type)(context, builder, array).data
    if unit is not None:
        data = builder.bitcast(data, unit.as_pointer())
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _rounded(builder, numbers, count: int | None = None):
    """The bits of bfloat16 numbers, of one or of `count`."""

    def kind(of):
        return of if count is None else ir.VectorType(of, count)

    def each(of, bits):
        return ir.Constant(kind(of), bits if count is None else [bits] * count)

    if _ROUNDS:
        return builder.bitcast(builder.fptrunc(numbers, BFloat(count)), kind(_SHORT))
    bits = builder.bitcast(numbers, kind(INT))
    odd = builder.and_(builder.lshr(bits, each(INT, 16)), each(INT, 1))
    half = builder.add(builder.add(bits, each(INT, 0x7FFF)), odd)
    upper = builder.trunc(builder.lshr(half, each(INT, 16)), kind(_SHORT))
    is_nan = builder.fcmp_unordered("uno", numbers, numbers)
    return builder.select(is_nan, each(_SHORT, 0x7FC0), upper)


def _of_all(builder, both, vector):
    """One number from sixteen: `both` halves of them become one, and so on."""
    apart = FLOATS // 2
    while apart:
        turned = ir.Constant(INTS, [(i + apart) % FLOATS for i in range(FLOATS)])
        vector = both(builder, vector, builder.shuffle_vector(vector, vector, turned))
        apart //= 2
    return builder.extract_element(vector, INT(0))


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


def read(builder, pointer, alignment: int = 4):
    """What is there; arrays promise no more than the `alignment` of their elements, in bytes."""
    value = builder.load(pointer)
    value.align = alignment
    return value
