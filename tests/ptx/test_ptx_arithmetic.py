# SPDX-License-Identifier: Apache-2.0
"""The interpreter's arithmetic against rational numbers and Python's integers."""

from fractions import Fraction

import numpy as np
import pytest

from ptx import arithmetic
from ptx.hard_numbers import exact_fmas, hard_numbers, nearest, same_bits
from ptx.operations import find


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_rounds_once(dtype):
    a, b, c = hard_numbers(dtype)
    expected = exact_fmas(a, b, c)
    function, _, _ = find("fma.rn.f32" if dtype == np.float32 else "fma.rn.f64")
    with np.errstate(all="ignore"):
        result = function(a, b, c)
        twice = a * b + c
    assert same_bits(result, expected).all()
    assert (~same_bits(twice, expected)).sum() > 100  # the numbers are hard enough
    subnormal = (expected != 0) & (np.abs(expected) < np.finfo(dtype).tiny)
    assert subnormal.sum() > 100


def test_conversions_round_once():
    words = np.array([0, 1, 2**24 + 1, 2**24 + 3, 2**31 - 65, 2**32 - 1, 2**32 - 128], np.uint64)
    words = np.concatenate(
        (words, words << np.uint64(31), np.array([2**64 - 1, 2**63 + 2**39], np.uint64))
    )
    for to, dtype in (("f32", np.float32), ("f64", np.float64)):
        expected = [nearest(Fraction(int(w)), dtype) for w in words]
        assert find(f"cvt.rn.{to}.u64")[0](words).tolist() == expected
        signed = [nearest(Fraction(int(w)), dtype) for w in words.view(np.int64)]
        assert find(f"cvt.rn.{to}.s64")[0](words.view(np.int64)).tolist() == signed
        expected = [nearest(Fraction(int(w) & 0xFFFFFFFF), dtype) for w in words]
        assert find(f"cvt.rn.{to}.u32")[0](words.astype(np.uint32)).tolist() == expected
    x = np.array([2.5, -2.5, 3.7, -3.7, np.nan, np.inf, -np.inf, 3e9, -3e9], np.float32)
    assert find("cvt.rni.s32.f32")[0](x).tolist() == [
        2,
        -2,
        4,
        -4,
        0,
        2**31 - 1,
        -(2**31),
        2**31 - 1,
        -(2**31),
    ]
    assert find("cvt.rzi.u32.f32")[0](x).tolist() == [2, 0, 3, 0, 0, 2**32 - 1, 0, 3000000000, 0]
    assert find("cvt.rzi.s64.f64")[0](x.astype(float)).tolist()[4:7] == [
        -(2**63),
        2**63 - 1,
        -(2**63),
    ]
    assert find("cvt.rmi.f32.f32")[0](x[:4]).tolist() == [2, -3, 3, -4]


def test_integers():
    random = np.random.default_rng(2)
    for kind, dtype in (
        ("u32", np.uint32),
        ("s32", np.int32),
        ("u64", np.uint64),
        ("s64", np.int64),
    ):
        bits = np.dtype(dtype).itemsize * 8
        info = np.iinfo(dtype)
        x, y = random.integers(info.min, info.max, (2, 200), dtype, endpoint=True)
        x[:3], y[:3] = (info.max, info.min, info.min), (info.max, info.max, 1)
        pairs = list(zip(x.tolist(), y.tolist(), strict=True))
        assert find(f"mul.hi.{kind}")[0](x, y).tolist() == [p * q >> bits for p, q in pairs]
        small = np.where(y % 7 == 0, dtype(3), (y % 7).astype(dtype))
        quotients = [int(Fraction(p, q)) for p, q in zip(x.tolist(), small.tolist(), strict=True)]
        assert find(f"div.{kind}")[0](x, small).tolist() == quotients
        shifts = np.array(
            [0, 1, bits - 1, bits, bits + 1, 200, 2**32 - 1] * 28 + [5] * 4, np.uint32
        )
        assert find(f"shr.{kind}")[0](x, shifts).tolist() == [
            p >> min(n, 9999) for p, n in zip(x.tolist(), shifts.tolist(), strict=True)
        ]
        unsigned = x.view(f"u{bits // 8}")
        assert find(f"shl.b{bits}")[0](unsigned, shifts).tolist() == [
            p << min(n, 200) & 2**bits - 1
            for p, n in zip(unsigned.tolist(), shifts.tolist(), strict=True)
        ]
    with pytest.raises(ZeroDivisionError):
        find("rem.u32")[0](np.ones(1, np.uint32), np.zeros(1, np.uint32))

    def u32(*values):
        return [np.array([v], np.uint32) for v in values]

    assert arithmetic.permute_bytes(*u32(0x33221100, 0x776655F4, 0xC421)) == 0xFFF42211
    assert arithmetic.truth_table(*u32(0xF0, 0xCC, 0xAA), 0x96) == 0x96
    assert (
        arithmetic.funnel_shift(*u32(0x89ABCDEF, 0x01234567, 8), left=True, clamp=False)
        == 0x23456789
    )
    assert (
        arithmetic.funnel_shift(*u32(0x89ABCDEF, 0x01234567, 40), left=False, clamp=True)
        == 0x01234567
    )
    assert find("bfe.s32")[0](np.array([0x0F80], np.int32), *u32(7, 5)) == -1
    assert find("bfe.u32")[0](*u32(0x0F80, 7, 5)) == 31
    assert find("bfi.b32")[0](*u32(0xFF, 0, 4, 4)) == 0xF0
    assert find("mul.wide.s32")[0](
        np.array([-5], np.int32), np.array([2**31 - 1], np.int32)
    ) == -5 * (2**31 - 1)


def test_minimum_and_comparisons_with_nan_and_zero():
    x, y = np.array([0.0, -0.0, np.nan, 1.0]), np.array([-0.0, 0.0, 1.0, np.nan])
    assert np.signbit(find("min.f64")[0](x, y)).tolist() == [True, True, False, False]
    assert find("max.f64")[0](x, y).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert find("setp.ne.f64")[0](x, y)[0].tolist() == [False] * 4
    assert find("setp.neu.f64")[0](x, y)[0].tolist() == [False, False, True, True]
    assert find("setp.num.f64")[0](x, y)[0].tolist() == [True, True, False, False]
