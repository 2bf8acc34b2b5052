# SPDX-License-Identifier: Apache-2.0
"""Each op again in a few lines of plain torch, with the op's own signature.

This is what the ops mean: the oracle of the tests and the short form of the documentation.
Nothing here is fast, and rounding differs from the native kernels in the last places.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pushforward.targets import NativeTarget

_MASK = 0xFFFFFFFF


def philox_words(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Return the four words of one Philox4x32-10 block, in Python integers."""
    c, (k0, k1) = counter, key
    for r in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        key0, key1 = (k0 + r * 0x9E3779B9) & _MASK, (k1 + r * 0xBB67AE85) & _MASK
        c = (p1 >> 32 ^ c[1] ^ key0, p1 & _MASK, p0 >> 32 ^ c[3] ^ key1, p0 & _MASK)
    return c


def words(rows: int, entries: Tensor, seed: int, purpose: int, chain_offset: int) -> Tensor:
    """Return the blocks ``entries`` of each row's sequence, ``(rows, len(entries), 4)`` int64."""
    chain = (torch.arange(rows) + chain_offset)[:, None].expand(rows, len(entries))
    block = entries.expand(rows, len(entries))
    c = [block & _MASK, (block >> 32) & _MASK, chain & _MASK, chain >> 32 | purpose << 24]
    for r in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]  # int64 wraps, the 64 bits stay right
        key0 = ((seed & _MASK) + r * 0x9E3779B9) & _MASK
        key1 = ((seed >> 32) + r * 0xBB67AE85) & _MASK
        high0, high1 = (p0 >> 32) & _MASK, (p1 >> 32) & _MASK
        c = [high1 ^ c[1] ^ key0, p1 & _MASK, high0 ^ c[3] ^ key1, p0 & _MASK]
    return torch.stack(c, -1)


def uniform(
    rows: int, n: int, *, seed: int, purpose: int, start: int, chain_offset: int, dtype: torch.dtype
) -> Tensor:
    """Return uniforms in (0, 1], entries start .. start + n - 1."""
    single = dtype == torch.float32
    per_block = 4 if single else 2
    first, last = start // per_block, -(-(start + n) // per_block)
    w = words(rows, torch.arange(first, last), seed, purpose, chain_offset)
    if single:
        u = torch.addcmul(
            w.new_tensor(2.0**-33, dtype=torch.float64),
            w.float().double(),
            w.new_tensor(2.0**-32, dtype=torch.float64),
        ).float()
    else:
        u = (((w[..., 0::2] << 21) | (w[..., 1::2] >> 11)).double() + 0.5) * 2.0**-53
    return u.flatten(1)[:, start - first * per_block :][:, :n]


def normal(
    rows: int, n: int, *, seed: int, purpose: int, start: int, chain_offset: int, dtype: torch.dtype
) -> Tensor:
    """Return standard normals by Box-Muller over the pairs of uniforms."""
    first = start - start % 2
    u = uniform(
        rows,
        n + (start % 2) + (start + n) % 2,
        seed=seed,
        purpose=purpose,
        start=first,
        chain_offset=chain_offset,
        dtype=dtype,
    ).double()
    radius, angle = (-2 * u[:, 0::2].log()).sqrt(), 2 * math.pi * u[:, 1::2]
    z = torch.stack((radius * angle.cos(), radius * angle.sin()), -1)
    return z.flatten(1)[:, start - first :][:, :n].to(dtype)


def _noise(x: Tensor, purpose: int, seed: int, step: int, chain_offset: int) -> Tensor:
    dim = x[0].numel() if len(x) else 0
    return normal(
        len(x),
        dim,
        seed=seed,
        purpose=purpose,
        start=step * dim,
        chain_offset=chain_offset,
        dtype=x.dtype,
    ).reshape(x.shape)


def _column(value: Tensor | float, x: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=x.dtype)
    return value.reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value


def langevin(
    x: Tensor,
    score: Tensor,
    *,
    step_size: Tensor | float,
    beta: Tensor | float = 1.0,
    seed: int,
    step: int,
    chain_offset: int = 0,
) -> Tensor:
    """Return x + h score + sqrt(2 h / beta) xi."""
    h, b = _column(step_size, x), _column(beta, x)
    return x + h * score + (2 * h / b).sqrt() * _noise(x, 1, seed, step, chain_offset)


def accept(
    x: Tensor,
    proposed: Tensor,
    log_density: Tensor,
    proposed_log_density: Tensor,
    *,
    correction: Tensor | float = 0.0,
    beta: Tensor | float = 1.0,
    seed: int,
    step: int,
    chain_offset: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states, their log-densities and the acceptance probabilities (algorithm 1)."""
    log_ratio = beta * (proposed_log_density - log_density) + correction
    valid = log_ratio < torch.inf
    u = uniform(
        len(x), 1, seed=seed, purpose=2, start=step, chain_offset=chain_offset, dtype=x.dtype
    )[:, 0]
    taken = valid & (u.log() <= log_ratio)
    probability = log_ratio.exp().clamp(max=1).where(valid, torch.zeros_like(log_ratio))
    return (
        proposed.where(taken.reshape(-1, *[1] * (x.ndim - 1)), x),
        proposed_log_density.where(taken, log_density),
        probability,
    )


def langevin_run(
    x: Tensor,
    target: NativeTarget,
    *,
    step_size: Tensor | float,
    beta: Tensor | float = 1.0,
    n_steps: int,
    seed: int,
    first_step: int = 0,
    chain_offset: int = 0,
) -> Tensor:
    """Return the state after n_steps Langevin steps."""
    for step in range(first_step, first_step + n_steps):
        moved = langevin(
            x,
            target.torch_score(x),
            step_size=step_size,
            beta=beta,
            seed=seed,
            step=step,
            chain_offset=chain_offset,
        )
        finite = moved.flatten(1).isfinite().all(1)
        x = torch.where(_column(finite, x).bool(), moved, x)
    return x


def diffuse(
    x: Tensor, *, mean_scale: Tensor | float, std: Tensor | float, seed: int, chain_offset: int = 0
) -> Tensor:
    """Return mean_scale x + std xi."""
    noise = _noise(x, 6, seed, 0, chain_offset)
    return _column(mean_scale, x) * x + _column(std, x) * noise


def reverse_step(
    x: Tensor,
    score: Tensor,
    *,
    growth: Tensor | float,
    drift_scale: Tensor | float,
    noise_scale: Tensor | float,
    seed: int,
    step: int,
    chain_offset: int = 0,
) -> Tensor:
    """Return growth x + drift_scale score + noise_scale xi."""
    noise = _noise(x, 7, seed, step, chain_offset)
    return (
        _column(growth, x) * x + _column(drift_scale, x) * score + _column(noise_scale, x) * noise
    )
