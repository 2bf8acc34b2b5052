# SPDX-License-Identifier: Apache-2.0
"""Langevin runs and updates, overheads: ``python benchmarks/bench_langevin.py [--quick]``."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gates
import peers
import peers_mixture as mixtures
import pushforward as pf
from harness import Absent, Case, Contender, GateError, Round, arguments, attempt, run
from machine import pin
from make_tables import publish

MIXTURE_BAR, GAUSSIAN_BAR, UPDATE_BAR = 10.0, 4.0, 4.0
CALL_LIMIT, IMPORT_LIMIT = 5e-6, 0.1
STEP_SIZE = 0.1
LEFT_OUT = "left out of a quick run"

SCALED = (
    "Rates count chain-steps, so contenders may take different numbers of steps in a call: here "
    "{ours:,} for pushforward and {theirs} for the others."
)


def native_run(law: Any, target: Any, n_chains: int, steps: int) -> Contender:
    """Return pushforward's run of many steps in one call, in place."""
    x, calls = law.start(n_chains), itertools.count()

    def call() -> Tensor:
        return pf.ops.langevin_run_(
            x, target, step_size=law.step_size, n_steps=steps, seed=0,
            first_step=next(calls) * steps,
        )  # fmt: skip

    return Contender("pushforward", call, n_chains * steps, after(law, steps), role="ours")


def after(law: Any, steps: int) -> Callable[[Any, int], None]:
    """Return the gate of a walk that goes on by ``steps`` at each call."""
    return lambda x, calls: law.check(x, calls * steps)


def walkers(
    walks: peers.Walks, law: Any, n_chains: int, steps: int, bar: float, quick: bool
) -> list[Contender | Absent]:
    """Return the peers; a quick run has no time for those slow to compile or to run."""

    def build(name: str) -> Contender:
        walk = walks[name]()(steps)
        return Contender(name, walk, n_chains * steps, after(law, steps), bar=bar)

    return [
        Absent(name, LEFT_OUT)
        if quick and any(word in name for word in ("compile", "rows", "unrolled"))
        else attempt(name, partial(build, name))
        for name in walks
    ]


def noise_ceiling() -> Contender:
    """Return the rate of our own normals into memory that stays in cache."""
    out, seeds, calls = torch.empty(256, 1024), itertools.count(), 20

    def call() -> Tensor:
        for _ in range(calls):
            pf.random.normal(256, 1024, seed=next(seeds), out=out)
        return out

    def gate(z: Any, _calls: int) -> None:
        gates.standard_normal(z)

    return Contender("normals in cache", call, out.numel() * calls, gate, role="ceiling")


def fma_ceiling(n: int) -> Contender:
    """Return the rate of floating point operations in a large matrix product."""
    factors = [torch.randn(n, n) for _ in range(2)]
    out = torch.empty(n, n)
    call = partial(torch.mm, *factors, out=out)
    return Contender("sgemm", call, 2 * n**3, gates.product(factors), role="ceiling")


def mixture_law() -> gates.MixtureLaw:
    """Return eight modes on a circle, of different widths, and a step of a tenth of the least."""
    angles = torch.arange(8, dtype=torch.float64) * math.tau / 8
    means = 5 * torch.stack([angles.cos(), angles.sin()], 1)
    stds = torch.linspace(0.2, 0.3, 8, dtype=torch.float64)
    return gates.MixtureLaw(means, stds, STEP_SIZE * 0.2**2)


def mixture(quick: bool) -> Case:
    """A run on a mixture in two dimensions."""
    law = mixture_law()
    n_chains, steps, peer_steps = (10_000, 100, 4) if quick else (100_000, 1000, 20)
    target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    problem = mixtures.Mixture(law.means, law.stds, law.step_size, law.start(n_chains))
    walks = mixtures.walks(problem)
    others = walkers(walks, law, n_chains, peer_steps, MIXTURE_BAR, quick)
    return Case(
        claim=f"Langevin `run`, 8 Gaussians in 2-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[native_run(law, target, n_chains, steps), *others, noise_ceiling()],
        ceilings={"noise": lambda seconds: 2 * seconds["normals in cache"]},
        note=SCALED.format(ours=steps, theirs=peer_steps)
        + " *Rows* is the score as a textbook writes it, on `(n_chains, 2)`; *columns* is the "
        "score rewritten by hand for that library: transposed, and by two matrix products or with "
        "the components written out for a compiler to fuse.",
    )


def gaussian(quick: bool) -> Case:
    """A run on a Gaussian with a dense precision matrix."""
    dim = 32
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    eigenvalues = torch.linspace(0.5, 4, dim, dtype=torch.float64)
    law = gates.GaussianLaw(torch.linalg.qr(draws)[0], eigenvalues, STEP_SIZE)
    n_chains, steps, peer_steps = (2000, 100, 10) if quick else (10_000, 1000, 50)
    target = pf.targets.Gaussian(torch.zeros(dim), precision=law.precision)
    walks = peers.gaussian(law.precision, law.step_size, law.start(n_chains))
    others = walkers(walks, law, n_chains, peer_steps, GAUSSIAN_BAR, quick)
    limits = [noise_ceiling(), fma_ceiling(256 if quick else 1024)]

    def noise(seconds: Round) -> float:
        return dim * seconds["normals in cache"]

    def fma(seconds: Round) -> float:
        return 2 * dim**2 * seconds["sgemm"]

    return Case(
        claim=f"Langevin `run`, dense Gaussian in {dim}-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[native_run(law, target, n_chains, steps), *others, *limits],
        ceilings={
            "noise": noise,
            "multiply-adds": fma,
            "noise, then multiply-adds": lambda seconds: noise(seconds) + fma(seconds),
        },
        note=SCALED.format(ours=steps, theirs=peer_steps),
    )


