# SPDX-License-Identifier: Apache-2.0
"""Makes the polynomial coefficients of csrc/core/math.hpp.

Each polynomial is the minimax fit found by Remez's exchange in 60 digits: of all polynomials of
its degree the one with the least maximum of ``|weight(x) (f(x) - p(x))|`` on an interval. The
weight turns the error of the fitted part into the relative error of the function. Coefficients
are rounded to the format at the end.

    python tools/minimax.py            prints them as C++ literals (a few seconds)
    python tools/minimax.py --check    fails unless csrc/core/math.hpp has these very literals

Needs mpmath. Reference: E. Remez (1934), Comptes Rendus 199.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath as mp

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "core" / "math.hpp"
DIGITS = 60
GRID = 800  # Chebyshev points on which the extrema of the error are looked for
LEVELLED = 1.0005  # largest over least extremum at which the exchange stops
MAX_EXCHANGES = 20

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Fit:
    """A polynomial of math.hpp: what it approximates, where, and in which format."""

    name: str
    formula: str
    function: Function
    weight: Function
    degree: int
    low: Any
    high: Any
    single: bool


def remez(fit: Fit) -> tuple[list[Any], Any]:
    """Return the coefficients, lowest power first, and the largest weighted error."""
    n = fit.degree + 2
    low, high = mp.mpf(fit.low), mp.mpf(fit.high)
    middle, half = (low + high) / 2, (high - low) / 2
    points = [middle + half * mp.cos(mp.pi * (n - 1 - i) / (n - 1)) for i in range(n)]
    grid = [low + half * (1 - mp.cos(mp.pi * mp.mpf(i) / GRID)) for i in range(GRID + 1)]
    values, weights = [fit.function(x) for x in grid], [fit.weight(x) for x in grid]
    for _ in range(MAX_EXCHANGES):
        coefficients = _levelled_polynomial(fit, points)
        errors = [
            w * (f - mp.polyval(coefficients[::-1], x))
            for x, f, w in zip(grid, values, weights, strict=True)
        ]
        peaks = _alternating_peaks(errors, n)
        if len(peaks) < n:
            break
        points = [grid[i] for i in peaks]
        heights = [abs(errors[i]) for i in peaks]
        if max(heights) / min(heights) < LEVELLED:
            break
    return coefficients, max(abs(e) for e in errors)


def _levelled_polynomial(fit: Fit, points: list[Any]) -> list[Any]:
    """Solve for the polynomial whose weighted error is +e, -e, +e, ... at the points."""
    n = len(points)
    matrix, right = mp.matrix(n, n), mp.matrix(n, 1)
    for i, x in enumerate(points):
        for k in range(n - 1):
            matrix[i, k] = x**k
        matrix[i, n - 1] = (-1) ** i / fit.weight(x)
        right[i] = fit.function(x)
    solution = mp.lu_solve(matrix, right)
    return [solution[k] for k in range(n - 1)]


def _alternating_peaks(errors: list[Any], n: int) -> list[int]:
    """Return the place of the largest error between sign changes, at most n of them."""
    peaks, top = [], 0
    for i in range(1, len(errors)):
        if mp.sign(errors[i]) != mp.sign(errors[top]) and errors[i] != 0:
            peaks.append(top)
            top = i
        elif abs(errors[i]) > abs(errors[top]):
            top = i
    peaks.append(top)
    while len(peaks) > n:
        del peaks[0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1]
    return peaks


# ---- the functions, with their Taylor series where the formula cancels ---------------------------


def exp_tail(r: Any) -> Any:
    if abs(r) < mp.mpf(10) ** -12:
        return mp.mpf(1) / 2 + r / 6 + r * r / 24
    return (mp.expm1(r) - r) / r**2


def log_tail(f: Any) -> Any:
    if abs(f) < mp.mpf(10) ** -10:
        return mp.mpf(1) / 3 - f / 4 + f * f / 5
    return (mp.log1p(f) - f + f * f / 2) / f**3


def atanh_tail(z: Any) -> Any:
    if z < mp.mpf(10) ** -10:
        return mp.mpf(1) / 3 + z / 5
    s = mp.sqrt(z)
    return (mp.atanh(s) - s) / s**3


def tanh_tail(z: Any) -> Any:
    if z < mp.mpf(10) ** -10:
        return -mp.mpf(1) / 3 + 2 * z / 15
    x = mp.sqrt(z)
    return (mp.tanh(x) / x - 1) / z


def sinpi_tail(z: Any) -> Any:
    if z < mp.mpf(10) ** -12:
        return -(mp.pi**3) / 6 + z * mp.pi**5 / 120
    r = mp.sqrt(z)
    return (mp.sin(mp.pi * r) / r - mp.pi) / z


def cospi_tail(z: Any) -> Any:
    if z < mp.mpf(10) ** -12:
        return -(mp.pi**2) / 2 + z * mp.pi**4 / 24
    r = mp.sqrt(z)
    return (mp.cos(mp.pi * r) - 1) / z


def exp2_tail(r: Any) -> Any:
    if abs(r) < mp.mpf(10) ** -12:
        return mp.log(2) + r * mp.log(2) ** 2 / 2
    return mp.expm1(r * mp.log(2)) / r


def exp2_weight(r: Any) -> Any:
    return abs(r) * mp.power(2, -r) if abs(r) >= mp.mpf(10) ** -12 else mp.mpf(10) ** -24


def exp_weight(r: Any) -> Any:
    return r * r * mp.exp(-r) if abs(r) >= mp.mpf(10) ** -12 else mp.mpf(10) ** -24


def log_weight(f: Any) -> Any:
    return abs(f**3 / mp.log1p(f)) if abs(f) >= mp.mpf(10) ** -12 else mp.mpf(10) ** -24


def square_weight(z: Any) -> Any:
    return z if z > 0 else mp.mpf(10) ** -30


def sinpi_weight(z: Any) -> Any:
    return z / mp.pi if z > 0 else mp.mpf(10) ** -30


def fits() -> list[Fit]:
    """Return every polynomial of math.hpp, in the order of the header."""
    exp_edge = mp.log(2) / 2 * mp.mpf("1.0001")
    exp2_text, exp2_edge = "(2^r - 1) / r, |r| <= 1/2", mp.mpf("0.5001")
    root = mp.sqrt(2)
    atanh_edge = ((root - 1) / (1 + root)) ** 2 * mp.mpf("1.0001")
    tanh_edge = mp.mpf("0.625") ** 2
    exp_text = "(e^r - 1 - r) / r^2, |r| <= ln(2) / 2"
    sin_text = "(sin(pi r) / r - pi) / r^2 in z = r^2, |r| <= 1/4"
    cos_text = "(cos(pi r) - 1) / r^2 in z = r^2, |r| <= 1/4"
    tanh_text = "(tanh(x) / x - 1) / x^2 in z = x^2, |x| <= 0.625"
    quarter = mp.mpf(1) / 16

    def fit(
        name: str, text: str, f: Function, w: Function, n: int, low: Any, high: Any, single: bool
    ) -> Fit:
        return Fit(name, text, f, w, n, low, high, single)

    return [
        fit("exp", exp_text, exp_tail, exp_weight, 4, -exp_edge, exp_edge, True),
        fit("exp", exp_text, exp_tail, exp_weight, 10, -exp_edge, exp_edge, False),
        fit("exp2", exp2_text, exp2_tail, exp2_weight, 5, -exp2_edge, exp2_edge, True),
        fit("exp2", exp2_text, exp2_tail, exp2_weight, 11, -exp2_edge, exp2_edge, False),
        fit("log", "(ln(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2)", log_tail,
            log_weight, 7, mp.sqrt(mp.mpf(1) / 2) - 1, root - 1, True),
        fit("log", "(atanh(s) - s) / s^3 in z = s^2, s = f / (2 + f)", atanh_tail,
            square_weight, 7, 0, atanh_edge, False),
        fit("tanh", tanh_text, tanh_tail, square_weight, 4, 0, tanh_edge, True),
        fit("tanh", tanh_text, tanh_tail, square_weight, 12, 0, tanh_edge, False),
        fit("sinpi", sin_text, sinpi_tail, sinpi_weight, 3, 0, quarter, True),
        fit("sinpi", sin_text, sinpi_tail, sinpi_weight, 6, 0, quarter, False),
        fit("cospi", cos_text, cospi_tail, square_weight, 3, 0, quarter, True),
        fit("cospi", cos_text, cospi_tail, square_weight, 6, 0, quarter, False),
    ]  # fmt: skip


def literal(value: Any, single: bool) -> str:
    """Return the C++ literal of the nearest float or double."""
    number = float(value)
    if not single:
        return number.hex()
    (rounded,) = struct.unpack("f", struct.pack("f", number))
    head, exponent = rounded.hex().split("p")
    mantissa, digits = head.split(".")
    return f"{mantissa}.{digits[:6].ljust(6, '0')}p{int(exponent):+d}f"


def contains(literals: list[str], wanted: list[str]) -> bool:
    """Whether ``wanted`` stands in ``literals`` in one piece."""
    n = len(wanted)
    return any(literals[i : i + n] == wanted for i in range(len(literals) - n + 1))


def main() -> int:
    parser = argparse.ArgumentParser(description="Minimax coefficients of csrc/core/math.hpp.")
    parser.add_argument("--check", action="store_true", help="compare with csrc/core/math.hpp")
    arguments = parser.parse_args()
    mp.mp.dps = DIGITS
    literals = re.findall(r"-?0x1\.[0-9a-f]+p[+-]?\d+f?", HEADER.read_text())
    missing = 0
    for fit in fits():
        coefficients, error = remez(fit)
        wanted = [literal(c, fit.single) for c in coefficients]
        kind = "float" if fit.single else "double"
        print(f"// {fit.name}, {kind}, degree {fit.degree}: {fit.formula}")
        print(f"// largest relative error 2^{float(mp.log(error, 2)):.2f}")
        print(", ".join(wanted))
        if arguments.check:
            found = contains(literals, wanted)
            missing += not found
            print(f"// {'as in' if found else 'NOT IN'} csrc/core/math.hpp")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
