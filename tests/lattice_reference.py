# SPDX-License-Identifier: Apache-2.0
"""Lattices once more in NumPy: raw words, one step of each kernel, and exact enumeration."""

import itertools
import math

import numpy as np


def words(seed, purpose, n_chains, start, n, offset=0):
    """Raw words ``start .. start + n - 1`` of each chain's sequence, ``(n_chains, n)`` uint64."""
    block = np.arange(start // 4, (start + n + 3) // 4, dtype=np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    rows = []
    for chain in range(offset, offset + n_chains):
        c = [block & low, block >> half]
        c += [
            np.full_like(block, chain & 0xFFFFFFFF),
            np.full_like(block, chain >> 32 | purpose << 24),
        ]
        for r in range(10):
            p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
            k0 = np.uint64((seed + r * 0x9E3779B9) & 0xFFFFFFFF)
            k1 = np.uint64(((seed >> 32) + r * 0xBB67AE85) & 0xFFFFFFFF)
            c = [p1 >> half ^ c[1] ^ k0, p1 & low, p0 >> half ^ c[3] ^ k1, p0 & low]
        rows.append(np.stack(c, 1).reshape(-1)[start % 4 : start % 4 + n])
    return np.stack(rows)


def threshold(p):
    return np.floor(np.asarray(p) * 2.0**32 + 0.5).astype(np.uint64)


def neighbours(x):
    """Sum over the 2 d neighbours, along the last dimension first."""
    total = 0
    for axis in range(x.ndim - 1, 0, -1):
        total = total + (np.roll(x, 1, axis) + np.roll(x, -1, axis))
    return total


def column(value, x):
    return np.asarray(value, dtype=float).reshape(-1, *[1] * (x.ndim - 1))


def ising_sweep(x, temperature, field, *, heat_bath, seed, step, offset=0):
    """One checkerboard sweep of spins ``(n, *shape)``."""
    volume = int(np.prod(x.shape[1:]))
    w = words(seed, 10, len(x), step * volume, volume, offset).reshape(x.shape)
    parity = sum(np.indices(x.shape[1:])) % 2
    temperature, field = column(temperature, x), column(field, x)
    for colour in (0, 1):
        total = neighbours(x.astype(int))
        local = total + field
        if heat_bath:
            mirrored = total > 0
            p = 1 / (1 + np.exp(np.where(mirrored, 2, -2) * local / temperature))
            new = np.where((w < threshold(p)) != mirrored, 1, -1)
        else:
            along = np.where(local >= 0, x == 1, x == -1)
            accepted = w < threshold(np.exp(-2 * np.abs(local) / temperature))
            new = np.where(~along | accepted, -x, x)
        x = np.where(parity == colour, new, x).astype(x.dtype)
    return x


def forward(site, shape):
    """Sites one step forward along each dimension, as flat indices."""
    at = np.unravel_index(site, shape)
    for j in range(len(shape)):
        ahead = list(at)
        ahead[j] = (ahead[j] + 1) % shape[j]
        yield j, int(np.ravel_multi_index(ahead, shape))


def open_bonds(spins, w, shape, temperature):
    """Pairs of sites whose bond holds; w holds the words of the bonds, site after site."""
    p, d = threshold(1 - math.exp(-2 / temperature)), len(shape)
    for site in range(len(spins)):
        for j, ahead in forward(site, shape):
            if spins[site] == spins[ahead] and w[site * d + j] < p:
                yield site, ahead


def swendsen_wang(x, temperature, field, *, seed, step, offset=0):
    x, shape = x.copy(), x.shape[1:]
    volume, d = int(np.prod(shape)), len(shape)
    bonds = words(seed, 10, len(x), step * volume * d, volume * d, offset)
    signs = words(seed, 1, len(x), step * volume, volume, offset)
    for row in range(len(x)):
        spins, label = x[row].reshape(-1), list(range(volume))
        changed = True
        while changed:
            changed = False
            for a, b in open_bonds(spins, bonds[row], shape, temperature):
                least = min(label[a], label[b])
                changed |= label[a] != label[b]
                label[a] = label[b] = least
        for root in set(label):
            size = label.count(root)
            p = threshold(1 / (1 + math.exp(-2 * field * size / temperature)))
            spins[np.array(label) == root] = 1 if signs[row, root] < p else -1
        x[row] = spins.reshape(shape)
    return x


def wolff(x, temperature, field, *, seed, step, offset=0):
    x, shape = x.copy(), x.shape[1:]
    volume, d = int(np.prod(shape)), len(shape)
    bonds = words(seed, 10, len(x), step * volume * d, volume * d, offset)
    starts = words(seed, 1, len(x), 4 * step, 2, offset)
    accepts = words(seed, 2, len(x), step, 1, offset)
    held = bonds.reshape(len(x), *shape, d) < threshold(1 - math.exp(-2 / temperature))
    for row, spins in enumerate(x):
        start = (int(starts[row, 0]) << 32 | int(starts[row, 1])) * volume >> 64
        links = [held[row, ..., j] & (spins == np.roll(spins, -1, j)) for j in range(d)]
        cluster, size = np.arange(volume).reshape(shape) == start, 0
        while size < (size := np.count_nonzero(cluster)):
            for j, link in enumerate(links):
                cluster = cluster | np.roll(cluster & link, 1, j)
                cluster = cluster | np.roll(cluster, -1, j) & link
        loss = 2 * spins.flat[start] * field * size
        if accepts[row, 0] < threshold(math.exp(-max(loss, 0) / temperature)):
            spins[cluster] *= -1
    return x


def enumerate_ising(shape, temperature, field=0.0):
    """Exact averages of a small lattice: e, C and m per site, |m|, m^2 and m^4."""
    volume = int(np.prod(shape))
    states = np.array(list(itertools.product((-1, 1), repeat=volume)), dtype=np.int8)
    grid = states.reshape(-1, *shape).astype(np.int32)
    bonds = sum(
        (grid * np.roll(grid, -1, a)).reshape(len(grid), -1).sum(1) for a in range(1, grid.ndim)
    )
    m = states.sum(1, dtype=np.int64)
    energy = -bonds - field * m
    weight = np.exp(-(energy - energy.min()) / temperature)
    weight /= weight.sum()

    def mean(values):
        return float((weight * values).sum())

    e = mean(energy)
    return {
        "e": e / volume,
        "C": (mean(energy.astype(float) ** 2) - e * e) / temperature**2 / volume,
        "m": mean(m) / volume,
        "|m|": mean(abs(m)) / volume,
        "m2": mean((m / volume) ** 2),
        "m4": mean((m / volume) ** 4),
    }
