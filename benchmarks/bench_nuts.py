# SPDX-License-Identifier: Apache-2.0
"""NUTS to 10,000 effective draws, compile time counted: ``python benchmarks/bench_nuts.py``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

import gates
import peers_nuts as peers
import pushforward as pf
from harness import Absent, Case, Contender, GateError, arguments, attempt, run
from machine import pin
from make_tables import publish

WANTED = 10_000
BAR = 1.0
DISAGREE, TRIES = 1.1, 3  # R-hat from which a run is done again, and how often

# Chains, warm-up and kept draws that suit each: found by trying, so that all reach WANTED.
SIZES = {
    "eight schools": {
        "pushforward": (256, 120, 60), "NumPyro": (4, 500, 4000), "BlackJAX": (64, 500, 250),
    },
    "logistic regression": {
        "pushforward": (64, 150, 95), "NumPyro": (4, 500, 3000), "BlackJAX": (32, 500, 400),
    },
}  # fmt: skip


def timed(draws: Callable[[], Tensor], wanted: int) -> Callable[[], tuple[float, Tensor]]:
    """Return a call that times itself: what ``wanted`` effective draws took or would take.

    A run whose chains disagree, which its user would not keep, is done again and not counted.
    """

    def call() -> tuple[float, Tensor]:
        for _ in range(TRIES):
            began = time.perf_counter()
            samples = draws()
            seconds = time.perf_counter() - began
            if float(pf.diagnostics.rhat(samples.double()).max()) < DISAGREE:
                break
        effective = float(pf.diagnostics.ess(samples.double()).min())
        return seconds * max(1.0, wanted / effective), samples

    return call


def ours(posterior: peers.Posterior, sizes: tuple[int, int, int]) -> Callable[[], Tensor]:
    """Return pushforward's sampler."""
    n_chains, warmup, n_kept = sizes
    seeds, x = itertools.count(), peers.start(posterior, n_chains)

    def draws() -> Tensor:
        chains = pf.sample(
            posterior.in_torch, pf.NUTS(), x, warmup=warmup, n_steps=n_kept, seed=next(seeds),
            progress=False,
        )  # fmt: skip
        if chains.draws is None:
            raise GateError("no draws")
        return chains.draws

    return draws


def posterior(build: Callable[[], peers.Posterior], quick: bool) -> Case:
    """One posterior, all samplers."""
    problem = build()
    sizes = SIZES[problem.name]
    wanted = WANTED // 10 if quick else WANTED
    if quick:
        sizes = {name: (n, w, max(8, k // 10)) for name, (n, w, k) in sizes.items()}
    mean, var = peers.reference(problem)

    def gate(samples: Tensor, _calls: int) -> None:
        flat = samples.double().flatten(0, 1)
        effective = pf.diagnostics.ess(samples.double())
        error = (var * (1 / effective + 2e-3)).sqrt()  # and the reference's own
        gates.require((flat.mean(0) - mean) / error, "means")

    def contender(name: str, draws: Callable[[], Tensor], **more: Any) -> Contender:
        return Contender(name, timed(draws, wanted), wanted, gate, times_itself=True, **more)

    def peer(name: str, build: Callable[..., Callable[[], Tensor]]) -> Contender | Absent:
        return attempt(name, lambda: contender(name, build(problem, *sizes[name]), bar=BAR))

    chains = ", ".join(f"{name} {n}" for name, (n, *_) in sizes.items())
    return Case(
        claim=f"NUTS, {problem.name}, {problem.dim} parameters, to {wanted:,} effective draws",
        unit="effective draws",
        contenders=[
            contender("pushforward", ours(problem, sizes["pushforward"]), role="ours"),
            peer("NumPyro", peers.numpyro),
            peer("BlackJAX", peers.blackjax),
        ],
        note="Warm-up and compilation are counted, imports are not. Chains: "
        f"{chains}. Effective draws are the least over the parameters. A run whose "
        f"R-hat reaches {DISAGREE} (NumPyro's, once in a dozen: a chain stood still) is done again "
        "and not counted.",
    )


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    return {
        "eight schools": partial(posterior, peers.eight_schools, quick),
        "logistic": partial(posterior, peers.logistic, quick),
    }


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    if not options.quick:
        options.rounds = min(options.rounds, 5)  # seconds each
    pin(options.threads)
    publish(run("nuts", cases(options.quick), options), options)


if __name__ == "__main__":
    main()
