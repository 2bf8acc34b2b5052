# SPDX-License-Identifier: Apache-2.0
"""Measures the largest errors of csrc/core/math.hpp and writes them into docs/numerics.md.

float32: every bit pattern of each function's domain, against NumPy in float64. float64: tens of
millions of points where the algorithms have their seams and everywhere between, against NumPy's
80-bit long double. An error is counted in units in the last place of the exact value's binade; at
subnormal values that unit is the smallest subnormal. A result of infinity counts as the power of
two after the largest finite number.

    python tools/measure_ulp.py                   measures all and rewrites the table (minutes)
    python tools/measure_ulp.py --stride 1000     a quick look: one pattern in 1000, nothing written

Needs a long double of at least 64 bits of precision (x86-64).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pushforward import _ops

PAGE = Path(__file__).resolve().parents[1] / "docs" / "numerics.md"
BEGIN = "<!-- begin: written by tools/measure_ulp.py -->"
END = "<!-- end: written by tools/measure_ulp.py -->"
CHUNK = 1 << 15  # points that stay in a core's cache; larger arrays would be new pages each time
FULL_SAMPLES = 20_000_000  # float64 points a function behind the published table
Array = np.ndarray[Any, Any]

POSITIVE = (0x00000000, 0x7F7FFFFF)  # float32 patterns of +0 to the largest finite number
NEGATIVE = (0x80000000, 0xFF7FFFFF)


@dataclass(frozen=True)
class Function:
    """One of the package's functions: its domain in float32 patterns, and in words."""

    name: str
    domain: str
    patterns: tuple[tuple[int, int], ...]


FUNCTIONS = (
    Function("exp", "all finite x", (POSITIVE, NEGATIVE)),
    Function("log", "x > 0", ((0x00000001, 0x7F7FFFFF),)),
    Function("log1p", "x > -1", (POSITIVE, (0x80000000, 0xBF7FFFFF))),
    Function("tanh", "all finite x", (POSITIVE, NEGATIVE)),
    Function(
        "sinpi", "\\|x\\| <= 2^21 (2^50)", ((0x00000000, 0x4A000000), (0x80000000, 0xCA000000))
    ),
    Function(
        "cospi", "\\|x\\| <= 2^21 (2^50)", ((0x00000000, 0x4A000000), (0x80000000, 0xCA000000))
    ),
)


@dataclass(frozen=True)
class Worst:
    """The largest error seen, where, and among how many points."""

    error: float = -1.0
    x: float = 0.0
    points: int = 0

    def __or__(self, other: Worst) -> Worst:
        top = other if other.error > self.error else self
        return Worst(top.error, top.x, self.points + other.points)


# ---- references ----------------------------------------------------------------------------------

# pi to 64 bits: a double and what is missing.
PI = np.longdouble(float.fromhex("0x1.921fb54442d18p+1")) + np.longdouble(
    float.fromhex("0x1.1a62633145c07p-53")
)


def sinpi(x: Array, quarter_turns: int = 0) -> Array:
    """Return sin(pi x + quarter_turns pi / 2) in the precision of ``x``.

    The nearest half-integer is taken off exactly; what is left is folded into [0, 1/2], where
    sin(pi y) loses nothing.
    """
    half = x.dtype.type(0.5)
    halves = np.rint(x + x)
    left = x - halves * half
    turns = halves.astype(np.int64) + quarter_turns
    odd = (turns & 1).astype(bool)
    away = np.abs(left)
    value = np.sin(np.where(odd, half - away, away) * x.dtype.type(PI))
    negative = ((turns & 2) != 0) ^ (~odd & np.signbit(left))
    return np.where(negative, -value, value)


def exact(name: str, x: Array) -> Array:
    """Return the function in the precision of ``x``: float64, or long double for float64 inputs."""
    if name == "sinpi":
        return sinpi(x)
    if name == "cospi":
        return sinpi(x, quarter_turns=1)
    functions: dict[str, Callable[[Array], Array]] = {
        "exp": np.exp,
        "log": np.log,
        "log1p": np.log1p,
        "tanh": np.tanh,
    }
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        return functions[name](x)


def computed(name: str, x: Array) -> Array:
    """Return the function as the kernels compute it."""
    return _ops.elementwise_math(name, torch.from_numpy(x)).numpy()


# ---- errors --------------------------------------------------------------------------------------