def update(shape: tuple[int, ...], calls: int, quick: bool = False) -> Case:
    """One step given the score, on a state in existing memory."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    score, x = -start, start.clone()
    steps = itertools.count()

    def ours() -> Tensor:
        for _ in range(calls):
            pf.ops.langevin_(x, score, step_size=STEP_SIZE, seed=0, step=next(steps))
        return x

    def gate(samples: Any, _calls: int) -> None:
        gates.increments(samples, start, score, STEP_SIZE, calls)

    n = start.numel() * calls
    reset = partial(x.copy_, start)

    def in_torch(name: str, how: str, bar: float | None = None) -> Contender | Absent:
        if quick and "compile" in name:
            return Absent(name, LEFT_OUT)
        walk = peers.updates(x, score, STEP_SIZE, calls)[how]
        return Contender(name, walk, n, gate, bar=bar, prepare=reset)

    def in_jax() -> Contender:
        walk, restart = peers.update_jax(start, score, STEP_SIZE, calls)
        return Contender("JAX", walk, n, gate, prepare=restart)

    return Case(
        claim=f"fused `update` given the score, {' x '.join(map(str, shape))}",
        unit="numbers",
        contenders=[
            Contender("pushforward", ours, n, gate, role="ours", prepare=reset),
            in_torch("torch eager, fresh noise", "fresh", UPDATE_BAR),
            in_torch("torch eager, noise buffer", "buffered", UPDATE_BAR),
            in_torch("torch.compile", "compiled"),
            attempt("JAX", in_jax),
            noise_ceiling(),
        ],
        ceilings={"noise": lambda seconds: seconds["normals in cache"]},
    )


def overhead(calls: int = 500) -> Case:
    """One op call on a small state."""
    case = update((64, 2), calls, quick=True)
    return Case(
        claim="one call of `pf.ops.langevin_` on 64 x 2, Python floats, in place",
        unit="calls",
        contenders=[
            Contender(c.name, c.call, calls, c.gate, role=c.role, prepare=c.prepare)
            for c in case.contenders
            if isinstance(c, Contender) and c.name in ("pushforward", "torch eager, noise buffer")
        ],
        limit=CALL_LIMIT,
        rounds_factor=20,
        note=f"A round's time is the mean of {calls} calls in a row, the Python loop included.",
    )


def importing() -> Case:
    """The import on top of torch's, in a fresh interpreter, from bytecode as it is installed."""
    bytecode = tempfile.TemporaryDirectory()
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    script = (
        "import time, torch\nbegan = time.perf_counter()\nimport pushforward\n"
        "print(time.perf_counter() - began, pushforward.__version__)"
    )

    def call(held: Any = bytecode) -> tuple[float, str]:  # as long as it is called
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds, found = done.stdout.decode().split()
        return float(seconds), found

    def gate(found: str, _calls: int) -> None:
        if found != pf.__version__:
            raise GateError(f"imported version {found}, expected {pf.__version__}")

    return Case(
        claim="`import pushforward` after `import torch`",
        unit="imports",
        contenders=[Contender("pushforward", call, 1, gate, role="ours", times_itself=True)],
        limit=IMPORT_LIMIT,
    )


def statistics(quick: bool) -> Case:
    """What streaming statistics cost the driver."""
    law = mixture_law()
    n_chains, steps = (10_000, 50) if quick else (100_000, 200)
    target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    start, kernel, seeds = law.start(n_chains), pf.Langevin(law.step_size), itertools.count()

    def contender(store: Any, **more: Any) -> Contender:
        def call() -> pf.Chains:
            return pf.sample(
                target, kernel, start, n_steps=steps, store=store, seed=next(seeds), progress=False
            )

        def gate(chains: pf.Chains, _calls: int) -> None:
            law.check(chains.x, steps)
            if chains.mean is not None:
                law.check_pooled(chains.mean, chains.var, n_chains, steps)

        return Contender(f"store={store!r}", call, n_chains * steps, gate, **more)

    return Case(
        claim=f"`pf.sample` with streaming statistics, 8 Gaussians in 2-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[contender("stats", role="ours"), contender("last")],
    )


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    calls = 5 if quick else 20
    return {
        "mixture": partial(mixture, quick),
        "gaussian": partial(gaussian, quick),
        "update rows": partial(update, (4096, 64), calls, quick),
        "update images": partial(update, (64, 3, 32, 32), calls, quick),
        "overhead": overhead,
        "import": importing,
        "statistics": partial(statistics, quick),
    }


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    pin(options.threads)
    publish(run("langevin", cases(options.quick), options), options)


if __name__ == "__main__":
    main()
