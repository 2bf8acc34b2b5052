# SPDX-License-Identifier: Apache-2.0
"""A run of a Markov kernel: its phases, its steps, and what a checkpoint holds of it."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from pushforward import _ops, lattice, pacing
from pushforward.identity import identity_of
from pushforward.mcmc import Kernel, State
from pushforward.mcmc.adaptation import Tunable, WarmUp
from pushforward.mcmc.base import Metropolised
from pushforward.parameters import NamedTarget
from pushforward.recording import Recorder, Store
from pushforward.sweeps import Sweeps, known_log_density, native_sweeps
from pushforward.targets import NativeTarget, Target

if TYPE_CHECKING:
    from pushforward.graphs import StepGraph

__all__ = ["Plan", "Run"]


@dataclass(frozen=True)
class Plan:
    """How many steps of what, and what is kept."""

    warmup: int
    burn_in: int
    n_steps: int
    thin: int
    store: Store
    covariance: bool
    quantiles: bool
    first_step: int
    chain_offset: int
    seed: int

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.warmup + self.burn_in + self.n_steps

    @property
    def silent(self) -> int:
        """Steps before the first that is recorded."""
        return self.warmup + self.burn_in


class Run:
    """The state of a run and what it has recorded so far."""

    def __init__(self, target: Target, kernel: Kernel, x: Tensor, plan: Plan) -> None:
        self.plan, self.kernel, self.target = plan, kernel, target
        self._given = kernel
        # Of the start that was given, which a checkpoint replaces.
        self.identity = identity_of(self, x) if isinstance(plan.store, Path) else None
        self.position = 0  # steps taken
        self.resumed = False  # from a checkpoint, beside which there may be a store of this run
        counts = _ops.Counts.zeros(len(x), x.device)
        self.state = State(target, x, plan.seed, plan.chain_offset, counts)
        self.graph: StepGraph | None = None
        self.recorder: Recorder | None = None
        self.held: Tensor | None = None  # chains that no step can move
        self.native = kernel.runs_on(target)
        if isinstance(target, NativeTarget):
            target.check_event(x.shape[1:])
        # What was counted before anything was recorded.
        self.before = list(_ops.Counts.zeros(len(x), x.device).tensors())
        self._evaluation = math.inf  # how long one takes of all chains, in seconds
        self._warm_up: WarmUp | None = None
        if plan.warmup > 0:
            if kernel.target_accept is None:
                raise ValueError(
                    f"warmup: expected 0 for {kernel.title}, which has nothing to adapt, "
                    f"got {plan.warmup}"
                )
            tunable = cast("Tunable", kernel)
            field = isinstance(target, lattice.Phi4)
            self._warm_up = WarmUp(
                tunable,
                x,
                plan.warmup,
                plan.chain_offset,
                # The sites of a field have one law, so that a metric for each would be noise; the
                # lattices have one where none has parameters of its own.
                auto="unit" if field else "auto",
                one_law=not field or getattr(target, "n_lattices", None) is None,
            )
            self.kernel = cast("Kernel", self._warm_up.kernel)
        self.kernel = self.kernel.prepare(x)

    @property
    def x(self) -> Tensor:
        """The state."""
        return self.state.x

    @property
    def next_step(self) -> int:
        """Index of the step that comes next."""
        return self.plan.first_step + self.position

    def begin(self) -> None:
        """Fill the kernel's memory and check the start."""
        is_lattice = native_sweeps(self.kernel, self.target) is not None
        # Native runs evaluate the start themselves, once more, and remember nothing of it.
        if not ((self.native or is_lattice) and isinstance(self.kernel, Metropolised)):
            self.kernel.begin(self.state)
        began = time.perf_counter()
        value, score = self._evaluated()
        if not _ops.is_finite(value):
            bad = (value == -torch.inf).nonzero()[:, 0]
            if len(bad) > 0:
                raise ValueError(
                    "x: expected a start where the density is positive; it is 0 in "
                    f"{len(bad)} chains, the first being {bad[:5].tolist()}{self._why(int(bad[0]))}"
                )
        self._evaluation = time.perf_counter() - began
        self.held = self._stuck(value, score)

    def _evaluated(self) -> tuple[Tensor, Tensor | None]:
        """Return the log-density at the state, and the score ``(n_chains, dim)`` if it is used."""
        kernel, x = self.kernel, self.x
        uses_score = kernel.stays_at_no_number and kernel.uses_score
        if self.native:
            law, rows = cast("NativeTarget", self.target), _ops.rows(x)
            return law.log_density(rows), law.score(rows) if uses_score else None
        if native_sweeps(kernel, self.target) is not None:
            return known_log_density(self.target, x), None
        if not uses_score:
            return kernel.log_density(self.state), None
        if "score" in self.state.memory:
            return kernel.log_density(self.state), _ops.rows(self.state.memory["score"])
        value, score = self.state.evaluate(x)
        return value, _ops.rows(score)

    def _stuck(self, value: Tensor, score: Tensor | None) -> Tensor | None:
        """Return which chains no step can move from where these are, if there are any."""
        if not self.kernel.stays_at_no_number:
            return None
        stuck = None if _ops.is_finite(value) else ~value.isfinite()
        if self.native and not self.kernel.accepts:
            stuck = None  # such a step looks at the score alone
        if score is not None and not _ops.is_finite(score):
            beside = ~score.isfinite().all(1)
            stuck = beside if stuck is None else stuck | beside
        return stuck

    def _why(self, chain: int) -> str:
        """Return what the target raises at the start of a chain, if it does."""
        try:
            self.target.log_density(self.x[chain : chain + 1])
        except Exception as error:  # of any class: the target is the user's
            return f" (the target raised {type(error).__name__}: {error})"
        return ""

    # ---- steps -----------------------------------------------------------------------------------

    def room(self) -> int:
        """Return how many steps may be taken at once: not past the end of a phase."""
        plan, at = self.plan, self.position
        if at < plan.warmup:
            return plan.warmup - at
        if at < plan.silent:
            return plan.silent - at
        return self.recorder.room() if self.recorder is not None else plan.total - at

    def first_chunk(self) -> int:
        """Return how many steps to begin with: groups of streaming sums that are soon done, or one.

        Each call reads and writes all sums. A step may take some times as long as what it
        evaluates.
        """
        sums = None if self.recorder is None else self.recorder.sums
        if sums is None or not sums.in_groups or sums.waiting is not None:
            return 1
        step = 4 * self.kernel.evaluations * self._evaluation
        return int(pacing.SECONDS / max(step, 1e-9)) // _ops.GROUP * _ops.GROUP or 1

    def whole_batches(self, n: int) -> int:
        """Return about ``n`` steps, after which no batch or no group of streaming sums is open.

        Any number gives the same bits; a call that cuts one takes longer.
        """
        sums = None if self.recorder is None else self.recorder.sums
        if self.recorder is None or sums is None or sums.waiting is not None:
            return n
        done, batch = self.recorder.steps_done, sums.moments.batch
        for unit in (batch, _ops.GROUP):
            if n >= unit and (unit >= _ops.GROUP or not sums.in_groups):
                return (2 * (done + n) + unit) // (2 * unit) * unit - done  # the nearest
        return n

    def advance(self, n: int) -> None:
        """Take ``n`` steps; on an exception the steps done so far count."""
        if self._warm_up is not None:
            for _ in range(n):
                self._adapt(self._warm_up)
        else:
            self._take(n)
        self.state.interrupt.release()

    def _take(self, n: int) -> None:
        sweeps = native_sweeps(self.kernel, self.target)
        if sweeps is None and not self.native:
            for _ in range(n):
                self.state.interrupt.release()  # what comes first is the target, or a proposal
                self._advance_torch()
            return
        self.state.interrupt.hold()
        if sweeps is not None:
            self._advance_sweeps(sweeps, n)
        else:
            self._advance_native(n)

    def _adapt(self, warm_up: WarmUp) -> None:
        end = self.kernel.trial(self.state, self.next_step)
        self._take(1)
        accepted = end()
        counts = self.state.counts
        dead = (counts.n_nonfinite >= self.position) & (counts.accepted == 0)
        warm_up.update(accepted, self.x, dead)
        done = self.position == self.plan.warmup
        kernel = cast("Kernel", warm_up.result if done else warm_up.kernel)
        self.kernel = kernel.prepare(self.x)
        if done:  # steps that a warm-up has tried say nothing of the kernel that it found
            self._warm_up = None
            for counter in self.state.counts.tensors():
                counter.zero_()

    def _advance_native(self, n: int) -> None:
        kernel, state, recorder = self.kernel, self.state, self.recorder
        outputs = recorder.outputs(n) if recorder is not None else {}
        _ops.run_chunk(
            kernel.name,
            state.x,
            cast("NativeTarget", self.target).native(state.x),
            kernel.parameters(state, self.next_step, n),
            seed=state.seed,
            first_step=self.next_step,
            n_steps=n,
            chain_offset=state.chain_offset,
            counts=state.counts.tensors(),
            **outputs,
        )
        if recorder is not None:
            recorder.took(n, outputs, state.counts.n_nonfinite)
        self.position += n

    def _advance_sweeps(self, sweeps: Sweeps, n: int) -> None:
        recorder, done = self.recorder, 0
        for stale in ("log_density", "score"):
            self.state.memory.pop(stale, None)
        while done < n:
            now, steps_done = n - done, 0
            if recorder is not None:
                now = min(now, recorder.unseen())
                steps_done = recorder.steps_done
            sweeps(self.state, self.next_step, now, steps_done)
            self.position += now
            done += now
            if recorder is not None:
                recorder.see(self.x, now, self.state.counts.n_nonfinite)
                if recorder.is_owed:
                    recorder.pay(known_log_density(self.target, self.x))

    def _advance_torch(self) -> None:
        recorder = self.recorder
        if isinstance(self.kernel, Metropolised) and "log_density" not in self.state.memory:
            self.kernel.begin(self.state)
        if self.graph is not None:
            self.state.interrupt.hold()
            value = self.graph.step(self.next_step)
        else:
            value = self.kernel.step(self.state, self.next_step)
        if recorder is not None:
            recorder.pay(value)
            recorder.take(self.x, self.state.counts.n_nonfinite)
        self.position += 1

    def start_recording(self, *, ended: bool = False) -> None:
        """Record from now on, if the silent phases are over.

        A run that has ended before they were makes its store, with room for what may follow.
        """
        begins = self.position >= self.plan.silent or (ended and isinstance(self.plan.store, Path))
        if self.recorder is not None or not begins:
            return
        self.recorder = self.record(self.plan.n_steps)
        self.state.moments, self.state.place = self.recorder.moments, self.recorder.place
        if self.resumed and self.recorder.disk is not None and self.position <= self.plan.silent:
            self.recorder.disk.truncate(0)  # what a run that was killed wrote after its checkpoint

    def record(self, n_steps: int) -> Recorder:
        """Return what records ``n_steps`` steps from now on."""
        plan = self.plan
        if self.position > 0:
            self.before = [_ops.copied(t) for t in self.state.counts.tensors()]
        attributes = {"seed": plan.seed, "kernel": self.kernel.title, "thin": plan.thin}
        attributes |= {} if self.identity is None else {"run": self.identity}
        return Recorder(
            self.x,
            n_steps,
            plan.thin,
            plan.store,
            covariance=plan.covariance,
            quantiles=plan.quantiles,
            chain_offset=plan.chain_offset,
            attributes=attributes,
            resumed=self.resumed,
            held=self.held,
            names=self.target.parameters.shapes if isinstance(self.target, NamedTarget) else None,
            native=self.native or native_sweeps(self.kernel, self.target) is not None,
            left_out=None if self.kernel.accepts else self.state.counts.n_nonfinite,
        )

    def settle(self) -> None:
        """Compute the log-density of the last draw."""
        if self.recorder is not None and self.recorder.is_owed:
            self.recorder.pay(self.kernel.log_density(self.state))

    def so_far(self) -> dict[str, str]:
        """Return what a progress bar says."""
        counts, said = self.state.counts, {}
        taken = self.position - (self.plan.warmup if self._warm_up is None else 0)
        if self.kernel.accepts and taken > 0 and len(self.x) > 0:
            said["accept"] = f"{float(counts.accepted.mean()) / taken:.2f}"
        for name, count in (("divergent", counts.n_divergent), ("nonfinite", counts.n_nonfinite)):
            n = int(count.sum())
            said |= {name: str(n)} if n else {}
        if self.recorder is not None:
            rhat = self.recorder.rhat()
            if rhat is not None and rhat.numel() > 0:
                said["rhat"] = f"{float(rhat.max()):.3f}"
        return said

    def abandon(self) -> None:
        """Let go of the store on disk, whatever it has, since the run has failed."""
        if self.recorder is not None and self.recorder.disk is not None:
            with contextlib.suppress(OSError):  # the failure itself is what the caller is told
                self.recorder.disk.close()

    # ---- a checkpoint ----------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        self.settle()
        held = {"x": self.x}
        held |= {f"memory.{k}": v for k, v in self.state.memory.items()}
        held |= {f"counts.{i}": t for i, t in enumerate(self.state.counts.tensors())}
        held |= {f"before.{i}": t for i, t in enumerate(self.before)}
        held |= {f"kernel.{k}": v for k, v in self.kernel.found().items()}
        if self.held is not None:
            held["held"] = self.held.to(torch.uint8)
        if self._warm_up is not None:
            held |= {f"warmup.{k}": v for k, v in self._warm_up.tensors().items()}
        if self.recorder is not None:
            with self.state.interrupt.held():  # states that wait are added, once
                held |= {f"recorder.{k}": v for k, v in self.recorder.tensors().items()}
            if self.recorder.disk is not None:
                self.recorder.disk.flush()
        return held

    def restore(self, tensors: dict[str, Tensor], position: int) -> None:
        """Go on from what a checkpoint held after ``position`` steps."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        device = self.x.device
        self.position, self.resumed = position, True
        self.x.copy_(tensors["x"])
        kernel = self._given
        if self._warm_up is not None:
            if position < self.plan.warmup:
                self._warm_up.restore(part("warmup."))
                kernel = cast("Kernel", self._warm_up.kernel)
            else:
                self._warm_up = None
        found = {k: v.to(device) for k, v in part("kernel.").items()}
        self.kernel = kernel.with_found(found).prepare(self.x)
        self.state.memory.update({k: v.to(device) for k, v in part("memory.").items()})
        for i, counter in enumerate(self.state.counts.tensors()):
            counter.copy_(tensors[f"counts.{i}"])
        if "held" in tensors:
            self.held = tensors["held"].to(device).bool()
        self.start_recording()
        for i, counter in enumerate(self.before):
            counter.copy_(tensors[f"before.{i}"])
        recorded, n = part("recorder."), position - self.plan.silent
        if self.recorder is not None and (recorded or n > 0):  # else it begins here
            self.recorder.restore(recorded, n)
