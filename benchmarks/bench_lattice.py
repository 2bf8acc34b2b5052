# SPDX-License-Identifier: Apache-2.0
"""Ising sweeps and phi^4 steps: ``python benchmarks/bench_lattice.py [--quick]``.

The gates are exact: the energy of the Ising model after Onsager, at a temperature where the
lattices are as good as infinite; for phi^4 without its quartic term, where a step of Langevin is
linear, the variance of the scheme itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gates
import peers_lattice as peers
import pushforward as pf
from harness import Absent, Case, Contender, arguments, attempt, run
from machine import pin
from make_tables import publish
from pushforward._ops import lattice as ops

TEMPERATURE = 2.5
ISING_BAR = 10.0  # against each of the others
NOTE = (
    "int8 spins at both ends of a call, bits inside; a word of noise a spin and sweep. peapods and "
    "mcising, which visit the sites one after another, sweep several lattices on all threads, but "
    "a lattice on one."
)
KAPPA, STEP_SIZE = 0.2, 0.05
STATISTICS_BAR = 0.87
SWEEPS = pf.lattice.Metropolis()
LEFT_OUT = "left out of a quick run"


def onsager_energy(temperature: float) -> float:
    """Return the energy a site of the infinite lattice (L. Onsager, 1944)."""
    angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) * (math.pi / 2 / 200_000)
    beta = 1 / temperature
    modulus = 2 * math.sinh(2 * beta) / math.cosh(2 * beta) ** 2
    integral = (1 / (1 - (modulus * angle.sin()) ** 2).sqrt()).mean().item()  # over pi / 2
    factor = 2 * math.tanh(2 * beta) ** 2 - 1
    return -(1 + factor * integral) / math.tanh(2 * beta)


def energy_gate(n_lattices: int, length: int) -> Callable[[Any, int], None]:
    """Return the gate of states in equilibrium: their mean energy, whose variance is T^2 C / V."""
    law = pf.lattice.Ising((length, length), temperature=TEMPERATURE)
    heat = (onsager_energy(TEMPERATURE + 1e-4) - onsager_energy(TEMPERATURE - 1e-4)) / 2e-4
    spread = math.sqrt(TEMPERATURE**2 * heat / (law.n_sites * n_lattices))

    def gate(x: Any, _calls: int) -> None:
        energy = law.energy(gates.as_torch(x).double()).mean() / law.n_sites
        gates.require((energy - onsager_energy(TEMPERATURE)).reshape(1) / spread, "energy")

    return gate


def equilibrium(n_lattices: int, length: int) -> tuple[pf.lattice.Ising, Tensor]:
    """Return the Ising model and states of it."""
    law = pf.lattice.Ising((length, length), temperature=TEMPERATURE)
    x = torch.ones(n_lattices, length, length, dtype=torch.int8)
    pf.lattice.Metropolis().advance(x, law, seed=1, first_step=0, n_steps=2000, chain_offset=0)
    return law, x


def ising(n_lattices: int, length: int, sweeps: int, peer_sweeps: int) -> Case:
    """Metropolis sweeps of the two-dimensional Ising model."""
    law, start = equilibrium(n_lattices, length)
    kernel, calls = pf.lattice.Metropolis(), itertools.count()
    x, gate = start.clone(), energy_gate(n_lattices, length)

    def call() -> Tensor:
        kernel.advance(
            x, law, seed=2, first_step=sweeps * next(calls), n_steps=sweeps, chain_offset=0
        )
        return x

    def build(name: str) -> Contender:
        theirs = peers.ISING[name](start, TEMPERATURE, peer_sweeps)
        units = x.numel() * peer_sweeps
        return Contender(name, theirs, units, gate, bar=ISING_BAR)

    ours = Contender("pushforward", call, x.numel() * sweeps, gate, role="ours")
    return Case(
        claim=f"Ising Metropolis, {n_lattices} x {length}^2, {sweeps} sweeps a call",
        unit="spins visited",
        contenders=[ours, *(attempt(n, partial(build, n)) for n in peers.ISING)],
        note=NOTE,
    )


def scheme_gate(n_lattices: int, length: int) -> Callable[[Any, int], None]:
    """Return the gate of Langevin on the free field, of exact variance mode by mode."""
    k = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    precision = 2 - 4 * KAPPA * (k.cos()[:, None] + k.cos())

    def gate(x: Any, _calls: int) -> None:
        phi = gates.as_torch(x).double()
        power = torch.fft.fft2(phi).abs().square() / length**2
        z = power * precision * (1 - STEP_SIZE * precision / 2)  # of mean one
        # Modes come in pairs, so that half of them are independent, each of variance one.
        count = n_lattices * length**2
        total = (z.mean() - 1) * math.sqrt(count / 2)
        slow = z[:, :2, :2].mean() - 1
        gates.require(torch.stack((total, slow * math.sqrt(n_lattices))), "modes")

    return gate


def langevin(
    n_lattices: int, length: int, steps: int, peer_steps: int, bar: float, quick: bool
) -> Case:
    """Langevin steps of a phi^4 field in two dimensions; lambda = 0 costs what others do."""
    law = pf.lattice.Phi4((length, length), kappa=KAPPA, lam=0.0)
    start = pf.random.normal(n_lattices, length**2, seed=1).reshape(n_lattices, length, length)
    parameters, gate = law.native_parameters(start), scheme_gate(n_lattices, length)
    move = partial(ops.phi4_run, "langevin", chain_offset=0)
    move(start, parameters, STEP_SIZE, seed=3, first_step=0, n_steps=2000)
    x, calls = start.clone(), itertools.count()

    def call() -> Tensor:
        first = steps * next(calls)
        move(x, parameters, STEP_SIZE, seed=4, first_step=first, n_steps=steps)
        return x

    def build(name: str) -> Contender:
        theirs = peers.LANGEVIN[name](start, KAPPA, 0.0, STEP_SIZE, peer_steps)
        least = bar if "JAX" in name else 4.0
        return Contender(name, theirs, x.numel() * peer_steps, gate, bar=least)

    out, seeds = torch.empty(256, 1024), itertools.count()

    def normals() -> Tensor:
        for _ in range(20):
            pf.random.normal(256, 1024, seed=next(seeds), out=out)
        return out

    ceiling = Contender(
        "normals in cache", normals, out.numel() * 20,
        lambda z, _calls: gates.standard_normal(z), role="ceiling",
    )  # fmt: skip
    others = [
        Absent(n, LEFT_OUT) if quick and "compile" in n else attempt(n, partial(build, n))
        for n in peers.LANGEVIN
    ]
    return Case(
        claim=f"phi^4 Langevin, {n_lattices} x {length}^2, {steps} steps a call",
        unit="sites moved",
        contenders=[
            Contender("pushforward", call, x.numel() * steps, gate, role="ours"), *others, ceiling,
        ],
        ceilings={"noise": lambda seconds: seconds["normals in cache"]},
    )  # fmt: skip


def statistics(law: Any, kernel: Any, start: Tensor, steps: int, gate: Callable) -> Case:
    """What streaming statistics of every site cost."""
    seeds = itertools.count()

    def contender(store: Any, **more: Any) -> Contender:
        def call() -> Tensor:
            return pf.sample(
                law, kernel, start, n_steps=steps, store=store, seed=next(seeds), progress=False
            ).x

        return Contender(f"store={store!r}", call, start.numel() * steps, gate, **more)

    return Case(
        claim=f"{type(law).__name__} {type(kernel).__name__} with streaming statistics a site, "
        f"{len(start)} x {start.shape[-1]}^2",
        unit="sites visited",
        contenders=[contender("stats", role="ours"), contender("last", bar=STATISTICS_BAR)],
        note=f"Statistics may make a run 15 percent slower at most. A run of {steps:,} steps.",
    )


def ising_statistics(kernel: Any, n_lattices: int, length: int, steps: int) -> Case:
    """Of moves of the Ising model."""
    law, start = equilibrium(n_lattices, length)
    return statistics(law, kernel, start, steps, energy_gate(n_lattices, length))


def phi4_statistics(n_lattices: int, length: int, steps: int) -> Case:
    """Of Langevin steps of the free field."""
    law = pf.lattice.Phi4((length, length), kappa=KAPPA, lam=0.0)
    kernel, start = pf.Langevin(STEP_SIZE), torch.zeros(n_lattices, length, length)
    start = pf.sample(law, kernel, start, n_steps=2000, store="last", seed=1, progress=False).x
    return statistics(law, kernel, start, steps, scheme_gate(n_lattices, length))


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    few = 10 if quick else 1
    return {
        "ising large": partial(ising, 1, 1024, 200 // few, 20 // few),
        "ising many": partial(ising, 64, 64, 800 // few, 80 // few),
        "phi4 128": partial(langevin, 60, 128, 200 // few, 20 // few, 4.0, quick),
        "phi4 32": partial(langevin, 60, 32, 3000 // few, 300 // few, 8.0, quick),
        "statistics of ising many": partial(ising_statistics, SWEEPS, 64, 64, 10_000 // few),
        "statistics of ising large": partial(ising_statistics, SWEEPS, 1, 1024, 5000 // few),
        "statistics of wolff": partial(ising_statistics, pf.lattice.Wolff(), 64, 64, 1000 // few),
        "statistics of swendsen-wang": partial(
            ising_statistics, pf.lattice.SwendsenWang(), 64, 64, 200 // few
        ),
        "statistics of phi4 128": partial(phi4_statistics, 60, 128, 1000 // few),
        "statistics of phi4 32": partial(phi4_statistics, 60, 32, 3000 // few),
    }


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    pin(options.threads)
    publish(run("lattice", cases(options.quick), options), options)


if __name__ == "__main__":
    main()
