# SPDX-License-Identifier: Apache-2.0
"""What is made of a run that has ended."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pushforward import _ops
from pushforward.chains import Chains
from pushforward.recording import Recorder

if TYPE_CHECKING:
    from pushforward.run import Run

__all__ = ["result_of"]


def result_of(run: Run, *, interrupted: bool) -> Chains:
    """Return what there is of a run."""
    recorder, counts, plan = run.recorder or run.record(0), run.state.counts, run.plan
    recorder.finish()
    n, kept = recorder.steps_done, recorder.n_kept
    nonfinite, divergent, accepted, squares = run.before
    left_out = counts.n_nonfinite - nonfinite
    accept_rate = accept_var = mean = var = tallies = None
    if run.kernel.accepts:  # their steps that are not taken repeat the state, which counts
        zero = _ops.zeros(left_out.shape, dtype=torch.int64, device=left_out.device)
        left_out = zero if run.held is None else zero.masked_fill_(run.held, n)
        accepted, squares = counts.accepted - accepted, counts.accepted_squares - squares
        accept_rate, accept_var = accepted / n, _variance(accepted, squares, n)
    if recorder.sums is not None:
        x = run.x if run.x.is_floating_point() else run.x.double()  # spins are integers
        moments = (recorder.sums.moments.shift.to(x), *recorder.sums.totals(n))
        tallies = recorder.sums.tallies(n, left_out, None if run.kernel.accepts else nonfinite)
        mean, var = _ops.pooled_moments(x, recorder.steps_done, left_out, moments)
    bad = int((counts.n_nonfinite > 0).sum())
    if bad:
        warnings.warn(_warning(bad, len(run.x)), RuntimeWarning, stacklevel=3)
    covariance = None if recorder.covariance is None else recorder.covariance.covariance()
    return Chains(
        x=run.x,
        draws=None if recorder.draws is None else recorder.draws[:kept],
        log_density=None if recorder.log_density is None else recorder.log_density[:kept],
        mean=mean,
        var=var,
        kernel=run.kernel.finished(run.state),
        accept_rate=accept_rate,
        accept_var=accept_var,
        n_nonfinite=counts.n_nonfinite,
        n_divergent=counts.n_divergent - divergent,
        seed=plan.seed,
        first_step=plan.first_step,
        next_step=run.next_step,
        n_steps=n,
        interrupted=interrupted,
        path=plan.store if isinstance(plan.store, Path) else None,
        tallies=tallies,
        covariance=covariance,
        sketch=recorder.sketch,
        streamed_energy=_energy(recorder),
        held=run.held,
        identity=run.identity,
    )


def _energy(recorder: Recorder) -> float | None:
    """Return the mean of ``-log_density`` over the draws that passed, if there are any."""
    total, n = recorder.log_densities.tolist()
    return None if n == 0 else -total / n


def _warning(n_bad: int, n_chains: int) -> str:
    """Return what to say of chains that left the finite numbers."""
    return (
        f"{n_bad} of {n_chains} chains left the finite numbers and were held back; such steps are "
        "counted in n_nonfinite (a smaller step_size may help)"
    )


def _variance(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """Return the variance of ``n`` terms from their sum and the sum of their squares."""
    if n < 2:
        return torch.full_like(total, torch.nan)
    return ((squares - total.square() / n) / (n - 1)).clamp(min=0)
