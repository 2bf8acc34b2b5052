# SPDX-License-Identifier: Apache-2.0
"""Many steps of any Markov kernel on a native target in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from pushforward import _native
from pushforward._ops.accept import Counts
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

Move = Literal["langevin", "random_walk", "mala", "underdamped", "hmc", "nuts"]
Proposal = Literal["symmetric", "log_normal", "autoregressive"]

_TAKES: dict[str, tuple[str, ...]] = {
    "langevin": ("step_size", "beta", "betas"),
    "random_walk": ("step_size", "beta", "metric", "proposal", "center", "persistence"),
    "mala": ("step_size", "beta"),
    "underdamped": ("step_size", "beta", "friction", "velocity"),
    "hmc": ("step_size", "metric", "n_leapfrog", "jitter"),
    "nuts": ("step_size", "metric", "max_depth"),
}
_NEEDS = {"underdamped": ("step_size", "friction", "velocity")}
_PROPOSALS = get_args(Proposal)


def markov_run_(
    x: Tensor,
    target: NativeTarget,
    move: Move,
    *,
    step_size: Tensor | float | None = None,
    beta: Tensor | float | None = None,
    betas: Tensor | None = None,
    friction: Tensor | float | None = None,
    velocity: Tensor | None = None,
    metric: Tensor | None = None,
    proposal: Proposal | None = None,
    center: Tensor | None = None,
    persistence: float | None = None,
    n_leapfrog: int | None = None,
    jitter: float | None = None,
    max_depth: int | None = None,
    n_steps: int,
    seed: int | Tensor,
    first_step: int | Tensor = 0,
    chain_offset: int = 0,
    counts: Counts | None = None,
) -> Tensor:
    """Take ``n_steps`` of a Markov kernel on a native target in one call, in place.

    The steps that :func:`pushforward.sample` takes, number for number, without its record: for
    loops that want the state alone, such as the negative phase of a model's training.

    Args:
        x: state ``(n_chains, dim)``, contiguous, float32 or float64.
        target: a native target of :mod:`pushforward.targets`.
        move: the kernel, which says which of the following it takes.
        step_size: a number, a 0-d tensor or ``(n_chains,)``; of a random walk, its scale. Needed
            by all but autoregressive proposals.
        beta: inverse temperature, 1 by default, likewise; ``langevin``, ``random_walk``, ``mala``,
            ``underdamped``.
        betas: float64 ``(n_steps,)``, one a step in place of ``beta``; ``langevin``.
        friction: likewise; ``underdamped``.
        velocity: like ``x``, changed in place; ``underdamped``.
        metric: ``L``, the diagonal ``(dim,)`` or a lower triangle ``(dim, dim)``, whose ``L L'`` is
            the proposals' covariance or the inverse mass; ``random_walk``, ``hmc``, ``nuts``.
        proposal: ``"symmetric"`` by default; ``random_walk``.
        center: ``(dim,)``, of autoregressive proposals, which need it and a diagonal ``metric``.
        persistence: of autoregressive proposals.
        n_leapfrog: leapfrog steps of a trajectory, 1 by default; ``hmc``.
        jitter: share of the step size that is drawn anew a step, 0 by default; ``hmc``.
        max_depth: most doublings of a trajectory, 10 by default; ``nuts``.
        n_steps: number of steps, at least 0.
        seed: ``0 <= seed < 2**63``.
        first_step: index of the first step.
        chain_offset: global index of the first chain.
        counts: added to.

    Returns:
        ``x``.

    Raises:
        TypeError: a dtype or a type is wrong.
        ValueError: a shape, a range or a device is wrong, or the kernel does not take an argument.

    Example:
        >>> import pushforward as pf, torch
        >>> x, counts = torch.zeros(1000, 2), pf.ops.Counts.zeros(1000)
        >>> target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        >>> more = {"step_size": 0.5, "n_steps": 100, "seed": 0, "counts": counts}
        >>> x = pf.ops.markov_run_(x, target, "mala", **more)
        >>> bool((x.var(0) - 1).abs().max() < 0.2), bool(counts.accepted.mean() > 80)
        (True, True)

    """
    if counts is not None and not isinstance(counts, Counts):
        raise TypeError(f"counts: expected Counts or None, got {type(counts).__name__}")
    if is_plain(
        x, (seed, first_step, n_steps, chain_offset), step_size, beta, betas, friction, velocity,
        metric, center, persistence, n_leapfrog, jitter, max_depth,
    ):  # fmt: skip
        handle = native_handle(target, x)
    elif not is_compiling() and holds_array(locals()):
        return takes_arrays(markov_run_, "velocity")(**locals())
    else:
        handle = None
        must_be_native(target)
        if not is_compiling():
            check_tensor(x, "x")
    # What is None is not given, here as in the native module.
    given: dict[str, Any] = {
        "step_size": step_size, "beta": beta, "betas": betas, "friction": friction,
        "velocity": velocity, "metric": metric, "proposal": proposal, "center": center,
        "persistence": persistence, "n_leapfrog": n_leapfrog, "jitter": jitter,
        "max_depth": max_depth,
    }  # fmt: skip
    _check(move, given)
    if proposal is not None:
        given["proposal"] = _PROPOSALS.index(proposal)
    if metric is not None and isinstance(metric, Tensor) and metric.ndim == 2:
        given["metric_transposed"] = metric.mT.contiguous()
    if handle is not None:
        if counts is None and not x.is_cpu:  # on a CPU what nobody asks for is counted nowhere
            counts = Counts.zeros(len(x), x.device)
        _native.run(
            RUN_KINDS[move], x, handle, given, seed, first_step, n_steps, chain_offset, 0, 1, None,
            None, None if counts is None else counts.tensors(), None, threads(),
        )  # fmt: skip
        return changed(x, velocity, *(() if counts is None else counts.tensors()))
    if counts is None:
        counts = Counts.zeros(len(x), x.device)
    no_grad_in_place("markov_run", x, *given.values())
    scales = {name: given[name] for name in ("step_size", "beta", "friction")}
    tensors = {n: v for n, v in given.items() if isinstance(v, Tensor) and n not in scales}
    indices = {"first_step": first_step, "n_steps": n_steps, "chain_offset": chain_offset}
    found = check_call(x, tensors | vars(counts), scales, seed=seed, **indices)
    given.update(zip(scales, found, strict=True))
    kind, dim, k, parameters, scalars = target.native_arguments(x.dtype, x.device)
    torch.ops.pushforward.markov_run_(
        x, parameters, kind, dim, k, scalars, move, *(given.get(name) for name in _PARAMETERS),
        seed, first_step, n_steps, chain_offset, *counts.tensors(),
    )  # fmt: skip
    return x


def _check(move: str, given: dict[str, Any]) -> None:
    if move not in _TAKES:
        raise ValueError(f"move: expected one of {', '.join(_TAKES)}, got {move!r}")
    takes = _TAKES[move]
    for name, value in given.items():
        if value is not None and name not in takes:
            raise ValueError(f"{name}: expected None, since {move} does not take it")
    proposal = given["proposal"]
    if proposal is not None and proposal not in _PROPOSALS:
        raise ValueError(f"proposal: expected one of {', '.join(_PROPOSALS)}, got {proposal!r}")
    needed = _NEEDS.get(move, ("step_size",))
    if proposal == "autoregressive":
        needed = ("metric", "center", "persistence")
        if given["step_size"] is not None:
            raise ValueError("step_size: expected None, since autoregressive proposals take none")
    elif given["center"] is not None or given["persistence"] is not None:
        raise ValueError("center, persistence: expected None, since the proposal takes none")
    for name in needed:
        if given[name] is None:
            raise ValueError(f"{name}: expected a value, which {move} needs here, got None")
    for name, least in (("persistence", "-1 <"), ("jitter", "0 <=")):
        value = given[name]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
        if not (-1 < value < 1 if name == "persistence" else 0 <= value < 1):
            raise ValueError(f"{name}: expected {least} {name} < 1, got {value}")


_PARAMETERS = {
    "step_size": "Tensor?", "beta": "Tensor?", "betas": "Tensor?", "friction": "Tensor?",
    "velocity": "Tensor(b!)?", "metric": "Tensor?", "metric_transposed": "Tensor?",
    "proposal": "int?", "center": "Tensor?", "persistence": "float?", "n_leapfrog": "SymInt?",
    "jitter": "float?", "max_depth": "SymInt?",
}  # fmt: skip
library.define(
    f"markov_run_(Tensor(a!) x, {TARGET}, str move, "
    + "".join(f"{kind} {name}, " for name, kind in _PARAMETERS.items())
    + "SymInt seed, SymInt first_step, SymInt n_steps, SymInt chain_offset, "
    "Tensor(c!) n_nonfinite, Tensor(d!) n_divergent, Tensor(e!) accepted, "
    "Tensor(f!) accepted_squares) -> ()"
)


@implement("markov_run_")
def _markov_run_(
    x: Tensor,
    parameters: list[Tensor],
    kind: int,
    dim: int,
    n_components: int,
    scalars: list[float],
    move: str,
    *rest: Any,
) -> None:
    n = len(_PARAMETERS)
    values, (seed, first_step, n_steps, chain_offset), counts = rest[:n], rest[n:-4], rest[-4:]
    given = dict(zip(_PARAMETERS, values, strict=True))
    run_chunk(
        move,
        x,
        _native.Target(kind, dim, n_components, parameters, *scalars),
        given,
        seed=seed,
        first_step=first_step,
        n_steps=n_steps,
        chain_offset=chain_offset,
        counts=counts,
    )
    changed(x, given["velocity"], *counts)
