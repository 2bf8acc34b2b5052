# SPDX-License-Identifier: Apache-2.0
"""Eight Gaussians on a circle: the same Langevin run, three ways."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import pushforward as pf
from pushforward.demo.distances import Estimate, wasserstein_on_subsets
from pushforward.demo.settings import Seeds, Settings
from pushforward.progress import progress_bar

N_MODES = 8
RADIUS = 4.0
MODE_STD = 0.5
STEP_SIZE = 0.02
START_STD = 3.0
AGREEMENT = 1e-3  # far below MODE_STD, far above 400 steps of float32 rounding


@dataclass(frozen=True)
class Sampler:
    """One way to run the chain: ``advance(x, first_step, n_steps)`` returns the later state."""

    name: str
    detail: str
    advance: Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Cloud:
    """A sample of the ring and what was measured on it.

    Attributes:
        name: how it was made, in a few words.
        detail: the same in code.
        x: the points, ``(n, 2)``.
        w2: W2 distance to exact draws.
        modes: how many of the eight hold at least a third of their share.
        spread: variance within a mode over the exact one.
        rate: median chain-steps a second, None for exact draws.

    """

    name: str
    detail: str
    x: Tensor
    w2: Estimate
    modes: int
    spread: Estimate
    rate: float | None


@dataclass(frozen=True)
class RingResult:
    """What the ring's runs gave.

    Attributes:
        floor: exact draws, measured against other exact draws.
        runs: native, fused and plain torch, in this order.
        largest_difference: between the native and the fused update, over all chains.
        agreeing: share of chains in which they agree to rounding.
        bias: variance within a mode over the exact one that theory predicts for this step size.

    """

    floor: Cloud
    runs: tuple[Cloud, ...]
    largest_difference: float
    agreeing: float
    bias: float


def sample_ring(settings: Settings, seeds: Seeds) -> RingResult:
    """Run the three samplers side by side and measure what they drew."""
    centers = mode_centers()
    law = pf.targets.GaussianMixture(centers, scales=torch.full((N_MODES,), MODE_STD))
    samplers = _samplers(law, _energy(centers), seeds)
    start = START_STD * pf.random.normal(settings.n_chains, 2, seed=seeds.start)
    states, rates = _race(samplers, start, settings)
    exact = law.sample(settings.n_chains, seed=seeds.exact)
    other = law.sample(settings.n_chains, seed=seeds.floor)
    difference = (states[0] - states[1]).abs().amax(1)
    return RingResult(
        floor=_measure("exact draws", "target.sample(n)", other, exact, None, settings),
        runs=tuple(
            _measure(sampler.name, sampler.detail, x, exact, rate, settings)
            for sampler, x, rate in zip(samplers, states, rates, strict=True)
        ),
        largest_difference=float(difference.max()),
        agreeing=float((difference < AGREEMENT).double().mean()),
        bias=1 / (1 - STEP_SIZE / (2 * MODE_STD**2)),
    )


def mode_centers() -> Tensor:
    """Return the centers of the modes, ``(8, 2)``."""
    angle = torch.arange(N_MODES) * (2 * math.pi / N_MODES)
    return RADIUS * torch.stack((angle.cos(), angle.sin()), 1)


def _energy(centers: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the ring's energy as a torch user would write it."""

    def energy(x: Tensor) -> Tensor:
        square = (x[:, None] - centers).square().sum(2)
        return -torch.logsumexp(-square / (2 * MODE_STD**2), 1)

    return energy


def _samplers(
    law: pf.targets.GaussianMixture, energy: Callable[[Tensor], Tensor], seeds: Seeds
) -> tuple[Sampler, ...]:
    def driven(target: object) -> Callable[[Tensor, int, int], Tensor]:
        def advance(x: Tensor, first_step: int, n_steps: int) -> Tensor:
            chains = pf.sample(
                target, pf.Langevin(STEP_SIZE), x, n_steps=n_steps, first_step=first_step,
                store="last", progress=False, seed=seeds.langevin,
            )  # fmt: skip
            if chains.interrupted:
                raise KeyboardInterrupt
            return chains.x

        return advance

    def plain(x: Tensor, first_step: int, n_steps: int) -> Tensor:
        generator = torch.Generator().manual_seed(pf.random.fold_in(seeds.plain_torch, first_step))
        for _ in range(n_steps):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(x).sum(), x)
            noise = torch.randn(x.shape, generator=generator)
            x = x.detach() - STEP_SIZE * gradient + math.sqrt(2 * STEP_SIZE) * noise
        return x

    return (
        Sampler("native run", "sample(GaussianMixture(...), Langevin(h), x)", driven(law)),
        Sampler(
            "fused update", "sample(Energy(torch_fn), Langevin(h), x)", driven(pf.Energy(energy))
        ),
        Sampler("plain torch", "autograd.grad + torch.randn in a loop", plain),
    )


def _race(
    samplers: tuple[Sampler, ...], start: Tensor, settings: Settings
) -> tuple[list[Tensor], list[float]]:
    """Run all samplers in interleaved blocks; return their last states and median rates.

    A shared machine's speed drifts over seconds: in turns, and each first in its turn, all of
    them meet the same drift.
    """
    for sampler in samplers:  # a first call pays for what later ones find ready
        sampler.advance(start, 0, 2)
    states = [start] * len(samplers)
    rates: list[list[float]] = [[] for _ in samplers]
    with progress_bar(None, total=settings.n_blocks * len(samplers), unit="block") as bar:
        for block in range(settings.n_blocks):
            for turn in range(len(samplers)):
                i = (block + turn) % len(samplers)
                began = time.perf_counter()
                states[i] = samplers[i].advance(
                    states[i], block * settings.block_steps, settings.block_steps
                )
                seconds = time.perf_counter() - began
                rates[i].append(settings.n_chains * settings.block_steps / seconds)
                bar.update(1)
    return states, [statistics.median(values) for values in rates]


def _measure(
    name: str, detail: str, x: Tensor, exact: Tensor, rate: float | None, settings: Settings
) -> Cloud:
    points = x.double()
    centers = mode_centers().double()
    away, mode = torch.cdist(points, centers).min(1)
    share = torch.bincount(mode, minlength=N_MODES) / len(x)
    square = away.square() / (2 * MODE_STD**2)  # of mean 1 and variance 1 for exact draws
    return Cloud(
        name, detail, x,
        w2=wasserstein_on_subsets(
            points.numpy(), exact.double().numpy(), n_subsets=settings.n_subsets,
            size=settings.subset_size,
        ),
        modes=int((share >= 1 / (3 * N_MODES)).sum()),
        spread=Estimate(float(square.mean()), float(square.std()) / math.sqrt(len(x))),
        rate=rate,
    )  # fmt: skip
