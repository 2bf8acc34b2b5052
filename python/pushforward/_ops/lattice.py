# SPDX-License-Identifier: Apache-2.0
"""Lattices: sweeps of the Ising model, steps of the phi^4 field, one lattice a chain, in place.

Parameters of a law are float64 tensors on the state's device, one value or one a lattice; the
native module checks them and the state. ``x`` is contiguous, ``(n_lattices, *shape)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    Moments,
    a_chain,
    changed,
    check_device,
    gradient_of,
    implement,
    is_plain,
    library,
    like,
    moments_of,
    no_grad_in_place,
    parts_of,
    threads,
)


@dataclass(frozen=True, eq=False)
class Phi4Parameters:
    """Couplings of the hopping form, float64, one value or one a lattice."""

    kappa: Tensor
    lam: Tensor
    field: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three in the order of the native module."""
        return self.kappa, self.lam, self.field


def parameter(value: Tensor | float, x: Tensor, name: str) -> Tensor:
    """Return ``value`` as the float64 tensor on the device of ``x`` that the lattice ops take."""
    check_device(x.device, "x")
    if isinstance(value, Tensor):
        if _is_parameter(value, x):
            return value
        if value.is_complex() or value.dtype == torch.bool or value.layout != torch.strided:
            raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
        check_device(value.device, name)
        waits = x.device.type == "cpu"
        return value.detach().to(x.device, torch.float64, non_blocking=not waits).contiguous()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    try:
        return torch.full((), float(value), dtype=torch.float64, device=x.device)
    except OverflowError:
        raise ValueError(f"{name}: expected a finite number, got {value}") from None


def _is_parameter(value: Tensor, x: Tensor) -> bool:
    if value.dtype is not torch.float64 or value.device != x.device:
        return False
    return value.layout is torch.strided and value.is_contiguous() and not value.requires_grad


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
    accepted: Tensor | None = None,
    accepted_squares: Tensor | None = None,
    moments: Moments | None = None,
    steps_done: int = 0,
) -> None:
    """Take ``n_steps`` checkerboard sweeps of the Ising model in place.

    ``no_field`` says that every field is zero, which spares comparisons. ``accepted``, float64
    ``(n_lattices,)``, is incremented by the share of the spins that turned over in each sweep, and
    ``accepted_squares`` by its square; not for a heat bath. The streaming sums ``moments`` take
    every sweep after ``steps_done`` recorded ones. Their shift is a state, and what was added to
    them before was of spins, too: the sum of squares is written anew from the sum.
    """
    run = (
        temperature, field, no_field, heat_bath, seed, first_step, n_steps, chain_offset, accepted,
        accepted_squares,
    )  # fmt: skip
    if is_plain(x):
        _sweep(x, run, moments, steps_done)
        return
    no_grad_in_place("ising_sweeps", x)
    torch.ops.pushforward.ising_sweeps_(x, *run, *parts_of(moments), steps_done)


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
    moments: Moments | None = None,
    steps_done: int = 0,
) -> None:
    """Take ``n_steps`` cluster moves in place: of one cluster each, or of all clusters.

    The streaming sums are as in :func:`ising_sweeps`.
    """
    run = temperature, field, wolff, seed, first_step, n_steps, chain_offset
    if is_plain(x):
        _move_clusters(x, run, moments, steps_done)
        return
    no_grad_in_place("ising_clusters", x)
    torch.ops.pushforward.ising_clusters_(x, *run, *parts_of(moments), steps_done)


Phi4Move = Literal["langevin", "mala", "hmc", "metropolis"]
_MOVES: dict[Phi4Move, int] = {"langevin": 0, "mala": 1, "hmc": 2, "metropolis": 3}


