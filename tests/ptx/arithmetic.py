# SPDX-License-Identifier: Apache-2.0
"""Arithmetic as PTX defines it, on NumPy arrays: exact fma, conversions, integer corner cases.

NumPy's own +, -, *, / and sqrt are the processor's and correctly rounded; what is here is what
NumPy lacks or defines otherwise.
"""

from fractions import Fraction

import numpy as np

# ---- fma -----------------------------------------------------------------------------------------


def _two_sum(a, b):
    """The rounded sum and its error; exact wherever the sum does not overflow."""
    s = a + b
    carried = s - a
    return s, (a - (s - carried)) + (b - carried)


def _odd_sum(a, b):
    """a + b rounded to odd: an inexact sum gets an odd last bit, so it still can be rounded once."""
    s, error = _two_sum(a, b)
    bits = s.view(np.int64)
    step = np.where((error > 0) == (s > 0), 1, -1)  # away from zero if the error points there
    fix = (error != 0) & np.isfinite(error) & (bits & 1 == 0)
    return np.where(fix, bits + step, bits).view(np.float64)


def fma32(a, b, c):
    """One rounding: the product is exact in float64, the sum is rounded to odd there and then to
    float32, which has more than two bits less (Boldo and Melquiond, 2008)."""
    product = a.astype(np.float64) * b.astype(np.float64)
    return _odd_sum(product, c.astype(np.float64)).astype(np.float32)


def _exact_fma64(a, b, c):
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return 0.0  # not from zeros, which the caller sees to, so round to nearest says +0
    try:
        return total.numerator / total.denominator  # Python rounds this quotient correctly
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


def _split(a):
    """Two halves of 26 bits each (Veltkamp)."""
    shifted = a * 134217729.0
    high = shifted - (shifted - a)
    return high, a - high


def fma64(a, b, c):
    """One rounding: sums of exact parts of which the small ones are rounded to odd (Boldo and
    Melquiond, 2008); in rational numbers where exponents are too large or too small for that."""
    a, b, c = np.broadcast_arrays(a, b, c)
    high = a * b
    (a1, a0), (b1, b0) = _split(a), _split(b)
    low = ((a1 * b1 - high) + a1 * b0 + a0 * b1) + a0 * b0  # high + low is the product
    t, t_low = _two_sum(c, low)
    v, v_low = _two_sum(high, t)
    result = v + _odd_sum(t_low, v_low)

    def moderate(x, limit):
        return (np.abs(x) > 2.0**-limit) & (np.abs(x) < 2.0**limit)

    fast = moderate(a, 900) & moderate(b, 900) & moderate(high, 900)
    fast &= moderate(c, 900) | (c == 0)
    plain = ~np.isfinite(a) | ~np.isfinite(b) | (a == 0) | (b == 0)
    result = np.where(plain, a * b + c, np.where(np.isfinite(c), result, c))
    for i in np.flatnonzero(~fast & ~plain & np.isfinite(c)):
        result.flat[i] = _exact_fma64(float(a.flat[i]), float(b.flat[i]), float(c.flat[i]))
    return result


# ---- integers ------------------------------------------------------------------------------------


def multiply_high(a, b):
    """The upper half of the product of two integers of the same type."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{bits // 4}")
        return (a.astype(wide) * b.astype(wide) >> bits).astype(a.dtype)
    x, y, mask, half = a.view(np.uint64), b.view(np.uint64), np.uint64(2**32 - 1), np.uint64(32)
    x0, x1, y0, y1 = x & mask, x >> half, y & mask, y >> half
    middle = x1 * y0 + (x0 * y0 >> half)
    other = x0 * y1 + (middle & mask)
    high = x1 * y1 + (middle >> half) + (other >> half)
    if a.dtype.kind == "i":  # a negative factor counts as itself plus 2^64
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def divide(a, b):
    """Quotient and remainder, truncated towards zero."""
    if (b == 0).any():
        raise ZeroDivisionError("integer division by zero")
    quotient = a // b
    if a.dtype.kind == "i":
        quotient = quotient + ((quotient * b != a) & ((a < 0) != (b < 0))).astype(a.dtype)
    return quotient, a - quotient * b


def shift_left(a, n):
    """Shift by any amount: from the width of the type on, nothing is left."""
    bits = a.dtype.itemsize * 8
    shifted = a << np.minimum(n, np.uint32(bits - 1)).astype(a.dtype)
    return np.where(n < bits, shifted, a.dtype.type(0))


def shift_right(a, n):
    """Shift by any amount; signed types shift copies of the sign in."""
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(n, np.uint32(bits - 1)).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n < bits, shifted, a.dtype.type(0))


def funnel_shift(low, high, n, *, left, clamp):
    """32 of the 64 bits high:low after a shift: the upper ones to the left, else the lower ones."""
    both = high.astype(np.uint64) << np.uint64(32) | low
    n = (np.minimum(n, np.uint32(32)) if clamp else n & np.uint32(31)).astype(np.uint64)
    return ((both << n) >> np.uint64(32) if left else both >> n).astype(np.uint32)


def _each(dtype, function, *arrays):
    """Apply a function of Python ints element by element; the results are wrapped to `dtype`."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    mask = (1 << 8 * dtype.itemsize) - 1
    rows = zip(*(a.tolist() for a in np.broadcast_arrays(*arrays)), strict=True)
    return np.array([function(*row) & mask for row in rows], unsigned).view(dtype)


