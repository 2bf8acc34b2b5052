# SPDX-License-Identifier: Apache-2.0
"""The one driver of Markov chains: burn-in, thinning, streaming statistics, progress."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward import _ops, random
from pushforward.graphs import StepGraph, graphed
from pushforward.interrupts import Interrupt, deferred_interrupt
from pushforward.mcmc import Kernel
from pushforward.pacing import Pace
from pushforward.progress import progress_bar
from pushforward.targets import NativeTarget, Target, as_target
from pushforward.targets.torch_targets import evaluate

__all__ = ["Chains", "sample"]

Store = Literal["draws", "stats", "last"]


@dataclass(frozen=True, eq=False)
class Chains:
    """What :func:`sample` returns.

    Attributes:
        x: state after the last step, ``(n_chains, *event)``.
        draws: kept states ``(n_kept, n_chains, *event)``, or None unless ``store="draws"``.
        log_density: the target's log-density at them, ``(n_kept, n_chains)``, or None.
        mean: mean over all steps and chains after the burn-in, float64, shape ``event``; None
            with ``store="last"``.
        var: variance likewise.
        n_nonfinite: how often each chain's step left the finite numbers and was not taken,
            int64 ``(n_chains,)``; such a step repeats the state in ``draws`` and is left out of
            ``mean`` and ``var``.
        seed: the seed that was used.
        first_step: index of the first step.
        next_step: index of the step that comes next: pass it as ``first_step`` to go on.
        n_steps: number of steps done after the burn-in.
        interrupted: whether Ctrl-C was pressed during the run or the callback ended it early. A
            loop around :func:`sample` should look at it, since Ctrl-C raises nothing.

    """

    x: Tensor
    draws: Tensor | None
    log_density: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    n_nonfinite: Tensor
    seed: int
    first_step: int
    next_step: int
    n_steps: int
    interrupted: bool

    def __repr__(self) -> str:
        kept = 0 if self.draws is None else len(self.draws)
        return (
            f"Chains(x={tuple(self.x.shape)}, n_steps={self.n_steps}, n_kept={kept}, "
            f"seed={self.seed}, next_step={self.next_step}"
            + (", interrupted)" if self.interrupted else ")")
        )


def sample(
    target: Any,
    kernel: Kernel,
    x: Tensor,
    *,
    n_steps: int,
    burn_in: int = 0,
    thin: int = 1,
    store: Store = "draws",
    first_step: int = 0,
    chain_offset: int = 0,
    progress: bool | None = None,
    callback: Callable[[int, Tensor], Any] | None = None,
    cuda_graph: Literal["auto"] | bool = "auto",
    seed: int | torch.Generator | None = None,
) -> Chains:
    """Run a Markov chain kernel from ``x`` on every row at once.

    Step ``k`` of chain ``c`` reads noise that is a pure function of ``(seed, c, k)``: results do
    not depend on threads, on how chains are split over calls (``chain_offset``), or on how steps
    are (``first_step``).

    Args:
        target: see :func:`pushforward.targets.as_target`. Native targets run fused, torch ones
            are evaluated with autograd every step.
        kernel: what to run, e.g. :class:`pushforward.Langevin`.
        x: start, ``(n_chains, *event)``, float32 or float64, finite. Not changed.
        n_steps: steps to take after the burn-in.
        burn_in: steps to take first and discard.
        thin: a draw is kept after steps ``thin, 2 thin, ...``: ``n_steps // thin`` of them.
        store: ``"draws"`` keeps draws and statistics, ``"stats"`` statistics, ``"last"`` neither.
        first_step: index of the first step; pass ``chains.next_step`` to go on.
        chain_offset: global index of the first chain.
        progress: show a bar on stderr; by default if that is a terminal and tqdm is installed.
        callback: called as ``callback(next_step, x)`` after each chunk of about 0.1 s; ``x`` is
            the live state. A true result ends the run early.
        cuda_graph: on a GPU, whether a step of a torch target is captured in a CUDA graph, which
            spares the launches and Python: ``"auto"`` does it for an ``nn.Module`` in eval mode
            and for compiled models, and goes on without where it cannot, with a warning; True
            raises instead, and captures any callable.
        seed: see :func:`pushforward.random.resolve_seed`.

    Returns:
        The draws and statistics. After Ctrl-C, those of the steps done.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or the target fails.

    Example:
        >>> import pushforward as pf, torch
        >>> target = pf.Energy(lambda x: 0.5 * (x**2).sum(1))
        >>> chains = pf.sample(target, pf.Langevin(0.1), torch.zeros(100, 3), n_steps=50, seed=0)
        >>> chains.draws.shape
        torch.Size([50, 100, 3])

    """
    law = as_target(target)
    state = _start(x)
    n_steps, burn_in = _ops.count(n_steps, "n_steps"), _ops.count(burn_in, "burn_in")
    thin, first_step = _ops.count(thin, "thin", 1), _ops.count(first_step, "first_step")
    chain_offset = _ops.count(chain_offset, "chain_offset")
    if store not in ("draws", "stats", "last"):
        raise ValueError(f'store: expected "draws", "stats" or "last", got {store!r}')
    if not all(hasattr(kernel, verb) for verb in ("prepare", "run", "propose")):
        raise TypeError(f"kernel: expected a kernel such as Langevin, got {type(kernel).__name__}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a callable, got {type(callback).__name__}")
    seed = random.resolve_seed(seed)
    if cuda_graph not in ("auto", True, False):
        raise ValueError(f'cuda_graph: expected "auto", True or False, got {cuda_graph!r}')

    run = _Run(law, kernel.prepare(state), state, seed, first_step, chain_offset, thin)
    bar = progress_bar(progress, total=burn_in + n_steps)
    with torch.no_grad(), deferred_interrupt() as interrupt, bar:
        try:
            run.graph = graphed(run, target, cuda_graph)
            done = _advance(run, burn_in, interrupt, callback, bar)
            run.start_recording(n_steps if done else 0, store)
            done = done and _advance(run, n_steps, interrupt, callback, bar)
            run.settle()
        except KeyboardInterrupt:
            done = False
            if not run.recording:
                run.start_recording(0, store)
    return run.result(interrupted=not done or interrupt.is_set())


def _start(x: Any) -> Tensor:
    _ops.check_tensor(x, "x")
    if x.ndim == 0:
        raise ValueError("x: expected shape (n_chains, *event), got a 0-d tensor")
    finite = x.detach().flatten(1).isfinite().all(1) if x.ndim > 1 else x.detach().isfinite()
    if not finite.all():
        bad = (~finite).nonzero()[:, 0]
        raise ValueError(
            f"x: expected a finite start, got inf or nan in {len(bad)} chains, the first being "
            f"{bad[:5].tolist()}"
        )
    return x.detach().clone(memory_format=torch.contiguous_format)


class _Run:
    """The state of a run and what it has recorded so far."""

    def __init__(
        self,
        target: Target,
        kernel: Kernel,
        x: Tensor,
        seed: int,
        first_step: int,
        chain_offset: int,
        thin: int,
    ) -> None:
        self.target, self.kernel, self.x, self.seed = target, kernel, x, seed
        self.first_step = self.next_step = first_step
        self.chain_offset, self.thin = chain_offset, thin
        self.native = target if isinstance(target, NativeTarget) else None
        if self.native is not None:
            self.native.check_event(x.shape[1:])
        self.n_nonfinite = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.left_out_before = torch.zeros_like(self.n_nonfinite)
        self.proposed = x if self.native is not None else torch.empty_like(x)
        self.recording = False
        self.steps_done = 0
        self.draws: Tensor | None = None
        self.log_density: Tensor | None = None
        self.moments: _ops.Moments | None = None
        self.owed: Tensor | None = None  # log-densities of the last draw, not yet computed
        self.graph: StepGraph | None = None

    def start_recording(self, n_steps: int, store: Store) -> None:
        self.recording = True
        self.left_out_before.copy_(self.n_nonfinite)
        if store == "draws":
            kept = n_steps // self.thin
            dtype, device = self.x.dtype, self.x.device
            self.draws = _ops.empty((kept, *self.x.shape), dtype=dtype, device=device)
            self.log_density = _ops.empty((kept, len(self.x)), dtype=dtype, device=device)
        if store != "last":
            zeros = torch.zeros(self.x.shape, dtype=torch.float64, device=self.x.device)
            self.moments = (self.x.clone(), zeros, zeros.clone())

    def advance(self, n: int) -> None:
        """Take ``n`` steps; on an exception the steps done so far count."""
        if self.native is not None:
            self._advance_native(self.native, n)
        else:
            for _ in range(n):
                self._advance_torch()

    def _kept(self) -> int:
        return self.steps_done // self.thin

    def _advance_native(self, target: NativeTarget, n: int) -> None:
        draws = log_density = None
        if self.draws is not None and self.log_density is not None:
            kept = slice(self._kept(), (self.steps_done + n) // self.thin)
            draws, log_density = self.draws[kept], self.log_density[kept]
        self.kernel.run(
            self.x,
            target,
            seed=self.seed,
            first_step=self.next_step,
            n_steps=n,
            chain_offset=self.chain_offset,
            n_nonfinite=self.n_nonfinite,
            steps_done=self.steps_done,
            thin=self.thin,
            draws=draws,
            log_density=log_density,
            moments=self.moments,
        )
        self._count(n)

    def _advance_torch(self) -> None:
        if self.graph is not None:
            value = self.graph.step(self.next_step, self.moments)
        else:
            value = self.step_of_torch(self.next_step, self.moments)
        self._pay(value)
        self._count(1)
        if self.draws is not None and self.steps_done % self.thin == 0:
            self.draws[self._kept() - 1] = self.x
            self.owed = self.log_density[self._kept() - 1] if self.log_density is not None else None

    def step_of_torch(self, step: int | Tensor, moments: _ops.Moments | None) -> Tensor:
        """Take one step on a torch target and return the log-density before it."""
        value, score = evaluate(self.target, self.x)
        self.kernel.propose(
            self.x,
            score,
            self.proposed,
            seed=self.seed,
            step=step,
            chain_offset=self.chain_offset,
        )
        _ops.commit_(self.x, self.proposed, self.n_nonfinite, moments)
        return value

    def _count(self, n: int) -> None:
        self.next_step += n
        if self.recording:
            self.steps_done += n

    def _pay(self, value: Tensor) -> None:
        if self.owed is not None:
            self.owed.copy_(value)
            self.owed = None

    def settle(self) -> None:
        """Compute the log-density of the last draw."""
        if self.owed is not None:
            self._pay(evaluate(self.target, self.x)[0])

    def result(self, interrupted: bool) -> Chains:
        if self.owed is not None:  # interrupted before it could be computed
            self.owed.fill_(torch.nan)
        mean = var = None
        if self.moments is not None:
            left_out = self.n_nonfinite - self.left_out_before
            mean, var = _ops.pooled_moments(self.x, self.steps_done, left_out, self.moments)
        bad = int((self.n_nonfinite > 0).sum())
        if bad:
            warnings.warn(
                f"{bad} of {len(self.x)} chains left the finite numbers; their steps were not "
                "taken and are counted in n_nonfinite (a smaller step_size may help)",
                RuntimeWarning,
                stacklevel=3,
            )
        return Chains(
            x=self.x,
            draws=None if self.draws is None else self.draws[: self._kept()],
            log_density=None if self.log_density is None else self.log_density[: self._kept()],
            mean=mean,
            var=var,
            n_nonfinite=self.n_nonfinite,
            seed=self.seed,
            first_step=self.first_step,
            next_step=self.next_step,
            n_steps=self.steps_done,
            interrupted=interrupted,
        )


def _advance(
    run: _Run,
    n: int,
    interrupt: Interrupt,
    callback: Callable[[int, Tensor], Any] | None,
    bar: Any,
) -> bool:
    """Take ``n`` steps in chunks of about 0.1 s; False if stopped before the end."""
    pace, done = Pace(run.x.device), 0
    while done < n:
        if interrupt.is_set():
            return False
        now = min(pace.chunk, n - done)
        with pace.timed(now):
            run.advance(now)
        done += now
        bar.update(now)
        interrupt.deliver()
        if callback is not None and callback(run.next_step, run.x) and done < n:
            return False
    return True