def phi4_run(
    move: Phi4Move,
    x: Tensor,
    parameters: Phi4Parameters,
    step_size: Tensor | float,
    *,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    n_leapfrog: int = 1,
    jitter: float = 0.0,
    accepted: Tensor | None = None,
    accepted_squares: Tensor | None = None,
    n_nonfinite: Tensor | None = None,
    n_divergent: Tensor | None = None,
    moments: Moments | None = None,
    steps_done: int = 0,
) -> None:
    """Take ``n_steps`` of a move on phi^4 fields in place.

    Args:
        move: ``"langevin"``, ``"mala"``, ``"hmc"`` or ``"metropolis"``, a checkerboard sweep of
            site moves.
        x: fields.
        parameters: couplings.
        step_size: of a step or of a leapfrog; site moves are uniform up to it, either way.
        seed: ``0 <= seed < 2**63``.
        first_step: index of the first step.
        n_steps: number of steps.
        chain_offset: global index of the first lattice.
        n_leapfrog: leapfrog steps of a trajectory of ``"hmc"``.
        jitter: share of the step size that is drawn anew a trajectory, ``0 <= jitter < 1``; its
            uniforms are those of the purpose ``adaptation``.
        accepted: float64 ``(n_lattices,)``, incremented by min(1, ratio), or for ``"metropolis"``
            by the share of the sites that moved; not for ``"langevin"``.
        accepted_squares: the same of its square; goes with ``accepted``.
        n_nonfinite: int64 ``(n_lattices,)``, incremented where a step is not finite, which is not
            taken.
        n_divergent: likewise where a trajectory's energy grows by more than 1000.
        moments: streaming sums, added to.
        steps_done: steps recorded before this call.

    """
    plain, h = is_plain(x), step_size
    if not plain:
        no_grad_in_place("phi4_run", x)
    if not plain or type(h) is not float:  # a float is the native module's to check
        h = parameter(h, x, "width" if move == "metropolis" else "step_size")
    run = (
        _MOVES[move], parameters.kappa, parameters.lam, parameters.field, h, n_leapfrog, seed,
        first_step, n_steps, chain_offset, accepted, accepted_squares, n_nonfinite, n_divergent,
        jitter,
    )  # fmt: skip
    if plain:
        _run_phi4(x, run, moments, steps_done)
    else:
        torch.ops.pushforward.phi4_run_(x, *run, *parts_of(moments), steps_done)


def phi4_log_density(x: Tensor, parameters: Phi4Parameters) -> Tensor:
    """Return ``log pi`` ``(n_lattices,)``."""
    return _phi4_evaluated(x, parameters, "phi4_log_density")


def phi4_score(x: Tensor, parameters: Phi4Parameters) -> Tensor:
    """Return the gradient of :func:`phi4_log_density`, like ``x``."""
    return _phi4_evaluated(x, parameters, "phi4_score")


def _phi4_evaluated(x: Tensor, parameters: Phi4Parameters, name: str) -> Tensor:
    if is_plain(x):
        op = _phi4_log_density if name == "phi4_log_density" else _phi4_score
    else:
        op = getattr(torch.ops.pushforward, name)
    return op(x, *parameters.tensors())


def _workspace(x: Tensor, n_bytes: int) -> Tensor:
    """Return what a call works in on a GPU where a lattice does not fit its shared memory."""
    return torch.empty(n_bytes, dtype=torch.uint8, device=x.device)


_STEPS = "SymInt seed, SymInt first_step, SymInt n_steps, SymInt chain_offset"
_COUPLINGS = "Tensor kappa, Tensor lam, Tensor field"
_SUMS = (
    "Tensor? shift=None, Tensor(w!)? sum=None, Tensor(x!)? sum_of_squares=None, "
    "Tensor(y!)? sum_at_batch=None, Tensor(z!)? batch_squares=None, Tensor(v!)? open_group=None, "
    "SymInt batch=0, SymInt steps_done=0"
)
_NO_SUMS: tuple[Any, ...] = (None, None, None, None, None, None, 0, 0)
library.define(
    "ising_sweeps_(Tensor(a!) x, Tensor temperature, Tensor field, bool no_field, bool heat_bath, "
    f"{_STEPS}, Tensor(b!)? accepted, Tensor(c!)? accepted_squares, {_SUMS}) -> ()"
)
library.define(
    "ising_clusters_(Tensor(a!) x, Tensor temperature, Tensor field, bool wolff, "
    f"{_STEPS}, {_SUMS}) -> ()"
)
library.define(
    f"phi4_run_(Tensor(a!) x, int move, {_COUPLINGS}, Tensor step_size, SymInt n_leapfrog, "
    f"{_STEPS}, Tensor(b!)? accepted, Tensor(c!)? accepted_squares, Tensor(d!)? n_nonfinite, "
    f"Tensor(e!)? n_divergent=None, float jitter=0.0, {_SUMS}) -> ()"
)
library.define(f"phi4_log_density(Tensor x, {_COUPLINGS}) -> Tensor")
library.define(f"phi4_score(Tensor x, {_COUPLINGS}) -> Tensor")