def ulp_errors(got: Array, true: Array) -> Array:
    """Return the errors of float32 or float64 results in ulps of the exact values' binades."""
    if got.dtype == np.float32:
        limit = true.dtype.type(2.0**128)
        field = true.view(np.int64) & (0x7FF << 52)
        field = np.minimum(np.maximum(field, (1023 - 126) << 52), (1023 + 127) << 52)
        unit = (field - (23 << 52)).view(np.float64)
    else:
        limit = np.ldexp(np.longdouble(1), 1024)
        _, exponent = np.frexp(true)
        unit = np.ldexp(np.longdouble(1), np.clip(exponent - 53, -1074, 1023 - 52))
    wide = got.astype(true.dtype)
    with np.errstate(invalid="ignore"):
        # Where the exact value is zero only zero will do: the unit is the smallest subnormal.
        error = np.abs(wide - true) / unit
    if not np.isfinite(error).all() or np.abs(true).max() > limit:
        error = np.abs(np.clip(wide, -limit, limit) - np.clip(true, -limit, limit)) / unit
        error = np.where(np.isnan(wide), np.inf, error)
    return error


def worst_of(name: str, x: Array) -> Worst:
    """Return the largest error of one function at ``x``, float32 or float64."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    error = ulp_errors(computed(name, x), exact(name, wide))
    place = int(np.argmax(error))
    return Worst(float(error[place]), float(x[place]), len(x))


# ---- points --------------------------------------------------------------------------------------


def float32_chunks(function: Function, stride: int) -> Iterator[Array]:
    """Yield every ``stride``-th pattern of the domain, and each end of it, as float32."""
    for first, last in function.patterns:
        step = CHUNK * stride
        for begin in range(first, last + 1, step):
            end = min(begin + step, last + 1)
            yield np.arange(begin, end, stride, dtype=np.uint32).view(np.float32)
        yield np.array([first, last], dtype=np.uint32).view(np.float32)


def float64_points(name: str, n: int, generator: np.random.Generator) -> Array:
    """Return n points of a function's domain, drawn where its algorithm has something to lose."""
    draw = generator.uniform

    def linear(low: float, high: float) -> Array:
        return draw(low, high, n)

    def powers(low: float, high: float) -> Array:  # magnitudes 2^low .. 2^high, either sign
        sign = np.where(generator.integers(0, 2, n) == 1, 1.0, -1.0)
        return sign * np.exp2(draw(low, high, n))

    def beside(points: Array) -> Array:  # up to 64 ulps from the points
        bits = points.view(np.int64) + generator.integers(-64, 65, n)
        return bits.view(np.float64)

    def near(points: Array, low: float) -> Array:  # points plus 2^low .. 1/4, either sign
        return points + powers(low, -2.0)

    kinds: list[Array]
    if name == "exp":
        seams = (generator.integers(-1074, 1024, n) + 0.5) * np.log(2.0)  # ends of |r| <= ln(2)/2
        kinds = [
            linear(-745.2, 709.8),
            linear(-1.0, 1.0),
            linear(-745.2, -708.3),  # subnormal results
            powers(-60.0, 9.4),
            beside(seams),
        ]
    elif name == "log":
        roots = np.ldexp(np.sqrt(0.5), generator.integers(-1020, 1023, n))  # ends of the mantissa
        kinds = [
            generator.integers(1, 0x7FF0000000000000, n).view(np.float64),  # every binade alike
            linear(0.5, 2.0),
            1.0 + powers(-52.0, -1.1),
            beside(np.ones(n)),
            beside(roots),
        ]
    elif name == "log1p":
        ends = np.where(generator.integers(0, 2, n) == 1, np.sqrt(0.5) - 1, np.sqrt(2.0) - 1)
        kinds = [
            linear(-1.0, 1.0),
            -np.abs(powers(-1074.0, -0.001)),
            np.abs(powers(-1074.0, 1023.9)),
            powers(-60.0, -0.001),
            np.abs(powers(-4.0, 60.0)),
            -1.0 + np.abs(powers(-53.0, -1.0)),
            beside(ends),
            beside(np.ones(n)),
        ]
    elif name == "tanh":
        kinds = [
            linear(-20.0, 20.0),
            linear(-0.7, 0.7),
            powers(-1074.0, 5.0),
            powers(-30.0, 5.0),
            beside(np.full(n, 0.625)),
            beside((generator.integers(2, 56, n) + 0.5) * (0.5 * np.log(2.0))),
        ]
    else:
        halves = 0.5 * generator.integers(-4000, 4001, n)
        quarters = halves + 0.25
        kinds = [
            linear(-2.0, 2.0),
            linear(-0.25, 0.25),
            powers(-1074.0, 0.0),
            powers(-30.0, 50.0),
            near(halves, -60.0),
            beside(quarters),
            linear(-(2.0**50), 2.0**50),
        ]
    points = np.concatenate([k[: -(-n // len(kinds))] for k in kinds])[:n]
    return points[_inside(name, points)]


def _inside(name: str, x: Array) -> Array:
    if name == "log":
        return (x > 0) & np.isfinite(x)
    if name == "log1p":
        return (x > -1) & np.isfinite(x)
    if name in ("sinpi", "cospi"):
        return np.abs(x) <= 2.0**50
    return np.isfinite(x)


def float64_chunks(function: Function, samples: int) -> Iterator[Array]:
    """Yield the points of the published table, the same ones at every run."""
    generator = np.random.default_rng([20, sum(function.name.encode())])
    done = 0
    while done < samples:
        points = float64_points(function.name, min(CHUNK, samples - done), generator)
        done += len(points)
        yield points


# ---- the table -----------------------------------------------------------------------------------


def measure(function: Function, chunks: Iterator[Array], pool: ThreadPoolExecutor) -> Worst:
    """Return the largest error over all chunks; NumPy and the kernels release the GIL."""
    total = Worst()
    pending: list[Any] = []
    for chunk in chunks:
        pending.append(pool.submit(worst_of, function.name, chunk))
        if len(pending) >= 64:
            total |= pending.pop(0).result()
    for future in pending:
        total |= future.result()
    return total


def round_up(error: float) -> str:
    """Return the error with three decimals, never below itself."""
    return f"{np.ceil(error * 1000) / 1000:.3f}"


def table(results: dict[tuple[str, str], Worst]) -> str:
    """Return the Markdown table."""
    lines = [
        "| function | domain, float32 (float64) | float32, max ulp | at x | float64, max ulp "
        "| at x |",
        "|---|---|---|---|---|---|",
    ]
    for f in FUNCTIONS:
        single, double = results[f.name, "float32"], results[f.name, "float64"]
        lines.append(
            f"| `{f.name}` | {f.domain} | {round_up(single.error)} | {np.float32(single.x)!s} "
            f"| {round_up(double.error)} | {double.x!r} |"
        )
    least = min(results[f.name, "float32"].points for f in FUNCTIONS)
    most = max(results[f.name, "float32"].points for f in FUNCTIONS)
    sampled = min(results[f.name, "float64"].points for f in FUNCTIONS)
    lines += [
        "",
        f"float32: every bit pattern of the domain, {least:,} to {most:,} of them, against "
        f"float64. float64: {sampled:,} points a function, against 80-bit long double, whose own "
        "error is about 0.001 ulp. Rounded up in the third decimal.",
    ]
    return "\n".join(lines)


def write(text: str) -> None:
    """Put the table between its markers in docs/numerics.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{PAGE}: expected the two marker comments, found none")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Largest errors of the package's own functions.")
    parser.add_argument("--stride", type=int, default=1, help="every n-th float32 pattern")
    parser.add_argument("--samples", type=int, default=FULL_SAMPLES, help="float64 points each")
    arguments = parser.parse_args()
    if np.finfo(np.longdouble).nmant < 63:
        raise SystemExit("this platform's long double is too short for the float64 reference")
    torch.set_num_threads(1)  # the chunks are what is shared over the cores
    results: dict[tuple[str, str], Worst] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for f in FUNCTIONS:
            for dtype, chunks in (
                ("float32", float32_chunks(f, arguments.stride)),
                ("float64", float64_chunks(f, arguments.samples)),
            ):
                began = time.perf_counter()
                worst = measure(f, chunks, pool)
                results[f.name, dtype] = worst
                print(
                    f"{f.name:6} {dtype}: {worst.error:.6f} ulp at {worst.x!r} "
                    f"({worst.points:,} points, {time.perf_counter() - began:.0f} s)",
                    flush=True,
                )
    text = table(results)
    if arguments.stride == 1 and arguments.samples >= FULL_SAMPLES:
        write(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
