"""Sixteen floats as one numba value, so that a kernel can keep its state in vector registers.

Numba leaves vectorising to LLVM's loop vectoriser, which works on arrays: the running transmittance and
colour of 64 pixels would go to memory and back for each splat. Here a vector is a numba type whose local
variables LLVM turns into registers (AVX-512: one each; AVX2: two; NEON: four). Nothing is compiled by
hand and any CPU that LLVM knows will do.

All arithmetic is plain IEEE single precision without fast-math flags, except that `fma` is fused where the
CPU can. Two kernels that repeat the same operations therefore get the same bits.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import lower_builtin, models, register_model

LANES = 16
#: An intrinsic is called in kernels without its first argument, which type checkers cannot know.
intrinsic: Any = extending.intrinsic
_F32 = ir.FloatType()
_I32 = ir.IntType(32)


class Vector(types.Type):
    """`LANES` float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class Mask(types.Type):
    """`LANES` booleans."""

    def __init__(self) -> None:
        super().__init__(name=f"mask{LANES}")


class Sums(types.Type):
    """Eight float32 values: the totals of eight vectors."""

    def __init__(self) -> None:
        super().__init__(name="float32x8")


vector, mask, sums = Vector(), Mask(), Sums()


def _ir_type(element: ir.Type, n: int = LANES) -> ir.VectorType:
    return ir.VectorType(element, n)


_VECTOR, _INTS, _SUMS = _ir_type(_F32), _ir_type(_I32), _ir_type(_F32, 8)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _VECTOR)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _ir_type(ir.IntType(1)))


@register_model(Sums)
class _SumsModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _SUMS)


def _operator(function, signature_of, emit):
    """Teach numba one binary operator on these types."""
    result, left, right = signature_of

    class Template(ConcreteTemplate):
        cases = [result(left, right)]  # noqa: RUF012

    infer_global(function)(Template)

    @lower_builtin(function, left, right)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


for _function, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operator(_function, (vector, vector, vector), lambda b, x, y, n=_name: getattr(b, n)(x, y))
for _function, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _operator(_function, (mask, vector, vector), lambda b, x, y, s=_sign: b.fcmp_ordered(s, x, y))
_operator(operator.and_, (mask, mask, mask), lambda b, x, y: b.and_(x, y))
_operator(operator.add, (sums, sums, sums), lambda b, x, y: b.fadd(x, y))


def _constant(value: float, n: int = LANES) -> ir.Constant:
    return ir.Constant(_ir_type(_F32, n), [float(value)] * n)


def _int_constant(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * LANES)


def _splat(builder, scalar):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), _int_constant(0))


def _shuffle(builder, a, b, lanes):
    order = ir.Constant(_ir_type(_I32, len(lanes)), [_I32(lane) for lane in lanes])
    return builder.shuffle_vector(a, b, order)


def _declare(builder, name, result, *arguments):
    function_type = ir.FunctionType(result, arguments)
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, function_type, name=name)


def _fma(builder, a, b, c):
    # fmuladd, not fma: on a CPU without the instruction it becomes a product and a sum, not a library call.
    function = _declare(builder, "llvm.fmuladd.v16f32", _VECTOR, _VECTOR, _VECTOR, _VECTOR)
    return builder.call(function, [a, b, c])


def _pointer(context, builder, array_type, array, index, target):
    """Address of element `index` of a 1-D array; no bounds check and no wrap-around of negative indices."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def _is_floats(array_type) -> bool:
    return isinstance(array_type, types.Array) and array_type.dtype == types.float32 and array_type.ndim == 1


@intrinsic
def splat(typingctx, scalar):
    """All lanes equal to a float32 scalar."""

    def codegen(context, builder, sig, args):
        return _splat(builder, context.cast(builder, args[0], sig.args[0], types.float32))

    return vector(scalar), codegen


@intrinsic
def splat_at(typingctx, array, index):
    """All lanes equal to `array[index]` of a flat float32 array."""
    if not _is_floats(array):
        return None

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _F32)
        return _splat(builder, builder.load(pointer, align=4))

    return vector(array, types.intp), codegen


@intrinsic
def load(typingctx, array, index):
    """The lanes at `array[index : index + 16]`."""
    if not _is_floats(array):
        return None

    def codegen(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig.args[0], args[0], args[1], _VECTOR), align=4)

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write the lanes to `array[index : index + 16]`."""
    if not _is_floats(array):
        return None

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _VECTOR)
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def accumulate(typingctx, array, index, value):
    """Add eight totals to `array[index : index + 8]`."""
    if not _is_floats(array):
        return None

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _SUMS)
        builder.store(builder.fadd(builder.load(pointer, align=4), args[2]), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, sums), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, fused where the CPU has the instruction."""

    def codegen(context, builder, sig, args):
        return _fma(builder, *args)

    return vector(vector, vector, vector), codegen


@intrinsic
def fnma(typingctx, a, b, c):
    """c - a * b, fused where the CPU has the instruction."""

    def codegen(context, builder, sig, args):
        return _fma(builder, builder.fneg(args[0]), args[1], args[2])

    return vector(vector, vector, vector), codegen


@intrinsic
def select(typingctx, condition, a, b):
    """Lane-wise `a if condition else b`."""

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return vector(mask, vector, vector), codegen


@intrinsic
def any_lane(typingctx, condition):
    """True if any lane of the mask is set."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(mask), codegen


