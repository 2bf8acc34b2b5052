# SPDX-License-Identifier: Apache-2.0
"""exp log log1p tanh sinpi cospi: errors, special values, edges, the same bits at every level."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pushforward import _ops

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("measure_ulp", ROOT / "tools" / "measure_ulp.py")
measure_ulp = importlib.util.module_from_spec(_spec)
sys.modules["measure_ulp"] = measure_ulp  # dataclasses look their module up
_spec.loader.exec_module(measure_ulp)

FUNCTIONS = {f.name: f for f in measure_ulp.FUNCTIONS}
DTYPES = [np.float32, np.float64]
INF, NAN = math.inf, math.nan

# The promise, in ulp. float32: the largest error over all patterns (tools/measure_ulp.py), rounded
# up in the second decimal. float64: the largest that the tool has seen with any of its samples, and
# 0.03 for the points between them and for the reference's own 0.001.
BOUNDS = {
    "exp": (1.01, 1.01),
    "log": (0.87, 0.88),
    "log1p": (1.44, 1.47),
    "tanh": (1.34, 1.37),
    "sinpi": (0.99, 1.05),
    "cospi": (0.99, 1.06),
}


def apply(name, x):
    return _ops.elementwise_math(name, torch.from_numpy(np.atleast_1d(x))).numpy()


def both_sides(x, dtype, n):
    """The n numbers on each side of x > 0, and x, in rising order."""
    kind = np.int32 if dtype == np.float32 else np.int64
    return (np.array([x], dtype=dtype).view(kind) + np.arange(-n, n + 1, dtype=kind)).view(dtype)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_errors(name):
    # One pattern in 499, a prime, so that no bit of the mantissa is left out: 4 to 9 million.
    worst = measure_ulp.Worst()
    for chunk in measure_ulp.float32_chunks(FUNCTIONS[name], stride=499):
        worst |= measure_ulp.worst_of(name, chunk)
    assert worst.points > 4_000_000
    assert worst.error <= BOUNDS[name][0], worst
    # A bound far above what is seen would not notice a worse polynomial.
    assert worst.error > BOUNDS[name][0] - 0.15, worst


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs an 80-bit long double")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_errors(name):
    generator = np.random.default_rng(1)
    worst = measure_ulp.Worst()
    for _ in range(9):
        points = measure_ulp.float64_points(name, measure_ulp.CHUNK, generator)
        worst |= measure_ulp.worst_of(name, points)
    assert worst.points > 250_000
    assert worst.error <= BOUNDS[name][1], worst
    assert worst.error > BOUNDS[name][1] - 0.15, worst


def test_published_table_keeps_the_promise():
    page = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    table = page.partition(measure_ulp.BEGIN)[2].partition(measure_ulp.END)[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \| \S+ \| ([\d.]+) \| \S+ \|$", table, re.M)
    published = {name: (float(single), float(double)) for name, single, double in rows}
    assert published.keys() == BOUNDS.keys()
    for name, errors in published.items():
        for error, bound in zip(errors, BOUNDS[name], strict=True):
            assert bound - 0.06 <= error <= bound, name


def test_the_yardstick_measures():
    # Correctly rounded results are within half a unit, the next number is one unit further, and
    # what is not a number is infinitely far.
    x = np.linspace(-80, 80, 10_001, dtype=np.float32)
    true = np.exp(x.astype(np.float64))
    rounded = true.astype(np.float32)
    errors = measure_ulp.ulp_errors(rounded, true)
    assert 0.49 < errors.max() <= 0.5
    further = np.where(rounded > true, np.nextafter(rounded, np.float32(INF)), rounded * 0)
    moved = measure_ulp.ulp_errors(further.astype(np.float32), true)[rounded > true]
    assert moved.min() >= 1.0
    assert moved.max() <= 1.5
    bad = measure_ulp.ulp_errors(np.array([NAN, INF, 0], np.float32), np.array([1.0, 1.0, 1e300]))
    assert bad[0] == INF
    assert bad[1:].min() >= 2.0**23
    assert measure_ulp.ulp_errors(np.array([INF], np.float32), np.array([1e300]))[0] == 0
    tiny = measure_ulp.ulp_errors(np.array([0], np.float32), np.array([2.0**-150]))
    assert tiny[0] == 0.5  # in units of the smallest subnormal


# ---- special values ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("exp", 0.0, 1.0), ("exp", -0.0, 1.0), ("exp", INF, INF), ("exp", -INF, 0.0),
        ("exp", NAN, NAN), ("exp", 1e30, INF), ("exp", -1e30, 0.0),
        ("log", 1.0, 0.0), ("log", 0.0, -INF), ("log", -0.0, -INF), ("log", INF, INF),
        ("log", -1.0, NAN), ("log", -1e-40, NAN), ("log", -INF, NAN), ("log", NAN, NAN),
        ("log1p", 0.0, 0.0), ("log1p", -0.0, -0.0), ("log1p", -1.0, -INF), ("log1p", INF, INF),
        ("log1p", -1.5, NAN), ("log1p", -INF, NAN), ("log1p", NAN, NAN),
        ("tanh", 0.0, 0.0), ("tanh", INF, 1.0), ("tanh", -INF, -1.0), ("tanh", NAN, NAN),
        ("tanh", 30.0, 1.0), ("tanh", -30.0, -1.0),
        ("sinpi", 0.0, 0.0), ("sinpi", 0.5, 1.0), ("sinpi", -0.5, -1.0), ("sinpi", 1.5, -1.0),
        ("sinpi", NAN, NAN), ("cospi", 0.0, 1.0), ("cospi", -0.0, 1.0), ("cospi", 1.0, -1.0),
        ("cospi", -1.0, -1.0), ("cospi", 2.0, 1.0), ("cospi", NAN, NAN),
    ],
)  # fmt: skip
def test_special_values(name, x, value, dtype):
    got = apply(name, np.full(37, x, dtype=dtype))  # full packs and the rest behave alike
    np.testing.assert_array_equal(got, np.full(37, value, dtype=dtype))
    if name in ("exp", "log", "log1p"):  # the sign of a zero is promised here
        assert (np.signbit(got) == np.signbit(value)).all() or math.isnan(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_arguments(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([1, 2, 3, 100, 12345], dtype=dtype) * tiny
    for sign in (1, -1):
        y = sign * x
        assert (apply("exp", y) == 1).all()
        assert (apply("cospi", y) == 1).all()
        np.testing.assert_array_equal(apply("log1p", y), y)
        np.testing.assert_array_equal(apply("tanh", y), y)
        wide = np.pi * y.astype(np.longdouble if dtype == np.float64 else np.float64)
        assert np.abs(apply("sinpi", y) - wide).max() <= tiny  # one unit where units are smallest
    # 1.1 ulp of a number near -100 (-740): log's own bound.
    np.testing.assert_allclose(apply("log", x), np.log(x.astype(np.longdouble)),
                               rtol=1.1 * np.finfo(dtype).eps)  # fmt: skip


# Where exp leaves the finite numbers, and where it reaches zero: the last argument with a finite
# (non-zero) value, from exact arithmetic.
EXP_EDGES = {
    np.float32: ("0x1.62e42ep+6", "-0x1.9fe368p+6"),
    np.float64: ("0x1.62e42fefa39efp+9", "-0x1.74910d52d3051p+9"),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_overflows_and_underflows_where_it_should(dtype):
    top, bottom = (dtype(float.fromhex(edge)) for edge in EXP_EDGES[dtype])
    largest, smallest = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    assert largest / 1.001 < apply("exp", top)[0] <= largest
    assert apply("exp", np.nextafter(top, dtype(INF)))[0] == INF
    assert apply("exp", bottom)[0] == smallest
    assert apply("exp", np.nextafter(bottom, dtype(-INF)))[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_of_log(dtype):
    # ln of the ends of the format, rounded once: 0.87 ulp at most would allow a neighbour, so two
    # ulps of the value.
    info = np.finfo(dtype)
    ends = np.array([info.smallest_subnormal, info.smallest_normal, info.max], dtype=dtype)
    wide = np.log(ends.astype(np.longdouble))
    np.testing.assert_allclose(apply("log", ends), wide.astype(dtype), rtol=2 * info.eps)
    np.testing.assert_allclose(apply("log1p", ends), np.log1p(ends.astype(np.longdouble)),
                               rtol=2 * info.eps)  # fmt: skip
    below = np.nextafter(dtype(-1), dtype(0))  # 1 + x is eps / 2, exactly
    assert abs(apply("log1p", below)[0] - math.log(info.eps / 2)) <= 2 * info.eps * 40


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_and_half_turns_are_exact(dtype):
    largest = 2**21 if dtype == np.float32 else 2**50
    whole = np.concatenate([np.arange(5000), largest - np.arange(5000)]).astype(dtype)
    parity = (whole.astype(np.int64) % 2).astype(dtype)
    for n in (whole, -whole):
        assert (apply("sinpi", n) == 0).all()
        np.testing.assert_array_equal(apply("cospi", n), 1 - 2 * parity)
    half = np.concatenate([np.arange(5000) + 0.5, largest - 0.5 - np.arange(5000)]).astype(dtype)
    assert (half % 1 == 0.5).all()
    parity = (np.floor(half).astype(np.int64) % 2).astype(dtype)
    assert (apply("cospi", half) == 0).all()
    assert (apply("cospi", -half) == 0).all()
    np.testing.assert_array_equal(apply("sinpi", half), 1 - 2 * parity)
    np.testing.assert_array_equal(apply("sinpi", -half), 2 * parity - 1)


# ---- shape ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_symmetry_and_range(dtype):
    x = np.random.default_rng(2).uniform(0, 30, 100_000).astype(dtype)
    np.testing.assert_array_equal(apply("tanh", -x), -apply("tanh", x))
    np.testing.assert_array_equal(apply("sinpi", -x), -apply("sinpi", x))
    np.testing.assert_array_equal(apply("cospi", -x), apply("cospi", x))
    for name in ("tanh", "sinpi", "cospi"):
        assert np.abs(apply(name, x)).max() <= 1
    assert apply("exp", -x).max() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("exp", [math.log(2) / 2, 1.5 * math.log(2), 10.5 * math.log(2), 87.3, 88.72]),
        ("log", [math.sqrt(0.5), 1.0, math.sqrt(2), 2.0, 2.0**-126, 2.0**100]),
        ("log1p", [math.sqrt(2) - 1, 1.0, 1e-8, 1e-3, 2.0**60]),
        ("tanh", [0.625, 0.5 * math.log(2), 5.0, 9.0, 18.7]),
    ],
)
def test_rising_across_seams(name, edges, dtype):
    # Nothing falls where a polynomial ends and the next piece begins, nor at the edge of a binade.
    for edge in edges:
        x = both_sides(edge, dtype, 3000)
        y = apply(name, x)
        assert (y[1:] >= y[:-1]).all(), edge
        if name in ("exp", "tanh"):
            y = apply(name, -x)
            assert (y[1:] <= y[:-1]).all(), -edge


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_position_in_the_array_does_not_matter(name, dtype):
    x = np.random.default_rng(3).uniform(0.1, 2, 200).astype(dtype)
    whole = apply(name, x)
    for n in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65):
        for first in (0, 1, 5):
            np.testing.assert_array_equal(apply(name, x[first : first + n].copy()),
                                          whole[first : first + n])  # fmt: skip
    assert apply(name, x[:0].reshape(0)).shape == (0,)


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1000, 300_000])
def test_the_float_state_of_the_caller_does_not_matter(n):
    # Subnormal numbers are kept although torch flushes them in its own ops, in one thread and in
    # several, and torch's setting is as before.
    x = torch.linspace(-103, -88, n)  # exp is subnormal here
    wanted = _ops.elementwise_math("exp", x)
    assert (wanted > 0).all()
    assert torch.set_flush_denormal(True)
    try:
        assert torch.equal(_ops.elementwise_math("exp", x).view(torch.int32),
                           wanted.view(torch.int32))  # fmt: skip
        assert float(torch.tensor([2.0**-126]) * 0.5) == 0
    finally:
        torch.set_flush_denormal(False)


DIGESTS = """
import hashlib
import numpy as np, torch
from pushforward import _ops
generator = np.random.default_rng(4)
inputs = []
for bits, kind in ((np.uint32, np.float32), (np.uint64, np.float64)):
    info = np.iinfo(bits)
    special = [0.0, -0.0, 1.0, -1.0, 0.5, 0.625, 2.0, np.inf, -np.inf, np.nan]
    inputs.append(np.concatenate([
        np.array(special, dtype=kind),
        generator.integers(0, info.max, 300_000, dtype=bits, endpoint=True).view(kind),
        generator.uniform(-20, 20, 100_000).astype(kind),
        generator.uniform(-750, 750, 100_000).astype(kind),
        (1 + generator.uniform(-0.3, 0.3, 100_000)).astype(kind),
        (1 + np.ldexp(1.0, generator.integers(-50, -2, 100_000))).astype(kind),
        np.finfo(kind).smallest_subnormal * np.arange(1, 1000, dtype=kind),
    ]))
for name in _ops.MATH_FUNCTIONS:
    for x in inputs:
        if name in ("sinpi", "cospi"):
            x = x[np.abs(x) <= (2.0**21 if x.dtype == np.float32 else 2.0**50)]
        y = _ops.elementwise_math(name, torch.from_numpy(x)).numpy()
        y = np.where(np.isnan(y), y.dtype.type(np.nan), y)  # which NaN is not promised
        print(name, x.dtype, hashlib.sha256(y.tobytes()).hexdigest())
"""


def test_cpu_levels_agree_bit_for_bit():
    running = {
        level: subprocess.Popen(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PUSHFORWARD_CPU_LEVEL": level},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for level in ("baseline", "v3", "v4")
    }
    finished = {level: (*p.communicate(), p.returncode) for level, p in running.items()}
    levels = {}
    for level, (output, error, code) in finished.items():
        if code != 0:  # this processor lacks the level
            assert "ImportError" in error, error
            assert "is not a level of this processor" in error, error
            continue
        levels[level] = output.splitlines()
    assert len(levels["baseline"]) == 2 * len(FUNCTIONS)
    if len(levels) == 1:
        pytest.skip("this processor has one level only")
    for level, lines in levels.items():
        assert lines == levels["baseline"], level
