# SPDX-License-Identifier: Apache-2.0
"""Markov chain kernels, as frozen descriptions that :func:`pushforward.sample` runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pushforward import _ops
from pushforward.targets import NativeTarget

__all__ = ["Kernel", "Langevin"]


class Kernel(Protocol):
    """What the driver asks of a Markov chain kernel."""

    def prepare(self, x: Tensor) -> Kernel:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        ...

    def run(self, x: Tensor, target: NativeTarget, **chunk: Any) -> None:
        """Take ``n_steps`` on a native target in place (see ``_ops.langevin_chunk``)."""
        ...

    def propose(
        self,
        x: Tensor,
        score: Tensor,
        out: Tensor,
        *,
        seed: int,
        step: int | Tensor,
        chain_offset: int,
    ) -> None:
        """Write the next state of a torch target, whose score at ``x`` is given, into ``out``."""
        ...


@dataclass(frozen=True, eq=False)
class Langevin:
    r"""Overdamped Langevin dynamics without correction (eq 119, 122).

    .. math:: x' = x + h\,\nabla\log\pi(x) + \sqrt{2h/\beta}\;\xi

    The law it leaves invariant differs from ``pi**beta`` at order ``h``: on ``U = x**2 / 2`` its
    variance is ``1 / (1 - h / 2)``.

    Args:
        step_size: ``h > 0``, a number or one value a chain, shape ``(n_chains,)``.
        beta: inverse temperature, likewise.

    Raises:
        TypeError: a parameter is neither a number nor a tensor.
        ValueError: a parameter is not positive and finite.

    Reference: G. Parisi (1981), Correlation functions and computer simulations, Nucl. Phys. B 180.

    Example:
        >>> import pushforward as pf
        >>> pf.Langevin(step_size=0.1)
        Langevin(step_size=0.1, beta=1.0)

    """

    step_size: Tensor | float
    beta: Tensor | float = 1.0

    def __post_init__(self) -> None:
        for name in ("step_size", "beta"):
            value = getattr(self, name)
            _check_positive(value, name)
            if isinstance(value, Tensor):  # the caller's may change
                object.__setattr__(self, name, value.detach().clone())

    def prepare(self, x: Tensor) -> Langevin:
        """Return the kernel with its parameters checked against the state ``x`` and in its type."""
        return Langevin(
            _per_chain(self.step_size, x, "step_size"), _per_chain(self.beta, x, "beta")
        )

    def run(self, x: Tensor, target: NativeTarget, **chunk: Any) -> None:
        """Take ``n_steps`` on a native target in place."""
        _ops.langevin_chunk(x, target, step_size=self.step_size, beta=self.beta, **chunk)

    def propose(
        self,
        x: Tensor,
        score: Tensor,
        out: Tensor,
        *,
        seed: int,
        step: int | Tensor,
        chain_offset: int,
    ) -> None:
        """Write the next state into ``out``."""
        _ops.langevin(
            x,
            score,
            step_size=self.step_size,
            beta=self.beta,
            seed=seed,
            step=step,
            chain_offset=chain_offset,
            out=out,
        )


def _check_positive(value: Any, name: str) -> None:
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.ndim > 1:
            raise ValueError(
                f"{name}: expected a floating point tensor of shape () or (n_chains,), got "
                f"{value.dtype} of shape {tuple(value.shape)}"
            )
        if not bool((value.isfinite() & (value > 0)).all()):
            raise ValueError(f"{name}: expected positive finite values, got {value}")
    elif isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    elif not (math.isfinite(float(value)) and float(value) > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {float(value)}")


def _per_chain(value: Tensor | float, x: Tensor, name: str) -> Tensor | float:
    if not isinstance(value, Tensor):
        return float(value)
    if value.ndim == 1 and len(value) != len(x):
        raise ValueError(
            f"{name}: expected one value a chain, shape ({len(x)},), got {tuple(value.shape)}"
        )
    converted = value.detach().to(x)
    _check_positive(converted, name)  # a positive float64 may be zero in float32
    return converted
