# SPDX-License-Identifier: Apache-2.0
"""Many Langevin steps on a native target in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.arguments import (
    changed,
    check_call,
    check_tensor,
    implement,
    is_compiling,
    is_plain,
    library,
    no_grad_in_place,
    threads,
)
from pushforward._ops.arrays import holds_array, takes_arrays
from pushforward._ops.evaluate import TARGET, must_be_native, native_handle
from pushforward._ops.run import RUN_KINDS, run_chunk

if TYPE_CHECKING:
    from pushforward.targets import NativeTarget


def langevin_run_(
    x: Tensor,
    target: NativeTarget,
    *,
    step_size: Tensor | float,
    beta: Tensor | float = 1.0,
    n_steps: int,
    seed: int,
    first_step: int = 0,
    chain_offset: int = 0,
    n_nonfinite: Tensor | None = None,
) -> Tensor:
    """Take ``n_steps`` Langevin steps on a native target in one call, in place.

    Equivalent to a loop of ``langevin_(x, target.score(x), step=k)`` for ``k = first_step ..``,
    number for number in float32, with the state in registers. A step that leaves the finite
    numbers is not taken.

    Args:
        x: state ``(n_chains, dim)``, contiguous, float32 or float64.
        target: a native target of :mod:`pushforward.targets`.
        step_size: as in :func:`langevin`.
        beta: as in :func:`langevin`.
        n_steps: number of steps, at least 0.
        seed: ``0 <= seed < 2**63``.
        first_step: index of the first step.
        chain_offset: global index of the first chain.
        n_nonfinite: int64 ``(n_chains,)``, incremented for each step not taken.

    Returns:
        ``x``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong.

    Example:
        >>> import pushforward as pf, torch
        >>> x = torch.zeros(1000, 2)
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> x = pf.ops.langevin_run_(x, target, step_size=0.1, n_steps=100, seed=0)
        >>> bool((x.var(0) - 1 / (1 - 0.05)).abs().max() < 0.2)
        True

    """
    if is_plain(x, step_size, beta, (n_steps, seed, first_step, chain_offset, n_nonfinite)):
        handle = native_handle(target, x)
        counts = None  # on a CPU what nobody asks for is counted nowhere
        if n_nonfinite is not None or not x.is_cpu:
            counts = (_zeros(x) if n_nonfinite is None else n_nonfinite, None, None, None)
        _native.run(
            RUN_KINDS["langevin"], x, handle, {"step_size": step_size, "beta": beta}, seed,
            first_step, n_steps, chain_offset, 0, 1, None, None, counts, None, threads(),
        )  # fmt: skip
        return changed(x, n_nonfinite)
    if not is_compiling() and holds_array(locals()):
        return takes_arrays(langevin_run_, "n_nonfinite")(**locals())
    must_be_native(target)
    if not is_compiling():
        check_tensor(x, "x")
    if n_nonfinite is None:
        n_nonfinite = _zeros(x)
    no_grad_in_place("langevin_run", x)
    h, b = check_call(
        x,
        {"n_nonfinite": n_nonfinite},
        {"step_size": step_size, "beta": beta},
        seed=seed,
        first_step=first_step,
        n_steps=n_steps,
        chain_offset=chain_offset,
    )
    kind, dim, k, tensors, scalars = target.native_arguments(x.dtype, x.device)
    torch.ops.pushforward.langevin_run_(
        x,
        tensors,
        kind,
        dim,
        k,
        scalars,
        h,
        b,
        seed,
        first_step,
        n_steps,
        chain_offset,
        n_nonfinite,
    )
    return x


def _zeros(x: Tensor) -> Tensor:
    """Return a count of zero for each chain."""
    return torch.zeros(x.shape[:1], dtype=torch.int64, device=x.device)


library.define(
    f"langevin_run_(Tensor(a!) x, {TARGET}, Tensor step_size, Tensor beta, SymInt seed, "
    "SymInt first_step, SymInt n_steps, SymInt chain_offset, Tensor(b!) n_nonfinite) -> ()"
)


@implement("langevin_run_")
def _langevin_run_cpu(
    x: Tensor,
    parameters: list[Tensor],
    kind: int,
    dim: int,
    n_components: int,
    scalars: list[float],
    step_size: Tensor,
    beta: Tensor,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    n_nonfinite: Tensor,
) -> None:
    run_chunk(
        "langevin",
        x,
        _native.Target(kind, dim, n_components, parameters, *scalars),
        {"step_size": step_size, "beta": beta},
        seed=seed,
        first_step=first_step,
        n_steps=n_steps,
        chain_offset=chain_offset,
        counts=(n_nonfinite, None, None, None),
    )
    changed(x, n_nonfinite)
