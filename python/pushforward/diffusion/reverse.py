# SPDX-License-Identifier: Apache-2.0
"""The reverse family of Anderson (notes, section 6.2.2)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.diffusion.process import OrnsteinUhlenbeck
from pushforward.targets.base import number

Score = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def reverse(
    score: Score,
    process: OrnsteinUhlenbeck,
    x_T: Tensor,
    *,
    times: Sequence[float] | Tensor,
    alpha: float = 1.0,
    seed: int | torch.Generator | None = None,
    chain_offset: int = 0,
) -> Tensor:
    r"""Carry noise back to data with the family of eq 135, by Euler-Maruyama.

    With time ``s`` running backwards,

    .. math:: dy = \left[\kappa y + (1+\alpha)\tfrac{\sigma^2}{2}\nabla\log p_t(y)\right] ds
        + \sigma\sqrt{\alpha}\,dW.

    Every ``alpha`` has the same marginals in the continuum: 0 is the probability-flow ODE and 1
    Anderson's reverse diffusion. Step ``k`` goes from ``times[k]`` to ``times[k + 1]``.

    Args:
        score: ``score(x, t) -> like x``, the gradient of ``log p_t``; ``t`` is a 0-d tensor.
        process: the forward process.
        x_T: start ``(n_chains, *event)`` at ``times[0]``, float32 or float64. Not changed.
        times: strictly decreasing, ``times[-1] >= 0``.
        alpha: ``>= 0``, how much noise is added on the way.
        seed: see :func:`pushforward.random.resolve_seed`.
        chain_offset: global index of the first chain.

    Returns:
        The state at ``times[-1]``, like ``x_T``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or ``score`` returns another shape.

    Reference: B. D. O. Anderson (1982), Reverse-time diffusion equation models, Stochastic
    Processes and their Applications 12.

    Example:
        >>> import pushforward as pf, torch
        >>> process = pf.diffusion.OrnsteinUhlenbeck()
        >>> def score(x, t):  # of N(3, 1) data
        ...     return 3 * process.mean_scale(t) - x
        >>> x = pf.random.normal(20000, 1, seed=0)
        >>> times = torch.linspace(5, 0, 101).tolist()
        >>> y = pf.diffusion.reverse(score, process, x, times=times, seed=0)
        >>> bool((y.mean() - 3).abs() < 0.1)
        True

    """
    grid = _grid(times)
    alpha = number(alpha, "alpha")
    if alpha < 0:
        raise ValueError(f"alpha: expected a finite number >= 0, got {alpha}")
    if not isinstance(process, OrnsteinUhlenbeck):
        raise TypeError(f"process: expected an OrnsteinUhlenbeck, got {type(process).__name__}")
    _ops.check_tensor(x_T, "x_T")
    if x_T.ndim == 0:
        raise ValueError("x_T: expected shape (n_chains, *event), got a 0-d tensor")
    if not bool(x_T.isfinite().all()):
        raise ValueError("x_T: expected finite values, got inf or nan")
    seed = random.resolve_seed(seed)
    x = x_T.detach().clone(memory_format=torch.contiguous_format)
    kappa, sigma = process.kappa, process.diffusion
    for step, (t, after) in enumerate(pairwise(grid)):
        ds = t - after
        gradient = score(x, torch.full((), t, dtype=x.dtype, device=x.device))
        _check_score(gradient, x)
        _ops.reverse_step_(
            x,
            gradient.detach(),
            growth=1 + kappa * ds,
            drift_scale=(1 + alpha) * 0.5 * sigma**2 * ds,
            noise_scale=sigma * math.sqrt(alpha * ds),
            seed=seed,
            step=step,
            chain_offset=chain_offset,
        )
    bad = int((~x.reshape(len(x), x[:1].numel()).isfinite().all(1)).sum())
    if bad:
        warnings.warn(
            f"{bad} of {len(x)} chains left the finite numbers on the way back",
            RuntimeWarning,
            stacklevel=2,
        )
    return x


def _check_score(gradient: Any, x: Tensor) -> None:
    if not isinstance(gradient, Tensor):
        raise TypeError(f"score: expected it to return a tensor, got {type(gradient).__name__}")
    if gradient.shape != x.shape or gradient.dtype != x.dtype:
        raise ValueError(
            f"score: expected a tensor like x, {tuple(x.shape)} of {x.dtype}, got "
            f"{tuple(gradient.shape)} of {gradient.dtype}"
        )


def _grid(times: Any) -> list[float]:
    try:
        if isinstance(times, Tensor):
            real = times.ndim == 1 and not times.is_complex()
            times = times.detach().double().tolist() if real else None
        grid = [float(t) for t in times]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError("times: expected a sequence of numbers or a 1-d tensor") from error
    if len(grid) < 2 or not all(math.isfinite(t) for t in grid):
        raise ValueError(f"times: expected at least two finite times, got {grid}")
    if any(a <= b for a, b in pairwise(grid)) or grid[-1] < 0:
        raise ValueError(
            "times: expected strictly decreasing times that end at 0 or above, got "
            f"{grid[:3]} ... {grid[-1]}"
        )
    return grid
