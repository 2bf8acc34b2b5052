# SPDX-License-Identifier: Apache-2.0
"""The noise contract: known answers, exact words, borders, splits, threads, CPU levels, laws."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import _ops, _reference

FLOAT32, FLOAT64 = torch.float32, torch.float64
DTYPES = [FLOAT32, FLOAT64]
PER_BLOCK = {FLOAT32: 4, FLOAT64: 2}
SEED = 0x0123456789ABCDEF

# ---- the contract written once more, in NumPy, from the paper and docs/noise.md ------------------


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


# ---- known answers -------------------------------------------------------------------------------

# kat_vectors of Random123: counter, key, words of philox4x32-10
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter, key, words):
    assert _reference.philox_words(counter, key) == words
    assert tuple(philox(*counter, key[1] << 32 | key[0]).tolist()) == words
    # The same through the torch reference, whose block is a signed 64-bit integer.
    block = counter[1] << 32 | counter[0]
    entries = torch.tensor([block - 2**64 if block >= 2**63 else block])
    chain = (counter[3] & 0xFFFFFF) << 32 | counter[2]
    got = _reference.words(1, entries, key[1] << 32 | key[0], counter[3] >> 24, chain)
    assert tuple(got.flatten().tolist()) == words


def test_known_answer_through_the_native_uniforms():
    # Seed, chain, purpose and entry 0 are the all-zero counter and key.
    words = KNOWN_ANSWERS[0][2]
    single = pf.random.uniform(1, 4, seed=0).flatten().tolist()
    for u, word in zip(single, words, strict=True):
        assert abs(u * 2**32 - word) <= 2**7 + 1  # float32 keeps 24 of the 32 bits
        assert u == np.float32((2 * float(np.float32(word)) + 1) / 2**33)
    double = pf.random.uniform(1, 2, seed=0, dtype=FLOAT64).flatten().tolist()
    for u, (high, low) in zip(double, (words[:2], words[2:]), strict=True):
        assert int(u * 2**32) == high
        assert u == (2 * (high << 21 | low >> 11) + 1) / 2**54  # one correct rounding of integers


def test_high_words_are_in_the_uniforms():
    # A float64 uniform is (v + 1/2) 2^-53, so its first 32 bits are the pair's first word, but for
    # a rounding up of v = ...111: odds 2^-21, and not at these seeds.
    where = {"seed": 77, "purpose": 0, "start": 5, "chain_offset": 3, "dtype": FLOAT64}
    u = draw("uniform", 50, 20, **where).numpy()
    high = expected_words(50, 20, **where)[..., 0]
    np.testing.assert_array_equal(np.floor(u * 2.0**32).astype(np.uint64), high)


def test_uniform_range():
    # The ends: words 0 and 2^32 - 1 give 2^-33 and 1, so a logarithm is always finite.
    u = pf.random.uniform(1000, 4000, seed=1).numpy()  # 4 million: the least is near 2^-22
    assert u.min() >= 2.0**-33
    assert u.min() < 2.0**-18
    assert u.max() <= 1.0
    assert u.max() > 1 - 2.0**-18


# ---- native against the contract -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("purpose", [*range(16), 127, 128, 255])
def test_purposes_and_seeds(dtype, purpose):
    for seed in (0, 1, 2**32 - 1, 2**32, SEED, 2**63 - 1):
        check(3, 9, seed=seed, purpose=purpose, start=2, chain_offset=5, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_sizes(dtype):
    # Around the packs of every CPU level: 8, 16 and 32 chains or blocks, four or two numbers each.
    sizes = sorted({0} | {w + d for w in (1, 4, 8, 16, 32) for d in (-1, 0, 1)})
    for rows in sizes:
        for n in sizes:
            check(rows, n, start=(rows + n) % 5, chain_offset=n, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_lengths_and_starts(dtype):
    # One block of the sequences, checked against NumPy, and then every way to read pieces of it:
    # rows shorter and longer than a register of blocks, aligned with the blocks and not.
    rows, longest = 67, 300
    check(rows, longest, dtype=dtype)
    for law in ("uniform", "normal"):
        whole = draw(law, rows, longest, dtype=dtype)
        for n in [*range(1, 71), *range(120, 141), 255, 256, 257]:
            for start in (0, 1, 2, 3, 4, 7, 13):
                first = (n + start) % 30
                count = 1 + (7 * n + start) % 37
                part = draw(law, count, n, start=start, chain_offset=first, dtype=dtype)
                wanted = whole[first : first + count, start : start + n]
                assert torch.equal(part, wanted), (law, n, start, first, count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 4, 6, 31, 40, 131])
def test_chain_border_of_the_lower_word(dtype, n):
    for before in (0, 1, 7, 40):
        check(50, n, start=1, chain_offset=2**32 - before, purpose=9, dtype=dtype)
        check(50, n, start=0, chain_offset=5 * 2**32 - before, purpose=255, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 4, 6, 31, 40, 131])
def test_block_border_of_the_lower_word(dtype, n):
    border = 2**32 * PER_BLOCK[dtype]
    for before in (0, 1, 5, n // 2, 200):
        check(41, n, start=border - before, dtype=dtype)
        check(41, n, start=3 * border - before, chain_offset=2**32 - 20, purpose=3, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_last_chains_and_entries(dtype):
    check(5, 7, chain_offset=2**56 - 5, start=2**63 - 8, seed=2**63 - 1, purpose=255, dtype=dtype)
    check(1, 1, chain_offset=2**56 - 1, start=2**63 - 2, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_agrees(dtype):
    where = {"seed": SEED, "purpose": 4, "start": 3, "chain_offset": 2**32 - 9, "dtype": dtype}
    assert torch.equal(draw("uniform", 20, 33, **where), _reference.uniform(20, 33, **where))
    # rtol as in check(). The reference takes cos of a rounded angle of up to 2 pi, which is off by
    # 2^-51 at most, times a radius below 9.
    rtol = 2.5 * 2.0**-23 if dtype == FLOAT32 else 6 * 2.0**-52
    torch.testing.assert_close(draw("normal", 20, 33, **where), _reference.normal(20, 33, **where),
                               rtol=rtol, atol=9 * 2.0**-51)  # fmt: skip


# ---- splits, threads, levels ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_any_split_gives_the_same_numbers(law, dtype):
    function = getattr(pf.random, law)
    whole = function(37, 53, seed=5, purpose="init", dtype=dtype)
    for cut in (1, 16, 29):
        for at in (1, 6, 32):
            quarters = [
                function(c, n, seed=5, purpose="init", dtype=dtype, chain_offset=o, start=s)
                for o, c in ((0, cut), (cut, 37 - cut))
                for s, n in ((0, at), (at, 53 - at))
            ]
            top, bottom = torch.cat(quarters[:2], 1), torch.cat(quarters[2:], 1)
            assert torch.equal(torch.cat((top, bottom)), whole)


# 200,000 numbers are an estimated 0.3 ms of work, well above what is shared over threads.
@pytest.mark.parametrize("shape", [(1, 200_003), (200_003, 1), (28_571, 7), (1000, 200)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("restore_threads")
def test_any_number_of_threads_gives_the_same_numbers(shape, dtype):
    results = []
    for n_threads in (1, 2, 8):
        torch.set_num_threads(n_threads)
        results.append([draw(law, *shape, start=1, dtype=dtype) for law in ("uniform", "normal")])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("restore_threads")
def test_concurrent_calls_give_the_same_numbers():
    # One call at a time has the pool; the others run in their own threads.
    torch.set_num_threads(2)
    seeds = range(8)
    with ThreadPoolExecutor(4) as executor:
        drawn = list(executor.map(lambda s: draw("normal", 300, 1000, seed=s), seeds))
    torch.set_num_threads(1)
    for seed, z in zip(seeds, drawn, strict=True):
        assert torch.equal(z, draw("normal", 300, 1000, seed=seed))


STREAMS = """
import hashlib, torch, pushforward as pf
from pushforward import _ops
def digest(*tensors):
    h = hashlib.sha256()
    for t in tensors:
        h.update(t.numpy().tobytes())
    return h.hexdigest()
