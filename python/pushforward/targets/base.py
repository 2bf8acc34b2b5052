# SPDX-License-Identifier: Apache-2.0
"""What every native target offers: a density, a score, exact draws and exact moments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from pushforward import _ops, random


class Kind(IntEnum):
    """The kernels' numbers for the native targets (``TargetKind`` in ``csrc/core/view.hpp``)."""

    GAUSSIAN_DIAGONAL = 0
    GAUSSIAN_DENSE = 1
    MIXTURE_ISOTROPIC = 2
    MIXTURE_DIAGONAL = 3
    MIXTURE_DENSE = 4
    DOUBLE_WELL = 5
    BANANA = 6
    FUNNEL = 7
    RING = 8


class NativeTarget(ABC):
    """A law on ``R^dim`` that the fused kernels know, and that torch can evaluate as well.

    Parameters are held in float64 and given to each call in the precision of its state.
    """

    kind: Kind
    dim: int
    n_components: int = 0
    _parameters: tuple[Tensor, ...] = ()
    _scalars: tuple[float, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"{type(self).__name__} is immutable")
        super().__setattr__(name, value)

    # ---- the law ---------------------------------------------------------------------------------

    def log_density(self, x: Tensor) -> Tensor:
        """Return ``log pi`` at ``x``, up to ``log_z``.

        Computed by the native kernel, or in plain torch where a gradient is wanted, under
        ``torch.compile``, and on devices without ops.

        Args:
            x: points, shape ``(n, dim)``.

        Returns:
            Shape ``(n,)``.

        Raises:
            ValueError: ``x`` has another shape.

        """
        self._check(x)
        if _is_native(x):
            return _ops.log_density(x, self)
        return self.torch_log_density(x)

    def score(self, x: Tensor) -> Tensor:
        """Return the gradient of :meth:`log_density` at ``x``, shape ``(n, dim)``."""
        self._check(x)
        if _is_native(x):
            return _ops.score(x, self)
        return self.torch_score(x)

    @abstractmethod
    def torch_log_density(self, x: Tensor) -> Tensor:
        """Return :meth:`log_density` in plain torch: differentiable, on any device."""

    def torch_score(self, x: Tensor) -> Tensor:
        """Return :meth:`score` by differentiating :meth:`torch_log_density`."""
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            value = self.torch_log_density(at).sum()
            (gradient,) = torch.autograd.grad(value, at, create_graph=x.requires_grad)
        return gradient

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        chain_offset: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw exactly from the law.

        Args:
            n: number of draws.
            seed: see :func:`pushforward.random.resolve_seed`.
            chain_offset: index of the first draw, so that ``sample`` may be split anywhere.
            dtype: type of the result; the numbers are made in float64.

        Returns:
            Shape ``(n, dim)``.

        """
        n = _ops.count(n, "n")
        draws = self._draw(n, random.resolve_seed(seed), _ops.count(chain_offset, "chain_offset"))
        return draws.to(dtype)

    @abstractmethod
    def _draw(self, n: int, seed: int, chain_offset: int) -> Tensor: ...

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Exact mean, float64 ``(dim,)``."""

    @property
    @abstractmethod
    def covariance(self) -> Tensor:
        """Exact covariance, float64 ``(dim, dim)``."""

    @property
    def log_z(self) -> float:
        """Logarithm of the integral of ``exp(log_density)``; 0 for a normalised law."""
        return 0.0

    # ---- the kernels' view -----------------------------------------------------------------------

    def native_arguments(
        self, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> tuple[int, int, int, list[Tensor], list[float]]:
        """Return kind, dim, n_components, tensors of ``dtype`` on ``device``, three scalars."""
        scalars = [*self._scalars, 0.0, 0.0, 0.0][:3]
        tensors = [p.to(dtype).to(device) for p in self._parameters]
        return int(self.kind), self.dim, self.n_components, tensors, scalars

    def native(self, x: Tensor) -> _ops.NativeHandle:
        """Return the kernels' handle for states of the type and device of ``x``, made once."""
        handles = self.__dict__.setdefault("_handles", {})
        dtype, key = x.dtype, (x.dtype, x.device)
        if key not in handles:
            kind, dim, k, tensors, scalars = self.native_arguments(dtype, x.device)
            largest = torch.finfo(dtype).max
            if not all(bool(t.isfinite().all()) for t in tensors) or any(
                abs(s) > largest for s in scalars
            ):
                raise ValueError(f"target: its parameters overflow {dtype}; use float64 states")
            handles[key] = _ops.NativeHandle(kind, dim, k, tensors, *scalars)
        return handles[key]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handles out of copies."""
        return {k: v for k, v in self.__dict__.items() if k != "_handles"}

    def check_event(self, event: torch.Size) -> None:
        """Raise ValueError unless states of shape ``(n_chains, *event)`` have ``dim`` numbers."""
        if event.numel() != self.dim:
            raise ValueError(
                f"x: expected shape (n_chains, {self.dim}) for this target, got event shape "
                f"{tuple(event)}"
            )

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x: expected shape (n, {self.dim}), got {tuple(x.shape)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim})"


def _is_native(x: Tensor) -> bool:
    known = x.device.type in _ops.DEVICES and x.dtype in (torch.float32, torch.float64)
    return known and _ops.is_plain(x)


def vector(value: Any, name: str) -> Tensor:
    """Return ``value`` as a finite float64 vector."""
    return finite(value, name, 1)


def finite(value: Any, name: str, ndim: int | tuple[int, ...]) -> Tensor:
    """Return ``value`` as a finite float64 tensor of ``ndim`` dimensions, detached and copied."""
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    try:
        if isinstance(value, Tensor):
            tensor = value.detach().to("cpu", torch.float64, copy=True)
        else:
            tensor = torch.tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a tensor of numbers, got {value!r}") from error
    if tensor.ndim not in allowed:
        wanted = " or ".join(str(n) for n in allowed)
        raise ValueError(f"{name}: expected {wanted} dimensions, got shape {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got inf or nan")
    return tensor


def number(value: Any, name: str, *, positive: bool = False) -> float:
    """Return ``value`` as a finite float."""
    odd = isinstance(value, Tensor) and (value.is_complex() or value.dtype == torch.bool)
    if odd or isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from error
    if not math.isfinite(result) or (positive and result <= 0):
        wanted = "a positive finite number" if positive else "a finite number"
        raise ValueError(f"{name}: expected {wanted}, got {result}")
    return result


def cholesky(matrix: Tensor, name: str) -> Tensor:
    """Return the Cholesky factors of symmetric positive definite matrices."""
    scale = matrix.abs().amax(dim=(-2, -1), keepdim=True)
    if ((matrix - matrix.mT).abs() > 1e-6 * scale).any():
        raise ValueError(f"{name}: expected a symmetric matrix, got an asymmetric one")
    factor, info = torch.linalg.cholesky_ex((matrix + matrix.mT) / 2)
    if info.any():
        raise ValueError(f"{name}: expected a positive definite matrix, got an indefinite one")
    return factor


def lower_product(factor: Tensor, z: Tensor) -> Tensor:
    """Return ``z @ factor.T`` for lower-triangular ``factor``, in one fixed order of sums.

    ``factor`` is ``(dim, dim)`` or, one a row of ``z``, ``(n, dim, dim)``.
    """
    out = torch.zeros_like(z)
    for j in range(z.shape[1]):
        out = torch.addcmul(out, z[:, j : j + 1], factor[..., j])
    return out


def normals(n: int, dim: int, seed: int, chain_offset: int) -> Tensor:
    """Return the float64 normals that exact draws are made of."""
    return random.normal(
        n, dim, seed=seed, purpose="target", chain_offset=chain_offset, dtype=torch.float64
    )


def choices(n: int, m: int, seed: int, chain_offset: int, start: int = 0) -> Tensor:
    """Return the float64 uniforms that choose components and accept proposals."""
    return random.uniform(
        n,
        m,
        seed=seed,
        purpose="choice",
        start=start,
        chain_offset=chain_offset,
        dtype=torch.float64,
    )
