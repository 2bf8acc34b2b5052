# SPDX-License-Identifier: Apache-2.0
"""Markov kernels on native targets: ``python benchmarks/bench_mcmc.py [--quick]``."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gates
import peers_mcmc as peers
import pushforward as pf
from harness import Absent, Case, Contender, arguments, attempt, run
from machine import pin
from make_tables import publish

MIXTURE_BAR, HMC_BAR, STATISTICS_BAR, PROGRESS_BAR = 10.0, 5.0, 0.87, 0.97
SCALE, STEP_SIZE = 0.35, 0.02
HMC_STEP, LEAPFROG = 0.25, 20
NOTE = (
    "Rates count chain-steps, so contenders may take different numbers of steps in a call: here "
    "{ours:,} for pushforward and {theirs} for the others. Chains start in the law, and the "
    "samples of each call must still follow it."
)


def gated(check: Callable[[Tensor], None]) -> Callable[[Any, int], None]:
    """Return a gate that checks the states a call ends with, chains or their tensor."""

    def gate(result: Any, _calls: int) -> None:
        check(result.x if isinstance(result, pf.Chains) else result)

    return gate


def ours(target: Any, kernel: Any, start: Tensor, steps: int, check: Callable) -> Contender:
    """Return pushforward's driver, going on from call to call."""
    x, calls = start, itertools.count()

    def call() -> Tensor:
        nonlocal x
        first = next(calls) * steps
        x = pf.sample(
            target, kernel, x, n_steps=steps, store="last", first_step=first, seed=0, progress=False
        ).x
        return x

    return Contender("pushforward", call, len(start) * steps, gated(check), role="ours")


def theirs(
    name: str, build: Callable[[], Any], units: int, check: Callable, bar: float
) -> Contender | Absent:
    """Return a peer's walk."""
    return attempt(name, lambda: Contender(name, build(), units, gated(check), bar=bar))


def modes() -> gates.ModesLaw:
    """Return eight modes on a circle, of different widths."""
    angles = torch.arange(8, dtype=torch.float64) * math.tau / 8
    means = 5 * torch.stack([angles.cos(), angles.sin()], 1)
    return gates.ModesLaw(means, torch.linspace(0.2, 0.3, 8, dtype=torch.float64))


def mixture(kind: str, quick: bool) -> Case:
    """Random walk or MALA on a mixture in two dimensions."""
    law = modes()
    n_chains, steps, peer_steps = (10_000, 50, 4) if quick else (100_000, 500, 20)
    start, units = law.start(n_chains), n_chains * peer_steps
    target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    in_torch = peers.mixture_in_torch(law.means, law.stds)

    def blackjax(walk: str, **parameters: float) -> Any:
        in_jax = peers.mixture_in_jax(law.means, law.stds)
        return peers.blackjax_walk(walk, in_jax, start, peer_steps, **parameters)

    if kind == "random walk":
        kernel: Any = pf.RandomWalk(SCALE)
        eager = partial(peers.random_walk_torch, in_torch, SCALE, start, peer_steps)
        jax = partial(blackjax, "rmh", scale=SCALE)
    else:
        kernel = pf.MALA(STEP_SIZE)
        eager = partial(peers.mala_torch, in_torch, STEP_SIZE, start, peer_steps)
        jax = partial(blackjax, "mala", step_size=STEP_SIZE)
    return Case(
        claim=f"{type(kernel).__name__}, 8 Gaussians in 2-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[
            ours(target, kernel, start, steps, law.check),
            theirs("torch eager", eager, units, law.check, MIXTURE_BAR),
            theirs("BlackJAX", jax, units, law.check, MIXTURE_BAR),
        ],
        note=NOTE.format(ours=steps, theirs=peer_steps),
    )


