# SPDX-License-Identifier: Apache-2.0
"""Laws of the noise: moments, Kolmogorov-Smirnov, correlations of chains, seeds and purposes."""

import math

import numpy as np
import pytest
import torch

import pushforward as pf
from noise_reference import DTYPES

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


def test_fold_in_gives_distinct_seeds():
    children = [pf.random.fold_in(s, i) for s in range(20) for i in range(200)]
    assert len(set(children)) == len(children)  # a collision has odds 4000^2 / 2^64
    assert all(0 <= child < 2**63 for child in children)
    assert all(type(child) is int for child in children)
    # Uniform over the range: the mean of 4000 has deviation 2^63 / sqrt(12 * 4000).
    mean = sum(children) / len(children) / 2**63
    assert abs(mean - 0.5) * math.sqrt(12 * 4000) < MANY_DEVIATIONS
    assert pf.random.fold_in(3, 7) == pf.random.fold_in(3, 7)