@intrinsic
def minimum(typingctx, a, b):
    """Lane-wise smaller value."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return vector(vector, vector), codegen


@intrinsic
def maximum(typingctx, a, b):
    """Lane-wise larger value."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return vector(vector, vector), codegen


@intrinsic
def negative_magnitude(typingctx, a):
    """-|a| in every lane: one bit operation."""

    def codegen(context, builder, sig, args):
        bits = builder.or_(builder.bitcast(args[0], _INTS), _int_constant(-0x80000000))
        return builder.bitcast(bits, _VECTOR)

    return vector(vector), codegen


@intrinsic
def magnitude(typingctx, a):
    """|a| in every lane: one bit operation."""

    def codegen(context, builder, sig, args):
        bits = builder.and_(builder.bitcast(args[0], _INTS), _int_constant(0x7FFFFFFF))
        return builder.bitcast(bits, _VECTOR)

    return vector(vector), codegen


@intrinsic
def reciprocal(typingctx, a):
    """1 / a, by division: AVX-512's estimate and a Newton step measured 7 % slower in the backward pass."""

    def codegen(context, builder, sig, args):
        return builder.fdiv(_constant(1.0), args[0])

    return vector(vector), codegen


#: Adding this rounds a float of small magnitude to an integer held in the low bits.
_ROUND = 12582912.0
#: 2^f on [-1/2, 1/2], lowest power first: minimax in relative error (Lawson's iteration in float64), rounded
#: to float32; off by at most 1.6e-7.
EXP2_COEFFICIENTS = (
    1.0000001192092896,
    0.6931469440460205,
    0.24022120237350464,
    0.05550713092088699,
    0.009675540961325169,
    0.001327647129073739,
)


@intrinsic
def exp2(typingctx, power):
    """2^power for -126 < power < 127; other lanes hold garbage, to be masked by the caller."""

    def codegen(context, builder, sig, args):
        shifted = builder.fadd(args[0], _constant(_ROUND))
        fraction = builder.fsub(args[0], builder.fsub(shifted, _constant(_ROUND)))
        result = _constant(EXP2_COEFFICIENTS[-1])
        for coefficient in EXP2_COEFFICIENTS[-2::-1]:
            result = _fma(builder, result, fraction, _constant(coefficient))
        whole = builder.shl(builder.bitcast(shifted, _INTS), _int_constant(23))
        return builder.bitcast(builder.add(builder.bitcast(result, _INTS), whole), _VECTOR)

    return vector(vector), codegen


@intrinsic
def total(typingctx, a):
    """Sum of the lanes, by halves."""

    def codegen(context, builder, sig, args):
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            low = _shuffle(builder, value, value, list(range(width)))
            high = _shuffle(builder, value, value, list(range(width, 2 * width)))
            value = builder.fadd(low, high)
        return builder.extract_element(value, _I32(0))

    return types.float32(vector), codegen


@intrinsic
def totals(typingctx, a, b, c, d, e, f, g, h):
    """Sums of the lanes of eight vectors at once: a transpose and 15 additions in place of 8 x 4."""

    def codegen(context, builder, sig, args):
        half = [
            builder.fadd(_shuffle(builder, v, v, list(range(8))), _shuffle(builder, v, v, list(range(8, 16))))
            for v in args
        ]

        # Blocks of four lanes stay apart until the last step: crossing them costs the CPU more.
        def merge(x, y):
            even = _shuffle(builder, x, y, [0, 2, 8, 10, 4, 6, 12, 14])
            odd = _shuffle(builder, x, y, [1, 3, 9, 11, 5, 7, 13, 15])
            return builder.fadd(even, odd)

        pairs = [merge(half[i], half[i + 1]) for i in (0, 2, 4, 6)]
        low, high = merge(pairs[0], pairs[1]), merge(pairs[2], pairs[3])
        left = _shuffle(builder, low, high, [0, 1, 2, 3, 8, 9, 10, 11])
        right = _shuffle(builder, low, high, [4, 5, 6, 7, 12, 13, 14, 15])
        return builder.fadd(left, right)

    return sums(*[vector] * 8), codegen


