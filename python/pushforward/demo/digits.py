# SPDX-License-Identifier: Apache-2.0
"""Learning to denoise handwritten digits, and drawing new ones from noise."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import pushforward as pf
from pushforward.demo.settings import Seeds, Settings
from pushforward.diffusion import OrnsteinUhlenbeck, PreconditionedDenoiser
from pushforward.progress import progress_bar

LEARNING_RATE = 5e-3
AVERAGING = 0.99
NOISE_LEVELS = (0.02, 20.0)  # pixels span [-1, 1]: from invisible to nothing but noise
N_PATHS = 4
N_PATH_STOPS = 12


@dataclass(frozen=True)
class Digits:
    """The data: images ``(n, 1, 8, 8)`` in [-1, 1] and what digit each is, ``(n,)``."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Drawn:
    """New digits of one reverse process.

    Attributes:
        name: of the process, three letters.
        alpha: how much noise it added on the way.
        images: ``(n, 1, 8, 8)``, clamped to [-1, 1].
        seconds: that drawing them took.
        path: states of the first few on the way, ``(stops, paths, 1, 8, 8)``.
        levels: the noise levels of those stops.

    """

    name: str
    alpha: float
    images: Tensor
    seconds: float
    path: Tensor
    levels: tuple[float, ...]

    @property
    def label(self) -> str:
        """Return the process with its alpha."""
        return f"{self.name} (α = {self.alpha:g})"


def load_digits() -> Digits:
    """Return scikit-learn's 1797 handwritten digits, which come with it."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1
    return Digits(images, torch.as_tensor(bunch.target, dtype=torch.int64))


def train(images: Tensor, settings: Settings, seeds: Seeds) -> PreconditionedDenoiser:
    """Return a denoiser fitted to the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.network)
        network = pf.nets.UNet(1, width=settings.width)
    denoiser = PreconditionedDenoiser(network, OrnsteinUhlenbeck(), data_std=float(images.std()))
    return pf.diffusion.fit_denoiser(
        denoiser, images, n_steps=settings.training_steps, batch_size=settings.batch_size,
        learning_rate=LEARNING_RATE, noise_levels=NOISE_LEVELS, ema=AVERAGING, seed=seeds.training,
    )  # fmt: skip


def draw(
    name: str, denoiser: PreconditionedDenoiser, alpha: float, settings: Settings, seeds: Seeds
) -> Drawn:
    """Carry noise back to new digits; every ``alpha`` starts from the same noise."""
    process = denoiser.process
    times = time_grid(process, settings.reverse_steps)
    noise = pf.random.normal(settings.n_samples, 64, seed=seeds.noise)
    start = process.std(times[0]) * noise.reshape(-1, 1, 8, 8)
    score = pf.diffusion.tweedie_score(denoiser, process)
    stops = torch.linspace(0, settings.reverse_steps - 1, N_PATH_STOPS - 1).round().int().tolist()
    path: list[Tensor] = []
    began = time.perf_counter()
    with progress_bar(None, total=settings.reverse_steps) as bar:
        step = 0

        def watched(x: Tensor, t: Tensor) -> Tensor:
            nonlocal step
            if step in stops:
                path.append(x[:N_PATHS].clone())
            step += 1
            bar.update(1)
            return score(x, t)

        images = pf.diffusion.reverse(
            watched, process, start, times=times, alpha=alpha, seed=seeds.reverse
        ).clamp(-1, 1)
    levels = [process.std(times[k]) / process.mean_scale(times[k]) for k in stops]
    path.append(images[:N_PATHS])
    seconds = time.perf_counter() - began
    return Drawn(name, alpha, images, seconds, torch.stack(path), (*levels, 0.0))


def time_grid(process: OrnsteinUhlenbeck, n_steps: int) -> list[float]:
    """Return the times of log-spaced noise levels from the greatest to the least, and then 0.

    The score changes by a like amount over each factor of the noise level, so that log spacing
    spends the steps evenly.
    """
    least, greatest = NOISE_LEVELS
    levels = torch.linspace(math.log(greatest), math.log(least), n_steps, dtype=torch.float64).exp()
    return [*process.time_at(levels).tolist(), 0.0]
