# SPDX-License-Identifier: Apache-2.0
"""The instructions without side effects: from an opcode to a function of NumPy arrays.

`find(opcode)` gives (function, types of the sources, type of the result) and raises
NotImplementedError for what is not in the table; nothing is executed by guess.
"""

import re
from functools import cache

import numpy as np

from ptx import arithmetic as a

DTYPES = {"pred": np.dtype(bool)} | {
    f"{letter}{bits}": np.dtype(f"{kind}{bits // 8}")
    for letter, kind in zip("busf", "uuif", strict=True)
    for bits in (8, 16, 32, 64)
    if (letter, bits) != ("f", 8)
}
_TABLE = []


def _op(pattern):
    def register(build):
        _TABLE.append((re.compile(pattern), build))
        return build

    return register


@cache
def find(opcode):
    for pattern, build in _TABLE:
        if match := pattern.fullmatch(opcode):
            return build(*match.groups())
    raise NotImplementedError(opcode)


def _quiet(result):
    """A computed float32 NaN is always the same on a GPU."""
    if result.dtype == np.float32:
        result = np.where(np.isnan(result), np.uint32(0x7FFFFFFF).view(np.float32), result)
    return result


# ---- floating point ------------------------------------------------------------------------------


@_op(r"(add|sub|mul|div)(?:\.rn)?\.(f32|f64)")
def _(name, kind):
    f = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name]
    return lambda x, y: _quiet(f(x, y)), (kind, kind), kind


@_op(r"(?:fma|mad)\.rn\.(f32|f64)")
def _(kind):
    f = a.fma32 if kind == "f32" else a.fma64
    return lambda x, y, z: _quiet(f(x, y, z)), (kind,) * 3, kind


@_op(r"(sqrt|rcp)\.rn\.(f32|f64)")
def _(name, kind):
    f = np.sqrt if name == "sqrt" else lambda x: x.dtype.type(1) / x
    return lambda x: _quiet(f(x)), (kind,), kind


@_op(r"(min|max)\.(f32|f64)")
def _(name, kind):
    f = a.smaller if name == "min" else a.larger
    return lambda x, y: _quiet(f(x, y)), (kind, kind), kind


@_op(r"(neg|abs)\.f(32|64)")
def _(name, bits):
    kind, sign = f"b{bits}", DTYPES[f"b{bits}"].type(1 << int(bits) - 1)
    f = (lambda x: x ^ sign) if name == "neg" else (lambda x: x & ~sign)
    return f, (kind,), kind


@_op(r"copysign\.f(32|64)")
def _(bits):
    kind, sign = f"b{bits}", DTYPES[f"b{bits}"].type(1 << int(bits) - 1)
    return lambda x, y: (y & ~sign) | (x & sign), (kind, kind), kind


# ---- conversions ---------------------------------------------------------------------------------


@_op(r"cvt(?:\.(rn|rni|rzi|rmi|rpi))?\.([usf]\d+)\.([usf]\d+)")
def _(rounding, to, source):
    kinds = source[0] + to[0] if "f" in source[0] + to[0] else "ii"
    wider = int(to[1:]) > int(source[1:])
    needed = {"ff": None if wider else "rn", "ii": None}.get(kinds, "rn")
    if kinds in ("fu", "fs") or (kinds == "ff" and to == source):
        allowed = rounding in a.ROUND
    else:
        allowed = rounding == needed
    if not allowed or "f16" in (source, to):
        raise NotImplementedError(f"cvt.{rounding}.{to}.{source}")
    dtype = DTYPES[to]
    if kinds in ("fu", "fs"):
        return lambda x: a.float_to_integer(x, dtype, rounding), (source,), to
    if to == source and kinds == "ff":
        return lambda x: _quiet(a.ROUND[rounding](x)), (source,), to
    return lambda x: x.astype(dtype), (source,), to