for law in (pf.random.uniform, pf.random.normal):
    for dtype in (torch.float32, torch.float64):
        where = dict(dtype=dtype)
        print(digest(
            law(1, 100_000, seed=0, **where),
            law(100, 1000, seed=1, purpose="proposal", **where),
            law(3000, 7, seed=2**63 - 1, purpose="forward", start=11, **where),
            law(5000, 1, seed=2**32, purpose="accept", start=2**34 - 1, **where),
            law(70, 150, seed=12345, purpose="time", chain_offset=2**32 - 35, **where),
        ))
"""

# sha256 of the little-endian bytes of those streams: version 1 of the contract. A change of these
# would change everybody's results; it needs a new version.
GOLDEN = {
    "uniform float32": "2b176cd6e93af37da2162ad0e942616c700248e9412d015aa88542703b0b3749",
    "uniform float64": "f3788a25b0d383b3b8d5122f05727c54d7515023ccce2031264136e481fcb0fd",
    "normal float32": "35411767a12e63a9efb96439a5c20561a39234e6b3f49f3d9ab900c489641433",
    "normal float64": "1197251035885b9082821525b49782082fcbd7406bdb4adddbc03826adf058ad",
}


def outputs_of_levels(script):
    """Run a script on every CPU level at once; returns stdout by level, without missing levels."""
    running = {
        level: subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "PUSHFORWARD_CPU_LEVEL": level},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for level in ("baseline", "v3", "v4")
    }
    finished = {level: (*p.communicate(), p.returncode) for level, p in running.items()}
    outputs = {}
    for level, (output, error, code) in finished.items():
        if code == 0:
            outputs[level] = output
        else:
            assert "ImportError" in error, error
            assert "is not a level of this processor" in error, error
    assert "baseline" in outputs
    return outputs


@pytest.mark.skipif(sys.byteorder != "little", reason="digests of little-endian bytes")
def test_golden_streams_on_every_cpu_level():
    for level, output in outputs_of_levels(STREAMS).items():
        assert dict(zip(GOLDEN, output.split(), strict=True)) == GOLDEN, level


# ---- laws ----------------------------------------------------------------------------------------

# Every statistic below is standardised; 6 deviations have two-sided probability 2e-9, and
# Kolmogorov's limit law gives P(sqrt(n) D > 3.2) = 2 exp(-2 * 3.2^2) = 3e-9. With some 300 such
# checks the whole file raises a false alarm with probability below 1e-6, over the choice of seeds;
# the seeds are fixed.
MANY_DEVIATIONS = 6.0
KOLMOGOROV = 3.2


def deviations(x):
    """Standardised sample moments 1 to 4 of what should be standard normal."""
    x = np.asarray(x, dtype=np.float64).ravel()
    n = len(x)
    square = x * x
    return [
        x.mean() * math.sqrt(n),
        (square - 1).mean() * math.sqrt(n / 2),
        (square * x).mean() * math.sqrt(n / 15),
        (square * square - 3).mean() * math.sqrt(n / 96),
    ]


def kolmogorov_smirnov(uniforms):
    """sqrt(n) times the largest distance of the empirical law from the uniform one."""
    u = np.sort(np.asarray(uniforms, dtype=np.float64).ravel())
    n = len(u)
    rank = np.arange(n + 1) / n
    return math.sqrt(n) * max((rank[1:] - u).max(), (u - rank[:-1]).max())


def correlation(a, b):
    """Standardised correlation of two standard normal samples, and of their squares."""
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    return [
        (a * b).mean() * math.sqrt(len(a)),
        ((a * a - 1) * (b * b - 1)).mean() * math.sqrt(len(a)) / 2,
    ]


LAYOUTS = [(1, 1_000_000), (1_000_000, 1), (1000, 1000)]


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_law_of_normals(shape, dtype):
    z = pf.random.normal(*shape, seed=11, dtype=dtype)
    assert np.abs(deviations(z)).max() < MANY_DEVIATIONS
    assert kolmogorov_smirnov(torch.special.ndtr(z.double())) < KOLMOGOROV


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_law_of_uniforms(shape, dtype):
    u = pf.random.uniform(*shape, seed=12, dtype=dtype)
    assert kolmogorov_smirnov(u) < KOLMOGOROV
    n = u.numel()
    assert abs(float(u.double().mean()) - 0.5) * math.sqrt(12 * n) < MANY_DEVIATIONS


def test_law_of_both_halves_of_a_pair():
    # Box-Muller's cosine and sine are each a normal, and the pair has no preferred direction.
    z = pf.random.normal(1, 2_000_000, seed=13).double().reshape(-1, 2)
    for part in (z[:, 0], z[:, 1], (z[:, 0] + z[:, 1]) / math.sqrt(2)):
        assert np.abs(deviations(part)).max() < MANY_DEVIATIONS
    angle = torch.atan2(z[:, 1], z[:, 0]) / (2 * math.pi) + 0.5
    assert kolmogorov_smirnov(angle) < KOLMOGOROV
    assert kolmogorov_smirnov(1 - torch.exp(-0.5 * z.square().sum(1))) < KOLMOGOROV


def test_the_law_tests_see_small_errors():
    # Two percent of scale, a shift of one hundredth, one percent of correlation.
    z = pf.random.normal(1, 1_000_000, seed=11)
    assert kolmogorov_smirnov(torch.special.ndtr(1.02 * z.double())) > KOLMOGOROV
    assert abs(deviations(1.02 * z)[1]) > MANY_DEVIATIONS
    assert abs(deviations(z + 0.01)[0]) > MANY_DEVIATIONS
    other = pf.random.normal(1, 1_000_000, seed=14)
    assert abs(correlation(z, other + 0.01 * z)[0]) > MANY_DEVIATIONS


def test_neighbouring_chains_and_entries_are_uncorrelated():
    z = pf.random.normal(1001, 1008, seed=15)
    for lag in (1, 2, 3):
        assert np.abs(correlation(z[:-lag], z[lag:])).max() < MANY_DEVIATIONS
    for lag in range(1, 9):
        assert np.abs(correlation(z[:, :-lag], z[:, lag:])).max() < MANY_DEVIATIONS


def test_neighbouring_seeds_are_uncorrelated():
    for seed in (0, 1, 15):
        z = pf.random.normal(1, 1_000_000, seed=seed)
        for other in (seed + 1, seed + 2**32, seed + 2**62):
            w = pf.random.normal(1, 1_000_000, seed=other)
            assert np.abs(correlation(z, w)).max() < MANY_DEVIATIONS


def test_purposes_are_uncorrelated():
    streams = [
        pf.random.normal(1, 100_000, seed=16, purpose=p).double().numpy()[0]
        for p in pf.random.PURPOSES
    ]
    for i, a in enumerate(streams):
        for b in streams[:i]:
            assert np.abs(correlation(a, b)).max() < MANY_DEVIATIONS


# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_out_is_filled_and_nothing_else(law, dtype):
    function = getattr(pf.random, law)
    for rows, n in ((1, 1), (3, 5), (17, 3), (5, 33), (33, 1), (7, 130)):
        buffer = torch.full((rows * n + 200,), -7.0, dtype=dtype)
        out = buffer[100 : 100 + rows * n].view(rows, n)
        assert function(rows, n, seed=3, start=1, out=out) is out
        assert torch.equal(out, function(rows, n, seed=3, start=1, dtype=dtype))
        assert (buffer[:100] == -7).all()
        assert (buffer[100 + rows * n :] == -7).all()


def test_out_decides_the_type():
    out = torch.empty(2, 3, dtype=FLOAT64)
    got = pf.random.normal(2, 3, seed=0, dtype=FLOAT32, out=out)
    assert torch.equal(got, pf.random.normal(2, 3, seed=0, dtype=FLOAT64))


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (torch.empty(3, 2), ValueError),
        (torch.empty(6), ValueError),
        (torch.empty(3, 2).T, ValueError),
        (torch.empty(2, 6)[:, ::2], ValueError),
        (torch.empty(2, 3, dtype=torch.int64), TypeError),
        (torch.empty(2, 3, dtype=torch.complex64), TypeError),
        (torch.empty(2, 3, requires_grad=True), ValueError),
        (np.empty((2, 3)), TypeError),
    ],
)
def test_bad_out_is_refused(out, error):
    with pytest.raises(error, match=r"out|grad"):
        pf.random.normal(2, 3, seed=0, out=out)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [pf.random.normal, pf.random.uniform])
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_chains", -1, ValueError),
        ("n_chains", 1.0, TypeError),
        ("n_chains", True, TypeError),
        ("n", -3, ValueError),
        ("n", "4", TypeError),
        ("seed", -1, ValueError),
        ("seed", 2**63, ValueError),
        ("seed", 0.5, TypeError),
        ("seed", True, TypeError),
        ("start", -1, ValueError),
        ("start", 2**63 - 1, ValueError),
        ("start", 2**70, ValueError),
        ("start", 1.5, TypeError),
        ("start", "0", TypeError),
        ("chain_offset", -1, ValueError),
        ("chain_offset", 2**56 - 1, ValueError),
        ("chain_offset", 2**80, ValueError),
        ("chain_offset", 0.0, TypeError),
        ("purpose", "nonsense", ValueError),
        ("dtype", torch.complex64, TypeError),
        ("dtype", torch.int64, TypeError),
    ],
)
def test_bad_arguments_are_named(function, name, value, error):
    arguments = {"n_chains": 2, "n": 3, "seed": 0, name: value}
    with pytest.raises(error, match=rf"^{name}: expected"):
        function(**arguments)


def test_table_of_purposes_is_frozen():
    # Version 1 of the contract: numbers are never reused and never change.
    assert pf.random.CONTRACT_VERSION == 1
    first = ["user", "proposal", "accept", "swap", "init", "target", "forward", "reverse",
             "momentum", "tree", "site", "adaptation", "data", "choice", "fold",
             "time"]  # fmt: skip
    codes = list(pf.random.PURPOSES.items())
    assert codes[:16] == [(name, code) for code, name in enumerate(first)]
    assert len(set(pf.random.PURPOSES.values())) == len(codes)
    assert all(0 <= code < 256 for _, code in codes)
    with pytest.raises(TypeError, match="assignment"):
        pf.random.PURPOSES["user"] = 3


# ---- seeds ---------------------------------------------------------------------------------------


def test_fold_in_is_the_words_of_its_counter():
    for seed, i in ((0, 0), (1, 2), (SEED, 2**32), (2**63 - 1, 2**64 - 1), (5, 2**40 + 3)):
        words = philox(i & 0xFFFFFFFF, i >> 32, 0, 14 << 24, seed).tolist()
        assert pf.random.fold_in(seed, i) == (words[1] << 32 | words[0]) >> 1


@pytest.mark.parametrize(
    ("seed", "i", "child"),
    [
        (0, 0, 8598506330117200041),
        (0, 1, 1474003972647097562),
        (1, 0, 1657544811108556662),
        (2**63 - 1, 2**64 - 1, 6427341965701147265),
    ],
)
def test_fold_in_golden_values(seed, i, child):
    assert pf.random.fold_in(seed, i) == child  # version 1 of the contract


def test_fold_in_gives_distinct_seeds():
    children = [pf.random.fold_in(s, i) for s in range(20) for i in range(200)]
    assert len(set(children)) == len(children)  # a collision has odds 4000^2 / 2^64
    assert all(0 <= child < 2**63 for child in children)
    assert all(type(child) is int for child in children)
    # Uniform over the range: the mean of 4000 has deviation 2^63 / sqrt(12 * 4000).
    mean = sum(children) / len(children) / 2**63
    assert abs(mean - 0.5) * math.sqrt(12 * 4000) < MANY_DEVIATIONS
    assert pf.random.fold_in(3, 7) == pf.random.fold_in(3, 7)


@pytest.mark.parametrize(
    ("seed", "i", "error", "name"),
    [
        (-1, 0, ValueError, "seed"),
        (2**63, 0, ValueError, "seed"),
        (1.0, 0, TypeError, "seed"),
        (0, -1, ValueError, "i"),
        (0, 2**64, ValueError, "i"),
        (0, 1.0, TypeError, "i"),
        (0, True, TypeError, "i"),
    ],
)
def test_fold_in_names_bad_arguments(seed, i, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        pf.random.fold_in(seed, i)


def test_seed_from_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = pf.random.resolve_seed(None), pf.random.resolve_seed(None)
        z = pf.random.normal(2, 2)
        torch.manual_seed(3)
        assert pf.random.resolve_seed(None) == first
        assert pf.random.resolve_seed(None) == second
        assert torch.equal(pf.random.normal(2, 2), z)
        torch.manual_seed(4)
        assert pf.random.resolve_seed(None) != first
    assert first != second
    assert 0 <= first < 2**63
    assert type(first) is int


def test_seed_from_a_generator():
    def seeds(start):
        generator = torch.Generator().manual_seed(start)
        return [pf.random.resolve_seed(generator) for _ in range(3)]

    assert seeds(1) == seeds(1)
    assert len(set(seeds(1) + seeds(2))) == 6
    z = pf.random.normal(2, 2, seed=torch.Generator().manual_seed(1))
    assert torch.equal(z, pf.random.normal(2, 2, seed=seeds(1)[0]))


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, np.int64(7), np.uint8(3)])
def test_seed_as_an_integer(seed):
    assert pf.random.resolve_seed(seed) == int(seed)
    assert torch.equal(pf.random.normal(1, 4, seed=seed), pf.random.normal(1, 4, seed=int(seed)))


@pytest.mark.parametrize("seed", ["1", 1.0, [1], True, np.float64(1)])
def test_seed_of_another_type(seed):
    with pytest.raises(TypeError, match=r"^seed: expected"):
        pf.random.resolve_seed(seed)


# ---- the other readers ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ops_read_the_same_sequences(dtype, dim):
    # With zero score and drift, and step size 1/2, a step adds the noise itself: entries
    # step dim .. of the purpose, for chains chain_offset ..; here across the borders of a word.
    n, offset = 19, 2**32 - 7
    step = 2**32 * PER_BLOCK[dtype] // dim
    zero = torch.zeros(n, dim, dtype=dtype)

    def entries(purpose, start):
        return pf.random.normal(n, dim, seed=8, purpose=purpose, start=start, chain_offset=offset,
                                dtype=dtype)  # fmt: skip

    where = {"seed": 8, "chain_offset": offset}
    moved = pf.ops.langevin(zero, zero, step_size=0.5, step=step, **where)
    assert torch.equal(moved, entries("proposal", step * dim))
    back = pf.ops.reverse_step(
        zero, zero, growth=1.0, drift_scale=0.0, noise_scale=1.0, step=step, **where
    )
    assert torch.equal(back, entries("reverse", step * dim))
    forward = pf.ops.diffuse(zero, mean_scale=0.0, std=1.0, **where)
    assert torch.equal(forward, entries("forward", 0))
    # Many steps in one call read in the same order: a law this wide has score -x 2^-100, so its
    # chains sum up noise.
    wide = pf.targets.Gaussian(torch.zeros(dim), precision=torch.full((dim,), 2.0**-100))
    walked = pf.ops.langevin_run_(
        zero.clone(), wide, step_size=0.5, n_steps=9, first_step=step - 4, **where
    )
    total = zero.clone()
    for k in range(step - 4, step + 5):
        total += entries("proposal", k * dim)
    assert torch.equal(walked, total)
