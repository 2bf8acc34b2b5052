# SPDX-License-Identifier: Apache-2.0
"""Lattices: sweeps of the Ising model, steps of the phi^4 field, one lattice a chain, in place.

Parameters of a law are float64 tensors on the state's device, one value or one a lattice; the
native module checks them and the state. ``x`` is contiguous, ``(n_lattices, *shape)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import changed, check_device, no_grad_in_place, threads


@dataclass(frozen=True, eq=False)
class Phi4Parameters:
    """Couplings of the hopping form, float64, one value or one a lattice."""

    kappa: Tensor
    lam: Tensor
    field: Tensor


def parameter(value: Tensor | float, x: Tensor, name: str) -> Tensor:
    """Return ``value`` as the float64 tensor on the device of ``x`` that the lattice ops take."""
    check_device(x.device, "x")
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool or value.layout != torch.strided:
            raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
        check_device(value.device, name)
        return value.detach().to(x.device, torch.float64).contiguous()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    try:
        return torch.full((), float(value), dtype=torch.float64, device=x.device)
    except OverflowError:
        raise ValueError(f"{name}: expected a finite number, got {value}") from None


def ising_sweeps(
    x: Tensor,
    *,
    temperature: Tensor,
    field: Tensor,
    no_field: bool,
    heat_bath: bool,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
) -> None:
    """Take ``n_steps`` checkerboard sweeps of the Ising model in place.

    ``no_field`` says that every field is zero, which spares comparisons.
    """
    check_device(x.device, "x")
    no_grad_in_place("ising_sweeps", x)
    _native.ising(
        x, temperature, field, no_field, heat_bath, seed, first_step, n_steps, chain_offset,
        threads(),
    )  # fmt: skip
    changed(x)


def ising_clusters(
    x: Tensor,
    *,
    temperature: Tensor,
    field: Tensor,
    wolff: bool,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
) -> None:
    """Take ``n_steps`` cluster moves in place: of one cluster each, or of all clusters."""
    check_device(x.device, "x")
    if x.device.type != "cpu":
        raise RuntimeError(f"x: expected a tensor on the CPU for cluster moves, got {x.device}")
    no_grad_in_place("ising_clusters", x)
    _native.clusters(
        x, temperature, field, wolff, seed, first_step, n_steps, chain_offset, threads()
    )
    changed(x)


_LANGEVIN, _MALA, _HMC, _METROPOLIS = range(4)


def phi4_langevin_run(
    x: Tensor,
    parameters: Phi4Parameters,
    *,
    step_size: Tensor | float,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    n_nonfinite: Tensor | None = None,
) -> None:
    """Take ``n_steps`` Langevin steps in place; one that is not finite is counted, not taken."""
    _phi4_run(
        x, _LANGEVIN, parameters, step_size, 1, seed, first_step, n_steps, chain_offset, None,
        n_nonfinite,
    )  # fmt: skip


def phi4_mala_run(
    x: Tensor,
    parameters: Phi4Parameters,
    *,
    step_size: Tensor | float,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    accept: Tensor | None = None,
    n_nonfinite: Tensor | None = None,
) -> None:
    """Take ``n_steps`` of MALA in place.

    ``accept``, float64 ``(n_lattices, 2)``, is incremented by min(1, ratio) and its square.
    """
    _phi4_run(
        x, _MALA, parameters, step_size, 1, seed, first_step, n_steps, chain_offset, accept,
        n_nonfinite,
    )  # fmt: skip


def phi4_hmc_run(
    x: Tensor,
    parameters: Phi4Parameters,
    *,
    step_size: Tensor | float,
    n_leapfrog: int,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    accept: Tensor | None = None,
    n_nonfinite: Tensor | None = None,
) -> None:
    """Take ``n_steps`` trajectories of ``n_leapfrog`` leapfrog steps in place."""
    _phi4_run(
        x, _HMC, parameters, step_size, n_leapfrog, seed, first_step, n_steps, chain_offset,
        accept, n_nonfinite,
    )  # fmt: skip


def phi4_metropolis_run(
    x: Tensor,
    parameters: Phi4Parameters,
    *,
    width: Tensor | float,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
) -> None:
    """Take ``n_steps`` checkerboard sweeps of site moves, uniform in ``[-width, width]``."""
    _phi4_run(
        x, _METROPOLIS, parameters, width, 1, seed, first_step, n_steps, chain_offset, None, None
    )  # fmt: skip


def phi4_log_density_and_score(
    x: Tensor, parameters: Phi4Parameters, *, value: bool = True, score: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Return ``log pi`` ``(n_lattices,)`` and its gradient, like ``x``; those that are wanted."""
    check_device(x.device, "x")
    log_density = x.new_empty(x.shape[:1]) if value else None
    gradient = torch.empty_like(x, memory_format=torch.contiguous_format) if score else None
    p = parameters
    memory = _workspace(x)
    _native.phi4_evaluate(x, p.kappa, p.lam, p.field, log_density, gradient, memory, threads())
    return log_density, gradient


def _workspace(x: Tensor) -> Tensor | None:
    """Return what a GPU works in where a lattice does not fit its shared memory (``ops.hpp``)."""
    if x.device.type == "cpu" or x.ndim < 2 or x.shape[-1] == 0:
        return None
    sites = x.shape[1:].numel()
    needed = 5 * sites * x.element_size() + sites // x.shape[-1] * 8 + 32
    return torch.empty(len(x) * needed, dtype=torch.uint8, device=x.device)


def _phi4_run(
    x: Tensor,
    move: int,
    parameters: Phi4Parameters,
    step_size: Tensor | float,
    n_leapfrog: int,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    accept: Tensor | None,
    n_nonfinite: Tensor | None,
) -> None:
    no_grad_in_place("phi4_run", x)
    h = parameter(step_size, x, "width" if move == _METROPOLIS else "step_size")
    if not bool((h.isfinite() & (h > 0)).all()):
        raise ValueError(f"step_size: expected positive finite values, got {step_size}")
    p = parameters
    _native.phi4_run(
        x, move, p.kappa, p.lam, p.field, h, n_leapfrog, seed, first_step, n_steps, chain_offset,
        accept, n_nonfinite, _workspace(x), threads(),
    )  # fmt: skip
    changed(x)