def _split(arguments: tuple[Any, ...], n: int) -> tuple[tuple[Any, ...], Moments | None, int]:
    """Return the first ``n`` arguments of an op, its streaming sums and the steps done."""
    sums = (*arguments[n:], *_NO_SUMS[len(arguments) - n :])  # torch leaves defaults out
    return arguments[:n], moments_of(*sums[:-1]), sums[-1]


@implement("ising_sweeps_")
def _ising_sweeps(x: Tensor, *arguments: Any) -> None:
    _sweep(x, *_split(arguments, 10))


def _sweep(x: Tensor, run: tuple[Any, ...], moments: Moments | None, steps_done: int) -> None:
    check_device(x.device, "x")
    (
        temperature, field, no_field, heat_bath, seed, first_step, n_steps, chain_offset, accepted,
        accepted_squares,
    ) = run  # fmt: skip
    _native.ising(
        x, temperature, field, no_field, heat_bath, seed, first_step, n_steps, chain_offset,
        accepted, accepted_squares, moments, steps_done, _workspace, threads(),
    )  # fmt: skip
    changed(x, accepted, accepted_squares, moments=moments)


@implement("ising_clusters_")
def _ising_clusters(x: Tensor, *arguments: Any) -> None:
    _move_clusters(x, *_split(arguments, 7))


def _move_clusters(
    x: Tensor, run: tuple[Any, ...], moments: Moments | None, steps_done: int
) -> None:
    check_device(x.device, "x")
    temperature, field, wolff, seed, first_step, n_steps, chain_offset = run
    _native.clusters(
        x, temperature, field, wolff, seed, first_step, n_steps, chain_offset, moments, steps_done,
        _workspace, threads(),
    )  # fmt: skip
    changed(x, moments=moments)


@implement("phi4_run_")
def _phi4_run(x: Tensor, *arguments: Any) -> None:
    _run_phi4(x, *_split((*arguments, *(None, 0.0)[len(arguments) - 13 :]), 15))


def _run_phi4(x: Tensor, run: tuple[Any, ...], moments: Moments | None, steps_done: int) -> None:
    check_device(x.device, "x")
    (
        move, kappa, lam, field, step_size, n_leapfrog, seed, first_step, n_steps, chain_offset,
        accepted, accepted_squares, n_nonfinite, n_divergent, jitter,
    ) = run  # fmt: skip
    _native.phi4_run(
        x, move, kappa, lam, field, step_size, n_leapfrog, jitter, seed, first_step, n_steps,
        chain_offset, accepted, accepted_squares, n_nonfinite, n_divergent, moments, steps_done,
        _workspace, threads(),
    )  # fmt: skip
    changed(x, accepted, accepted_squares, n_nonfinite, n_divergent, moments=moments)


@implement("phi4_log_density")
def _phi4_log_density(x: Tensor, kappa: Tensor, lam: Tensor, field: Tensor) -> Tensor:
    value = a_chain(x)
    _evaluate_phi4(x, (kappa, lam, field), value, None)
    return value


@implement("phi4_score")
def _phi4_score(x: Tensor, kappa: Tensor, lam: Tensor, field: Tensor) -> Tensor:
    score = like(x)
    _evaluate_phi4(x, (kappa, lam, field), None, score)
    return score


def _evaluate_phi4(
    x: Tensor, couplings: tuple[Tensor, Tensor, Tensor], value: Tensor | None, score: Tensor | None
) -> None:
    check_device(x.device, "x")
    _native.phi4_evaluate(x, *couplings, value, score, _workspace, threads())


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if any(coupling.requires_grad for coupling in inputs[1:]):
        raise ValueError("couplings: expected tensors without gradient; only x has a derivative")
    ctx.save_for_backward(*inputs)


def _phi4_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, *couplings = ctx.saved_tensors
    score = torch.ops.pushforward.phi4_score(x.detach(), *couplings)
    return gradient_of(x, score, grad), None, None, None


def _without_gradient(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


torch.library.register_autograd(
    "pushforward::phi4_log_density", _phi4_gradient, setup_context=_keep, lib=library
)
torch.library.register_autograd(
    "pushforward::phi4_score",
    lambda ctx, grad: (None,) * 4,
    setup_context=_without_gradient,
    lib=library,
)


@torch.library.register_fake("pushforward::phi4_log_density", lib=library)
def _phi4_log_density_fake(x: Tensor, *couplings: Tensor) -> Tensor:
    return x.new_empty(x.shape[:1])


@torch.library.register_fake("pushforward::phi4_score", lib=library)
def _phi4_score_fake(x: Tensor, *couplings: Tensor) -> Tensor:
    return like(x)