def extract_field(a, position, length):
    """bfe: `length` bits from `position`; signed types fill up with the field's highest bit."""
    bits = a.dtype.itemsize * 8

    def one(word, p, n):
        p, n = p & 255, n & 255
        kept = max(min(n, bits - p), 0)
        field = word >> p & (1 << kept) - 1
        negative = a.dtype.kind == "i" and n > 0 and word >> min(p + n - 1, bits - 1) & 1
        return field - (1 << kept) if negative else field

    return _each(a.dtype, one, a, position, length)


def insert_field(a, b, position, length):
    """bfi: b with `length` bits from `position` on taken from the lowest bits of a."""

    def one(field, word, p, n):
        mask = (1 << (n & 255)) - 1 << (p & 255)
        return word & ~mask | field << (p & 255) & mask

    return _each(a.dtype, one, a, b, position, length)


def permute_bytes(a, b, selector):
    """prmt: four bytes chosen from b:a; bit 3 of a choice spreads the byte's sign instead."""

    def one(low, high, choices):
        word = 0
        for k in range(4):
            choice = choices >> 4 * k & 15
            byte = (high << 32 | low) >> 8 * (choice & 7) & 255
            word |= (byte if choice < 8 else 255 * (byte >> 7)) << 8 * k
        return word

    return _each(a.dtype, one, a, b, selector)


def truth_table(a, b, c, table):
    """lop3: each bit looked up in an 8-bit table by the three input bits."""
    result = np.zeros_like(a)
    for k in range(8):
        if table >> k & 1:
            result = result | (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
    return result


def count_ones(a):
    return _each(np.dtype(np.uint32), lambda word: word.bit_count(), a)


def count_leading_zeros(a):
    bits = a.dtype.itemsize * 8
    return _each(np.dtype(np.uint32), lambda word: bits - word.bit_length(), a)


def reverse_bits(a):
    bits = a.dtype.itemsize * 8
    return _each(a.dtype, lambda word: int(f"{word:0{bits}b}"[::-1], 2), a)


# ---- floating point: conversions, comparisons ----------------------------------------------------

ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def float_to_integer(a, to, rounding):
    """Saturates; NaN is zero, or the highest bit alone where one of the types has 64 bits."""
    x = ROUND[rounding](a).astype(np.float64)
    info = np.iinfo(to)
    low, high = x < float(info.min), x >= 2.0 ** (info.bits - (to.kind == "i"))
    nan = np.array([1 << info.bits - 1], f"u{to.itemsize}").view(to)[0]
    if a.dtype.itemsize < 8 and to.itemsize < 8:
        nan = to.type(0)
    inside = np.where(low | high | np.isnan(x), 0.0, x).astype(to)
    result = np.where(low, to.type(info.min), np.where(high, to.type(info.max), inside))
    return np.where(np.isnan(x), nan, result)


def smaller(a, b):
    """min: -0 is below +0, and a number wins over NaN."""
    pick = (a < b) | ((a == b) & np.signbit(a)) | np.isnan(b)
    return np.where(pick, a, b)


def larger(a, b):
    return -smaller(-a, -b)


def compare(name, a, b):
    """setp: ordered comparisons, those that NaN fulfils (equ, ltu, ...), lo ls hi hs, num, nan."""
    if a.dtype.kind == "f":
        unordered = np.isnan(a) | np.isnan(b)
        if name in ("num", "nan"):
            return unordered == (name == "nan")
        if name.endswith("u"):
            return unordered | compare(name[:-1], a, b)
        if name == "ne":  # ordered, unlike NumPy's
            return ~unordered & (a != b)
    same = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    name = same.get(name, name)
    functions = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
                 "gt": np.greater, "ge": np.greater_equal}  # fmt: skip
    return functions[name](a, b)
