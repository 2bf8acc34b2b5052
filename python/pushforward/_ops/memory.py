# SPDX-License-Identifier: Apache-2.0
"""Memory of tensors, handled without torch's threads where it is a CPU's.

A forked child would wait for those threads in vain; elsewhere they go on spinning for milliseconds
after their work, and take the cores from the kernels that follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import HALVES, check_device, threads

_LARGE = 4 << 20  # bytes from which fresh memory is worth huge pages
_HUGE_PAGE, _LINE = 2 << 20, 64  # bytes of one; of a line of the caches


def empty(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return fresh memory, on huge pages where it is large; its size is checked first."""
    check_device(device, "device")
    if dtype not in (torch.float32, torch.float64, *HALVES):
        raise TypeError(f"dtype: expected float32, float64, bfloat16 or float16, got {dtype}")
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size >= 2**63:
        raise ValueError(f"shape: expected fewer than 2**63 bytes, got {tuple(shape)} of {dtype}")
    out = torch.empty(shape, dtype=dtype, device=device)
    if size >= _LARGE and device.type == "cpu" and not torch.compiler.is_compiling():
        _native.advise_huge_pages(out)
    return out


def zeros(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeroed memory of an eight-byte type.

    The system zeroes a CPU's page by page as it is first touched.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    size = math.prod(shape)
    huge = 8 * size >= _LARGE
    unit = (_HUGE_PAGE if huge else _LINE) // 8  # words; what is not used has no page
    words = np.zeros(size + 2 * unit, np.int64)
    begin = -words.ctypes.data // 8 % unit
    if huge:
        _native.advise_huge_pages(torch.from_numpy(words))
    return torch.from_numpy(words[begin : begin + size].reshape(shape)).view(dtype)


def sums_about(x: Tensor, n_sums: int, *, in_groups: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ``n_sums`` zeroed float64 sums like ``x``, a copy of ``x``, and an open group or None.

    They lie in one block, which costs fewer pages to touch: what they are first used for waits for
    them.
    """
    n, width = x.numel(), x.element_size()
    group = 3 * n + len(x) if in_groups else 0
    words = [8 * max(1, -(-size // 64)) for size in (8 * n_sums * n, width * n, width * group)]
    sums, shift, opened = zeros((sum(words),), dtype=torch.int64, device=x.device).split(words)
    return (
        sums.view(torch.float64)[: n_sums * n].view(n_sums, *x.shape),
        copy_(shift.view(x.dtype)[:n].view(x.shape), x),
        opened.view(x.dtype)[:group] if in_groups else None,
    )


def copied(tensor: Tensor) -> Tensor:
    """Return a contiguous copy without history."""
    out = torch.empty_like(tensor, memory_format=torch.contiguous_format, requires_grad=False)
    return copy_(out, tensor.detach())


def copy_(to: Tensor, source: Tensor) -> Tensor:
    """Write ``source`` into ``to``, of the same type and shape and apart, and return ``to``."""
    if not (_is_cpus(to) and _is_cpus(source)):
        return to.copy_(source)
    if to.is_contiguous() and source.is_contiguous():
        _native.copy(to, source, threads())
    else:
        np.copyto(_bits(to), _bits(source))
    return to


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are."""
    if not _is_cpus(tensor) or tensor.dtype == torch.bfloat16:
        return bool(tensor.isfinite().all())
    return bool(np.isfinite(tensor.detach().numpy()).all())


def _is_cpus(tensor: Tensor) -> bool:
    """Whether NumPy can see it: plain memory of a CPU, with nothing still to be done to it."""
    lazy = tensor.is_neg() or tensor.is_conj()
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not lazy


def _bits(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a view that NumPy has a type for."""
    return (tensor.view(torch.int16) if tensor.dtype in HALVES else tensor).numpy()