@_op(r"cvta(?:\.to)?\.(?:global|local|shared|const|param)\.(u64|u32)")
def _(kind):
    return lambda x: x, (kind,), kind


@_op(r"mov\.(\w+)")
def _(kind):
    return lambda x: x, (kind,), kind


# ---- integers ------------------------------------------------------------------------------------


@_op(r"(add|sub|min|max)\.([us]\d+)")
def _(name, kind):
    f = {"add": np.add, "sub": np.subtract, "min": np.minimum, "max": np.maximum}[name]
    return f, (kind, kind), kind


@_op(r"(neg|abs)\.(s\d+)")
def _(name, kind):
    return np.negative if name == "neg" else np.abs, (kind,), kind


@_op(r"(mul|mad)\.(lo|hi)\.([us]\d+)")
def _(name, half, kind):
    f = np.multiply if half == "lo" else a.multiply_high
    if name == "mul":
        return lambda x, y: f(*np.broadcast_arrays(x, y)), (kind, kind), kind
    return lambda x, y, z: f(*np.broadcast_arrays(x, y)) + z, (kind,) * 3, kind


@_op(r"(mul|mad)\.wide\.([us])(16|32)")
def _(name, letter, bits):
    kind, to = letter + bits, f"{letter}{2 * int(bits)}"
    dtype = DTYPES[to]
    if name == "mul":
        return lambda x, y: x.astype(dtype) * y.astype(dtype), (kind, kind), to
    return lambda x, y, z: x.astype(dtype) * y.astype(dtype) + z, (kind, kind, to), to


@_op(r"(div|rem)\.([us]\d+)")
def _(name, kind):
    which = 0 if name == "div" else 1
    return lambda x, y: a.divide(x, y)[which], (kind, kind), kind


@_op(r"(and|or|xor|not)\.(pred|b\d+)")
def _(name, kind):
    if name == "not":
        return np.invert, (kind,), kind
    f = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name]
    return f, (kind, kind), kind


@_op(r"(shl|shr)\.([bus]\d+)")
def _(name, kind):
    return a.shift_left if name == "shl" else a.shift_right, (kind, "u32"), kind


@_op(r"shf\.([lr])\.(wrap|clamp)\.b32")
def _(side, mode):
    def f(x, y, n):
        return a.funnel_shift(x, y, n, left=side == "l", clamp=mode == "clamp")

    return f, ("b32", "b32", "u32"), "b32"


@_op(r"bfe\.([us]\d+)")
def _(kind):
    return a.extract_field, (kind, "u32", "u32"), kind


@_op(r"bfi\.(b\d+)")
def _(kind):
    return a.insert_field, (kind, kind, "u32", "u32"), kind


@_op(r"prmt\.b32")
def _():
    return a.permute_bytes, ("b32",) * 3, "b32"


@_op(r"lop3\.b32")
def _():
    return lambda x, y, z, t: a.truth_table(x, y, z, int(t[0])), ("b32",) * 4, "b32"


@_op(r"(popc|clz|brev)\.(b\d+)")
def _(name, kind):
    f = {"popc": a.count_ones, "clz": a.count_leading_zeros, "brev": a.reverse_bits}[name]
    return f, (kind,), kind if name == "brev" else "b32"


# ---- choices -------------------------------------------------------------------------------------


@_op(r"selp\.(\w+)")
def _(kind):
    return lambda x, y, p: np.where(p, x, y), (kind, kind, "pred"), kind


@_op(r"setp\.(\w+)(?:\.(and|or|xor))?\.(\w+)")
def _(name, combine, kind):
    """The result is the pair of the predicate and of its opposite, each combined with c."""
    f = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.get(combine)
    if combine is None:
        return lambda x, y: (p := a.compare(name, x, y), ~p), (kind, kind), "pred"

    def both(x, y, c):
        p = a.compare(name, x, y)
        return f(p, c), f(~p, c)

    return both, (kind, kind, "pred"), "pred"
