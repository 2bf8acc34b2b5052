# SPDX-License-Identifier: Apache-2.0
"""The noise contract written once more, in NumPy, from the paper and docs/noise.md."""

import math

import numpy as np
import torch

from pushforward import _ops

FLOAT32, FLOAT64 = torch.float32, torch.float64
DTYPES = [FLOAT32, FLOAT64]
PER_BLOCK = {FLOAT32: 4, FLOAT64: 2}
SEED = 0x0123456789ABCDEF


def philox(c0, c1, c2, c3, seed):
    """Philox4x32-10 on arrays of counter words; returns (..., 4) uint64 words below 2^32."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.asarray(w, dtype=np.uint64) for w in (c0, c1, c2, c3)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        shift = np.uint64(32)
        c = [p1 >> shift ^ c[1] ^ np.uint64(k0), p1 & low, p0 >> shift ^ c[3] ^ np.uint64(k1),
             p0 & low]  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(np.broadcast_arrays(*c), -1)


def expected_words(rows, n, *, seed, purpose, start, chain_offset, dtype):
    """The words under entries start .. start + n - 1: (rows, n) or, for float64, (rows, n, 2)."""
    per_block = PER_BLOCK[dtype]
    first, last = start // per_block, -(-(start + n) // per_block)
    block = np.uint64(first) + np.arange(last - first, dtype=np.uint64)[None, :]
    chain = np.uint64(chain_offset) + np.arange(rows, dtype=np.uint64)[:, None]
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    words = philox(block & low, block >> shift, chain & low,
                   chain >> shift | np.uint64(purpose << 24), seed)  # fmt: skip
    shape = (rows, (last - first) * per_block)
    words = words.reshape(shape if dtype == FLOAT32 else (*shape, 2))
    skip = start - first * per_block
    return words[:, skip : skip + n]


def expected_uniform(rows, n, **where):
    words = expected_words(rows, n, **where)
    if where["dtype"] == FLOAT32:
        rounded = words.astype(np.uint32).astype(np.float32).astype(np.float64)
        return ((2 * rounded + 1) * 2.0**-33).astype(np.float32)  # exact in float64, one rounding
    v = words[..., 0] << np.uint64(21) | words[..., 1] >> np.uint64(11)
    return (v.astype(np.float64) + 0.5) * 2.0**-53  # v is exact, the sum is the one rounding


def expected_normal(rows, n, *, start, dtype, **where):
    """Box-Muller in float64 from the exact uniforms, the angle reduced without error."""
    first, last = start - start % 2, start + n + (start + n) % 2
    u = expected_uniform(rows, last - first, start=first, dtype=dtype, **where).astype(np.float64)
    radius = np.sqrt(-2 * np.log(u[:, 0::2]))
    quarters = np.rint(4 * u[:, 1::2])
    left = 2 * np.pi * (u[:, 1::2] - quarters / 4)
    turn = quarters.astype(np.int64) % 4
    sine, cosine = np.sin(left), np.cos(left)
    z = np.stack((radius * np.choose(turn, (cosine, -sine, -cosine, sine)),
                  radius * np.choose(turn, (sine, cosine, -sine, -cosine))), -1)  # fmt: skip
    return z.reshape(rows, last - first)[:, start - first :][:, :n]


def draw(law, rows, n, *, seed=SEED, purpose=0, start=0, chain_offset=0, dtype=FLOAT32):
    """Entries by the native op, for purposes without a name too."""
    out = torch.full((rows, n), math.nan, dtype=dtype)
    return _ops.fill_(out, uniform=law == "uniform", seed=seed, purpose=purpose,
                      chain_offset=chain_offset, start=start)  # fmt: skip


def check(rows, n, *, seed=SEED, purpose=0, start=0, chain_offset=0, dtype):
    """Both laws against NumPy: uniforms to the bit, normals to a few ulps."""
    where = {"seed": seed, "purpose": purpose, "start": start, "chain_offset": chain_offset,
             "dtype": dtype}  # fmt: skip
    u = draw("uniform", rows, n, **where).numpy()
    np.testing.assert_array_equal(u, expected_uniform(rows, n, **where))
    # The relative error of r cos is at most that of the logarithm halved by the root (0.43 ulp),
    # of the root (0.5), of the cosine (0.99; float64: 1.03) and of the product (0.5): below 2.46
    # ulp, and an ulp is at most 2^-23 (2^-52) of its number. In float64 the expectation errs by
    # as much again, and its angle by 1 ulp more.
    rtol = 2.5 * 2.0**-23 if dtype == FLOAT32 else 6 * 2.0**-52
    z = draw("normal", rows, n, **where).numpy()
    np.testing.assert_allclose(z, expected_normal(rows, n, **where), rtol=rtol, atol=0)
