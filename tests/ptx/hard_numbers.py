# SPDX-License-Identifier: Apache-2.0
"""Numbers that are hard to round, and what they round to by definition."""

from fractions import Fraction

import numpy as np


def nearest(exact, dtype):
    """A Fraction rounded to nearest, ties to even, by definition."""
    info = np.finfo(dtype)
    if exact == 0:
        return dtype(0)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - info.nmant, info.minexp - info.nmant)
    rounded = round(size / unit) * unit
    result = np.inf if rounded > Fraction(float(info.max)) else float(rounded)
    return dtype(result if exact > 0 else -result)


def hard_numbers(dtype, n=4000):
    """Triples near ties, cancellation, overflow and subnormal numbers, and any bits at all."""
    info, random = np.finfo(dtype), np.random.default_rng(1)
    digits, bits = info.nmant + 1, info.dtype.itemsize * 8
    mantissa = random.integers(1 << digits - 1, 1 << digits, (3, n)).astype(dtype)
    sparse = np.ldexp(dtype(1), random.integers(0, digits, (3, n))) + random.integers(-1, 2, (3, n))
    value = np.where(random.random((3, n)) < 0.5, mantissa, sparse.astype(dtype))
    value *= random.choice([-1, 1], (3, n))
    reach = random.choice([info.minexp, -digits, info.maxexp // 2], n)
    shift = random.integers(-digits, digits, (2, n)) + np.stack((reach, np.zeros(n, int)))
    with np.errstate(all="ignore"):
        a, b = np.ldexp(value[:2], shift)
        product = a * b
        below = random.integers(0, 3 * digits, n)
        c = np.ldexp(value[2], np.frexp(product)[1] - below).astype(dtype)
        near = np.where(random.random(n) < 0.3, -product, c)  # almost or wholly cancels
        any_bits = random.integers(0, 1 << bits, (3, n), dtype=f"u{bits // 8}").view(dtype)
        # Half of these products lie midway between two numbers, and c is far too small to move
        # them there; yet it decides. Some are shifted to where results are subnormal.
        half = digits // 2
        a_tie, b_tie = (random.integers(1 << half - 1, 1 << half, (2, n)) * 2 + 1).astype(dtype)
        far = np.ldexp(random.choice([-1.0, 1.0], n), -random.integers(1, 4 * digits, n))
        shift = random.choice([0, 0, info.minexp - info.nmant], n)
        ties = np.stack((np.ldexp(a_tie, shift), b_tie, np.ldexp(far, shift).astype(dtype)))
    triples = np.concatenate((np.stack((a, b, near)), ties, any_bits), 1).astype(dtype)
    edges = [0.0, -0.0, 1.0, info.eps, info.max, info.tiny, info.smallest_subnormal, np.inf, np.nan]
    grid = np.array(np.meshgrid(edges, edges, [*edges, -info.max, -1.0], indexing="ij"), dtype)
    return np.concatenate((triples, grid.reshape(3, -1)), 1)


def exact_fma(a, b, c, dtype):
    """a b + c rounded once."""
    if 0 in (a, b) or not np.isfinite([a, b, c]).all():  # one term decides, nothing is rounded
        with np.errstate(all="ignore"):
            return c if np.isfinite([a, b]).all() and not np.isfinite(c) else a * b + c
    return nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)), dtype)


def exact_fmas(a, b, c):
    dtype = a.dtype.type
    return np.array([exact_fma(*t, dtype) for t in zip(a, b, c, strict=True)], dtype)


def same_bits(x, y):
    """Equal bits, or NaN on both sides."""
    bits = f"u{x.dtype.itemsize}"
    return (x.view(bits) == y.view(bits)) | (np.isnan(x) & np.isnan(y))
