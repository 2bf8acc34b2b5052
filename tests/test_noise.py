# SPDX-License-Identifier: Apache-2.0
"""The noise contract: known answers, exact words, borders, splits, threads, CPU levels, readers."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import pushforward as pf
from noise_reference import (
    DTYPES,
    FLOAT32,
    FLOAT64,
    PER_BLOCK,
    SEED,
    check,
    draw,
    expected_words,
    philox,
)
from pushforward import _reference

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