def hmc(quick: bool) -> Case:
    """HMC on a Gaussian; the same step and path for all, so that draws are worth the same."""
    dim, n_chains, steps, peer_steps = (100, 100, 10, 2) if quick else (100, 1000, 50, 10)
    law = gates.ScaledLaw(torch.linspace(0.5, 2, dim, dtype=torch.float64))
    start = law.start(n_chains)
    target = pf.targets.Gaussian(torch.zeros(dim), scale=law.scale)
    kernel = pf.HMC(HMC_STEP, LEAPFROG, jitter=0.0)

    def blackjax() -> Any:
        import jax.numpy as jnp

        precision = jnp.asarray((law.scale**-2).numpy(), "float32")
        return peers.blackjax_walk(
            "hmc", lambda x: -0.5 * (precision * x * x).sum(), start, peer_steps,
            step_size=HMC_STEP, num_integration_steps=LEAPFROG, inverse_mass_matrix=jnp.ones(dim),
        )  # fmt: skip

    return Case(
        claim=f"HMC, {LEAPFROG} leapfrogs, Gaussian in {dim}-D, {n_chains:,} chains",
        unit="trajectories",
        contenders=[
            ours(target, kernel, start, steps, law.check),
            theirs("BlackJAX", blackjax, n_chains * peer_steps, law.check, HMC_BAR),
        ],
        note=NOTE.format(ours=steps, theirs=peer_steps)
        + " All take the same step and the same number of leapfrogs, so that the ratio of rates is "
        "that of effective draws per second.",
    )


def statistics(kernel: Any, quick: bool, *, in_many: bool = False, in_torch: bool = False) -> Case:
    """What streaming statistics cost: mean, variance, R-hat, ESS and their errors."""
    if in_many:  # the cheapest target there is
        where, n_chains, steps = "a Gaussian in 100-D", *((100, 50) if quick else (1000, 1000))
        law: Any = gates.ScaledLaw(torch.linspace(0.5, 2, 100, dtype=torch.float64))
        target: Any = pf.targets.Gaussian(torch.zeros(100), scale=law.scale)
        if in_torch:
            where, precision = f"{where} written in torch", law.scale.float() ** -2

            def target(x: Tensor) -> Tensor:
                return -0.5 * (precision * x.square()).sum(1)

    else:
        where, n_chains, steps = "8 Gaussians in 2-D", *((10_000, 50) if quick else (100_000, 500))
        law = modes()
        target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    start, seeds = law.start(n_chains), itertools.count()

    def contender(store: Any, **more: Any) -> Contender:
        def call() -> pf.Chains:
            return pf.sample(
                target, kernel, start, n_steps=steps, store=store, seed=next(seeds), progress=False
            )

        return Contender(f"store={store!r}", call, n_chains * steps, gated(law.check), **more)

    return Case(
        claim=f"{type(kernel).__name__} with streaming statistics, {where}, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[contender("stats", role="ours"), contender("last", bar=STATISTICS_BAR)],
        note=f"Statistics may make a run 15 percent slower at most. A run of {steps:,} steps.",
    )


def progress(quick: bool) -> Case:
    """What a progress bar with acceptance and R-hat costs."""
    n_chains, steps = (10_000, 50) if quick else (100_000, 2000)
    law, seeds = modes(), itertools.count()
    target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    start = law.start(n_chains)

    def contender(shown: bool, **more: Any) -> Contender:
        def call() -> pf.Chains:
            with contextlib.redirect_stderr(io.StringIO()):
                return pf.sample(
                    target, pf.MALA(STEP_SIZE), start, n_steps=steps, store="stats",
                    seed=next(seeds), progress=shown,
                )  # fmt: skip

        return Contender(f"progress={shown}", call, n_chains * steps, gated(law.check), **more)

    return Case(
        claim=f"MALA with a progress bar, 8 Gaussians in 2-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[contender(True, role="ours"), contender(False, bar=PROGRESS_BAR)],
        note="The bar writes to memory; it says the rate, the acceptance and R-hat.",
    )


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    return {
        "random walk": partial(mixture, "random walk", quick),
        "mala": partial(mixture, "mala", quick),
        "hmc": partial(hmc, quick),
        "statistics of random walk": partial(statistics, pf.RandomWalk(SCALE), quick),
        "statistics of mala": partial(statistics, pf.MALA(STEP_SIZE), quick),
        "statistics of langevin": partial(statistics, pf.Langevin(1e-4), quick),
        "statistics of mala in many": partial(statistics, pf.MALA(0.05), quick, in_many=True),
        "statistics of hmc in many": partial(
            statistics, pf.HMC(HMC_STEP, LEAPFROG), quick, in_many=True
        ),
        "statistics of mala in torch": partial(
            statistics, pf.MALA(0.05), quick, in_many=True, in_torch=True
        ),
        "statistics of random walk in torch": partial(
            statistics, pf.RandomWalk(0.1), quick, in_many=True, in_torch=True
        ),
        "progress": partial(progress, quick),
    }


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    pin(options.threads)
    publish(run("mcmc", cases(options.quick), options), options)


if __name__ == "__main__":
    main()
