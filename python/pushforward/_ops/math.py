# SPDX-License-Identifier: Apache-2.0
"""The package's own functions, element by element, for the tests."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    threads,
)

MATH_FUNCTIONS = ("exp", "log", "log1p", "tanh", "sinpi", "cospi")


def elementwise_math(name: str, x: Tensor) -> Tensor:
    """Return one of :data:`MATH_FUNCTIONS` of ``x`` as the kernels compute it."""
    out = torch.empty_like(x)
    _native.math(MATH_FUNCTIONS.index(name), x, out, threads())
    return out