def _channels(mode) -> int:
    """Channels are given by the length of a tuple: a number that is part of a type."""
    return mode.count if isinstance(mode, types.UniTuple) else 0


@intrinsic
def store_rows(typingctx, array, first, second, mode, a, b, c, d):
    """Interleave the first `len(mode)` vectors; row one goes to `array[first:]`, row two to `array[second:]`.

    A vector is two rows of eight pixels; `mode` is a tuple of 1, 3 or 4 integers.
    """
    channels = _channels(mode)
    if not _is_floats(array) or channels not in (1, 3, 4):
        return None

    def codegen(context, builder, sig, args):
        planes = [*args[4 : 4 + channels], *[args[3 + channels]] * (4 - channels)]
        both = [*range(16), *range(16, 32)]
        low, high = (
            _shuffle(builder, planes[0], planes[1], both),
            _shuffle(builder, planes[2], planes[3], both),
        )
        for row in (0, 1):
            lanes = [16 * channel + 8 * row + pixel for pixel in range(8) for channel in range(channels)]
            target = _pointer(
                context, builder, sig.args[0], args[0], args[1 + row], _ir_type(_F32, len(lanes))
            )
            builder.store(_shuffle(builder, low, high, lanes), target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, mode, *[vector] * 4), codegen


@intrinsic
def load_rows(typingctx, array, first, second, channel, mode):
    """The `channel`-th (a literal) of `len(mode)` interleaved channels of two rows of eight pixels."""
    channels = _channels(mode)
    if not _is_floats(array) or not isinstance(channel, types.IntegerLiteral) or not channels:
        return None
    # A kernel names all four channels and uses those it has.
    which = min(channel.literal_value, channels - 1)

    def codegen(context, builder, sig, args):
        rows = []
        for index in args[1:3]:
            run = _ir_type(_F32, 8 * channels)
            values = builder.load(_pointer(context, builder, sig.args[0], args[0], index, run), align=4)
            rows.append(_shuffle(builder, values, values, [channels * pixel + which for pixel in range(8)]))
        return _shuffle(builder, rows[0], rows[1], list(range(16)))

    return vector(array, types.intp, types.intp, channel, mode), codegen


@intrinsic
def append_hits(typingctx, first, width, index, value, numbers, count):
    """Append to `numbers` each of index .. index + 15 whose range holds `value`; return the new count.

    Lane i is a hit if first[index + i] <= value < first[index + i] + width[index + i] (int32 arrays).
    `numbers` needs room for sixteen more.
    """
    ints = types.Array(types.int32, 1, "C")
    if first != ints or width != ints or numbers != ints:
        return None

    def codegen(context, builder, sig, args):
        firsts = builder.load(_pointer(context, builder, sig.args[0], args[0], args[2], _INTS), align=4)
        widths = builder.load(_pointer(context, builder, sig.args[1], args[1], args[2], _INTS), align=4)

        def all_lanes(scalar):
            one = builder.insert_element(ir.Constant(_INTS, ir.Undefined), scalar, _I32(0))
            return builder.shuffle_vector(one, ir.Constant(_INTS, ir.Undefined), _int_constant(0))

        hits = builder.icmp_unsigned("<", builder.sub(all_lanes(args[3]), firsts), widths)
        steps = ir.Constant(_INTS, list(range(LANES)))
        values = builder.add(all_lanes(builder.trunc(args[2], _I32)), steps)
        # Packed in a register and stored whole: storing only the chosen lanes is microcode on some CPUs.
        bits = ir.VectorType(ir.IntType(1), LANES)
        compress = _declare(builder, "llvm.experimental.vector.compress.v16i32", _INTS, _INTS, bits, _INTS)
        packed = builder.call(compress, [values, hits, ir.Constant(_INTS, ir.Undefined)])
        builder.store(packed, _pointer(context, builder, sig.args[4], args[4], args[5], _INTS), align=4)
        mask_bits = builder.bitcast(hits, ir.IntType(LANES))
        popcount = _declare(builder, "llvm.ctpop.i16", ir.IntType(LANES), ir.IntType(LANES))
        found = builder.zext(builder.call(popcount, [mask_bits]), ir.IntType(64))
        return builder.add(args[5], found)

    return types.int64(first, width, types.int64, types.int32, numbers, types.int64), codegen


@intrinsic
def take_next(typingctx, counter):
    """Atomically return `counter[0]` and add one to it: hands out work to threads."""

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen
