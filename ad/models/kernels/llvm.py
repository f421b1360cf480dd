"""LLVM types and helpers from which `simd.py`, `bf16.py` and `gemm.py` build instructions.

Helpers emit instructions at the position of llvmlite's `builder` and return LLVM values.

Numba's cache does not see a change in this file: `COMPILED_FROM` in the files of the loops has to
change with it, as a test asks.
"""

import functools
from collections.abc import Callable

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

LANES = 16  # of a vector: LLVM splits it where the processor's registers are shorter

INT16, INT32 = ir.IntType(16), ir.IntType(32)
INT16X16 = ir.VectorType(INT16, LANES)
INT32X16 = ir.VectorType(INT32, LANES)
FLOAT32X16 = ir.VectorType(ir.FloatType(), LANES)
ZEROS = ir.Constant(FLOAT32X16, [0.0] * LANES)


def target_supports(feature: str) -> bool:
    """Return whether numba compiles for this processor and it has LLVM's target `feature`."""
    is_host = config.CPU_NAME is None and config.CPU_FEATURES is None and config.ENABLE_AVX
    return bool(is_host and binding.get_host_cpu_features().get(feature, False))


def intrinsic_of(result, *arguments) -> Callable:
    """Return a decorator: it makes an intrinsic of a function of `builder` and LLVM values.

    `result` and `arguments` are numba's types of what the function returns and of the values;
    types.Array stands for an array of any type, whose value is the pointer to its data.
    """

    def decorate(emit: Callable):
        def make(context, builder, signature, values):
            values = list(values)
            for i, kind in enumerate(signature.args):
                if isinstance(kind, types.Array):
                    values[i] = array_data(context, builder, kind, values[i])
            made = emit(builder, *values)
            return context.get_dummy_value() if result is types.none else made

        @functools.wraps(emit)
        def typed(context, *given):
            both = zip(arguments, given, strict=True)
            return result(*(own if kind is types.Array else kind for kind, own in both)), make

        return intrinsic(typed)

    return decorate


def int_vector(number: int) -> ir.Constant:
    """Return an int32 constant with `number` in every lane."""
    return ir.Constant(INT32X16, [number] * LANES)


def splat(builder, number, vector_type: ir.VectorType):
    """Return a vector with the scalar `number` in every lane."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    first_lane = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first_lane, undefined, ir.Constant(INT32X16, [0] * LANES))


def array_data(context, builder, array_type, array):
    """Return the pointer to the first element of a C-contiguous `array`."""
    assert array_type.layout == "C", "counted as if it had one dimension"
    return context.make_array(array_type)(context, builder, array).data


def pointer(builder, data, index, kind: ir.Type, unit: ir.Type | None = None):
    """Return a pointer to a `kind` at `index` of the array whose `data` is given.

    `index` counts the elements of the flattened array, or `unit`s if given.
    """
    if unit is not None:
        data = builder.bitcast(data, unit.as_pointer())
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def load_aligned(builder, source, alignment: int = 4):
    """Load from the pointer `source`, aligned to `alignment` bytes: the size of an element."""
    value = builder.load(source)
    value.align = alignment
    return value


def select_larger(builder, a, b):
    """Return the larger of `a` and `b` in every lane, `a` where one is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


def reduce_lanes(builder, combine, vector):
    """Return the lanes of `vector` combined to one number, pairwise in log2(`LANES`) steps."""
    distance = LANES // 2
    while distance:
        rotated = ir.Constant(INT32X16, [(i + distance) % LANES for i in range(LANES)])
        vector = combine(builder, vector, builder.shuffle_vector(vector, vector, rotated))
        distance //= 2
    return builder.extract_element(vector, INT32(0))
