# SPDX-License-Identifier: Apache-2.0
"""The one driver of Markov chains: warm-up, burn-in, thinning, statistics, progress, resuming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

import torch
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import NotRequired, Unpack

from pushforward import _ops
from pushforward.chains import Chains
from pushforward.constrained import Constrained
from pushforward.graphs import graphed
from pushforward.interrupts import Interrupt, deferred_interrupt
from pushforward.lattice import Ising, Phi4
from pushforward.named_chains import NamedChains
from pushforward.pacing import Pace
from pushforward.parameters import NamedTarget, Parameters
from pushforward.progress import Report, progress_bar
from pushforward.recording import Store
from pushforward.results import result_of
from pushforward.resume import Resume
from pushforward.run import Plan, Run
from pushforward.storage.layout import variables
from pushforward.sweeps import as_kernel
from pushforward.targets import NativeTarget, Target, as_target

__all__ = ["sample"]

_NARROW = (torch.int8, torch.float16, torch.bfloat16)  # types of spins alone
_Named = dict[str, Tensor]


class _Settings(TypedDict):
    """Keywords of :func:`sample` that mean the same for every kind of state."""

    n_steps: int
    warmup: NotRequired[int]
    burn_in: NotRequired[int]
    thin: NotRequired[int]
    store: NotRequired[Store]
    covariance: NotRequired[bool]
    quantiles: NotRequired[bool]
    checkpoint: NotRequired[str | Path | None]
    every: NotRequired[int | None]
    first_step: NotRequired[int]
    chain_offset: NotRequired[int]
    progress: NotRequired[bool | None]
    cuda_graph: NotRequired[Literal["auto"] | bool]
    seed: NotRequired[int | torch.Generator | None]


@overload
def sample(
    target: Any,
    kernel: Any,
    x: Tensor,
    *,
    callback: Callable[[int, Tensor], Any] | None = None,
    **settings: Unpack[_Settings],
) -> Chains: ...
@overload
def sample(
    target: Any,
    kernel: Any,
    x: Mapping[str, Tensor],
    *,
    callback: Callable[[int, _Named], Any] | None = None,
    **settings: Unpack[_Settings],
) -> NamedChains: ...
def sample(
    target: Any,
    kernel: Any,
    x: Tensor | Mapping[str, Tensor],
    *,
    n_steps: int,
    warmup: int = 0,
    burn_in: int = 0,
    thin: int = 1,
    store: Store = "draws",
    covariance: bool = False,
    quantiles: bool = False,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    first_step: int = 0,
    chain_offset: int = 0,
    progress: bool | None = None,
    callback: Callable[[int, Any], Any] | None = None,
    cuda_graph: Literal["auto"] | bool = "auto",
    seed: int | torch.Generator | None = None,
) -> Chains | NamedChains:
    """Run a Markov chain kernel from ``x`` on every row at once.

    Step ``k`` of chain ``c`` reads noise that is a pure function of ``(seed, c, k)``: results do
    not depend on threads, on how chains are split over calls (``chain_offset``; a warm-up pools
    all chains of a call), or on how steps are (``first_step``).

    Args:
        target: see :func:`pushforward.targets.as_target`. Native targets run fused, torch ones
            are evaluated with autograd every step.
        kernel: what to run, e.g. :class:`pushforward.MALA`, or a kernel of
            :mod:`pushforward.lattice`.
        x: start, ``(n_chains, *event)``, float32 or float64, finite. Not changed. Spins of
            :class:`pushforward.lattice.Ising` may also be int8, float16 or bfloat16; the latter
            two are int8 while they run, in a callback and in a store on disk. Or a dict of tensors
            ``(n_chains, *shape)`` of one type: the target is then given such a dict, kernels see
            the parameters flat and one after the other, ``(n_chains, dim)``.
        n_steps: steps to take after the warm-up and the burn-in.
        warmup: steps to take first, in which the step size and the metric are adapted. The kernel
            found is ``chains.kernel``.
        burn_in: steps to take then and discard.
        thin: a draw is kept after steps ``thin, 2 thin, ...``: ``n_steps // thin`` of them.
        store: ``"draws"`` keeps draws and statistics, ``"stats"`` statistics, ``"last"`` neither;
            a ``pathlib.Path`` streams draws to a Zarr store made there, of one variable ``x`` or
            one for each name of a dict, and keeps statistics. A relative path is that from the
            working directory of the call, whatever it is later.
        covariance: add up the covariance of all coordinates over all steps, see ``chains.cov``.
        quantiles: where draws are not kept in memory, sketch them and add up their energy, see
            ``chains.quantile`` and ``chains.energy``; the latter is also known where they go to
            disk. Every ``thin`` steps that costs a few steps' time.
        checkpoint: a file that the run is saved to and, where it exists, resumed from: the same
            call goes on, bit for bit, and returns the result if the run had ended.
        every: steps between two checkpoints; there is always one where the run ends or is stopped
            by ``callback`` or Ctrl-C.
        first_step: index of the first step; pass ``chains.next_step`` to go on.
        chain_offset: global index of the first chain.
        progress: show a bar on stderr, with the acceptance, divergences and R-hat so far; by
            default if that is a terminal and tqdm is installed.
        callback: called as ``callback(next_step, x)`` after each chunk of about 0.1 s; ``x`` is
            the live state, a dict of views where the start is one. A true result ends the run
            early.
        cuda_graph: on a GPU, whether a step of a torch target is captured in a CUDA graph, which
            spares the launches and Python: ``"auto"`` does it for the package's own laws, modules
            in eval mode, compiled functions and objects that hold such modules, and goes on
            without where it cannot, with a warning; True raises instead, and captures any
            callable.
        seed: see :func:`pushforward.random.resolve_seed`. A resumed run takes the file's where
            this is None.

    Returns:
        The draws and statistics, by name where ``x`` is a dict. After Ctrl-C, those of the steps
        done.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, the target fails, or the checkpoint is another
            run's.
        OSError: the checkpoint or the store cannot be written.

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.Energy(lambda x: 0.5 * (x**2).sum(1))
        >>> chains = pf.sample(target, pf.Langevin(0.1), torch.zeros(100, 3), n_steps=50, seed=0)
        >>> chains.draws.shape
        torch.Size([50, 100, 3])

    """
    law = as_target(target)
    if isinstance(x, Mapping):
        x = dict(x)
        law = _named(law, target, x)
    moves = as_kernel(kernel, law)
    if not isinstance(x, (Tensor, dict)):
        more = "" if _takes_tensors_alone(target) else " or a dict of them"
        raise TypeError(f"x: expected a torch.Tensor{more}, got {type(x).__name__}")
    state = _start(x, law)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a callable, got {type(callback).__name__}")
    if not (isinstance(cuda_graph, bool) or cuda_graph == "auto"):
        raise ValueError(f'cuda_graph: expected "auto", True or False, got {cuda_graph!r}')
    resume = Resume(checkpoint, every)
    plan = Plan(
        warmup=_ops.count(warmup, "warmup"),
        burn_in=_ops.count(burn_in, "burn_in"),
        n_steps=_ops.count(n_steps, "n_steps"),
        thin=_ops.count(thin, "thin", 1),
        store=_store(store, law),
        covariance=bool(covariance),
        quantiles=bool(quantiles),
        first_step=_ops.count(first_step, "first_step"),
        chain_offset=_ops.count(chain_offset, "chain_offset"),
        seed=resume.seed(seed),
    )
    run = Run(law, moves, state, plan)
    bar = progress_bar(progress, total=plan.total)
    done = False
    with torch.no_grad(), deferred_interrupt() as interrupt, bar:
        run.state.interrupt = interrupt
        try:
            resume.load(run, target, kernel, x, store)
            bar.update(run.position)
            done = _advance(run, resume, target, cuda_graph, interrupt, callback, bar)
            resume.save(run, at_once=True)
            run.settle()
        except KeyboardInterrupt:
            done = False
        except BaseException:
            run.abandon()
            raise
    run.start_recording(ended=True)
    result = result_of(run, interrupted=not done or interrupt.is_set())
    if isinstance(law, NamedTarget):
        return NamedChains(result, law.parameters)
    return _typed(result, x.dtype) if isinstance(x, Tensor) else result


def _store(store: Any, law: Target) -> Store:
    if isinstance(store, Path) and isinstance(law, NamedTarget):
        parameters = law.parameters  # refused now rather than after a warm-up
        variables(parameters.shapes, (parameters.dim,), "x")
    if isinstance(store, Path):
        return store.absolute()
    if store in ("draws", "stats", "last"):
        return store
    raise ValueError(f'store: expected "draws", "stats", "last" or a pathlib.Path, got {store!r}')


def _named(law: Target, target: Any, x: dict[str, Tensor]) -> NamedTarget:
    """Return a law as that of the flat states of a dict."""
    if _takes_tensors_alone(target):
        hint = ""
        if isinstance(target, Constrained):
            hint = "; its unconstrain(values) returns one for a dict of constrained values"
        raise TypeError(f"x: expected a tensor for {type(target).__name__}, got a dict{hint}")
    return NamedTarget(law, Parameters.of(x))


def _takes_tensors_alone(target: Any) -> bool:
    return isinstance(target, (NativeTarget, Ising, Phi4, Constrained, Distribution))


def _start(x: Any, law: Target) -> Tensor:
    """Return a checked copy of the start, flat if it is a dict."""
    if isinstance(law, NamedTarget):
        for name, value in x.items():
            _check_finite(value, f"x[{name!r}]")
        n_chains = len(next(iter(x.values())))
        return law.parameters.flatten(x, n_chains, "x")
    spins = isinstance(law, Ising)
    narrow = spins and isinstance(x, Tensor) and x.dtype in _NARROW
    if narrow:
        _ops.check_tensor(x.to(torch.float32), "x")
    elif spins and isinstance(x, Tensor) and x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"x: expected int8, float16, bfloat16, float32 or float64 for Ising, got {x.dtype}"
        )
    else:
        _ops.check_tensor(x, "x")
    if x.ndim == 0:
        raise ValueError("x: expected shape (n_chains, *event), got a 0-d tensor")
    _check_finite(x, "x")
    if narrow and bool((x.abs() == 1).all()):  # the kernel names what else there is
        x = x.detach().to(torch.int8)
    return _ops.copied(x)


def _check_finite(x: Tensor, name: str) -> None:
    if not _ops.is_finite(x):
        bad = (~_ops.rows(x.detach()).isfinite().all(1)).nonzero()[:, 0]
        raise ValueError(
            f"{name}: expected a finite start, got inf or nan in {len(bad)} chains, the first "
            f"being {bad[:5].tolist()}"
        )


def _typed(result: Chains, dtype: torch.dtype) -> Chains:
    """Return a result with its spins in the type of the start."""
    if result.x.dtype == dtype:
        return result
    draws = None if result.draws is None else result.draws.to(dtype)
    return replace(result, x=result.x.to(dtype), draws=draws)


def _advance(
    run: Run,
    resume: Resume,
    target: Any,
    cuda_graph: Literal["auto"] | bool,
    interrupt: Interrupt,
    callback: Callable[[int, Any], Any] | None,
    bar: Any,
) -> bool:
    """Take all steps in chunks of about 0.1 s; False if stopped before the end."""
    captured, report = None, Report()  # whether the captured step records
    run.start_recording()
    pace, total = Pace(run.x.device, run.first_chunk()), run.plan.total
    while run.position < total:
        if interrupt.is_set():
            return False
        records = run.state.moments is not None
        stale = captured is None or (run.graph is not None and captured is not records)
        if stale and run.position >= run.plan.warmup:
            run.graph, captured = graphed(run, target, cuda_graph), records
        now = min(run.whole_batches(pace.chunk), run.room(), resume.room(run))
        with pace.timed(now):
            run.advance(now)
        run.start_recording()
        bar.update(now)
        with interrupt.held():  # states that wait are added, once
            report.tell(bar, run, last=run.position >= total)
        resume.save(run)
        interrupt.deliver()
        if callback is not None:
            law = run.target
            x = law.parameters.unflatten(run.x) if isinstance(law, NamedTarget) else run.x
            if callback(run.next_step, x) and run.position < total:
                return False
    return True
