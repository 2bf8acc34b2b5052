# SPDX-License-Identifier: Apache-2.0
"""What the diagnostics share: checks, float64, autocovariances by FFT, work in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Numbers worked on at a time: 32 MiB of float64, a few times that with the temporaries."""


def real(x: Any, name: str) -> Tensor:
    """Return ``x`` without its gradient after checking that it is a tensor of real numbers."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {x.dtype}")
    if x.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got layout {x.layout}")
    return x.detach()


def series_of(x: Any, name: str, least: int) -> Tensor:
    """Return ``x`` checked to be ``(n, ...)`` with ``n >= least``."""
    x = real(x, name)
    if x.ndim == 0 or len(x) < least:
        raise ValueError(
            f"{name}: expected at least {least} entries along dim 0, got shape {tuple(x.shape)}"
        )
    return x


def constant(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Whether all numbers along ``dims``, which are kept, are one and the same."""
    return x.amax(dims, keepdim=True) == x.amin(dims, keepdim=True)


def autocovariance(x: Tensor) -> Tensor:
    """Return the sums over t of ``x[..., t] x[..., t + lag]``, for each lag, along the last dim.

    Padded with zeros, so that the ends do not meet; ``x`` should be centred.
    """
    n = x.shape[-1]
    if x.numel() == 0:  # some FFT libraries refuse
        return x
    length = _fft_length(2 * n - 1)
    spectrum = torch.fft.rfft(x, n=length)
    power = spectrum.real.square_().add_(spectrum.imag.square_())
    return torch.fft.irfft(power, n=length)[..., :n]


def mean_autocovariance(x: Tensor) -> Tensor:
    """Return the autocovariance of ``(d, n_chains, n)`` averaged over the chains, ``(d, n)``.

    Each sum is divided by ``n`` and nothing is subtracted. The transform is linear in the power
    spectrum, so one inverse transform does for all chains.
    """
    d, n_chains, n = x.shape
    if x.numel() == 0:
        return x.new_zeros(d, n)
    length = _fft_length(2 * n - 1)
    power = torch.zeros(d, length // 2 + 1, dtype=torch.float64, device=x.device)
    for part in x.split(max(1, CHUNK // max(1, d * length)), dim=1):
        spectrum = torch.fft.rfft(part, n=length)
        power += spectrum.real.square_().add_(spectrum.imag.square_()).sum(1)
    return torch.fft.irfft(power, n=length)[:, :n] / (n * n_chains)


def _fft_length(least: int) -> int:
    """Return the smallest 2**k or 3 * 2**k that is not below ``least``."""
    power = 1 << max(1, (least - 1).bit_length())
    shorter = 3 * (power >> 2)
    return shorter if shorter >= least and shorter % 2 == 0 else power


def by_pieces(
    compute: Callable[[Tensor], Tensor], x: Tensor, width: int, shape: tuple[int, ...]
) -> Tensor:
    """Apply ``compute`` to groups of rows of ``x`` and join the results as ``(*shape, ...)``.

    Args:
        compute: takes ``(d, ...)`` and returns ``(d, ...)``, row by row independent.
        x: a view of all rows, ``(rows, ...)``; a piece is made float64 and contiguous.
        width: numbers a row.
        shape: what the rows stand for; its product is the number of rows.

    """
    size = max(1, CHUNK // max(1, width))
    pieces = [
        compute(x[i : i + size].to(torch.float64).contiguous())
        for i in range(0, max(1, len(x)), size)
    ]
    joined = torch.cat(pieces)
    return joined.reshape((*shape, *joined.shape[1:]))
