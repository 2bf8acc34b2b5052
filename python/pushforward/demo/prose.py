# SPDX-License-Identifier: Apache-2.0
"""What the report says about its numbers."""

from __future__ import annotations

import numpy as np
import torch

from pushforward.demo.digits import NOISE_LEVELS
from pushforward.demo.quality import N_CLASSES, N_FEATURES, Judgement
from pushforward.demo.ring import MODE_STD, N_MODES, RADIUS, STEP_SIZE, RingResult
from pushforward.demo.settings import SHORT, Settings
from pushforward.demo.table import magnitude

Paragraphs = tuple[str, ...]


def opening(settings: Settings) -> Paragraphs:
    """Return what the page begins with."""
    text = (
        "Samples by transport and denoising, measured: an eight-mode ring that one Langevin run "
        "draws three ways, and new handwritten digits from a denoiser trained just now on this "
        "machine."
    )
    if settings == SHORT:
        return (
            text,
            "This is the short form: fewer chains and far fewer training steps, so its digits are "
            "rougher and its error bars wider than the full demo's.",
        )
    return (text,)


def tiles(ring: RingResult, judgement: Judgement) -> tuple[tuple[str, str], ...]:
    """Return the page's few large numbers, each with a caption."""
    native, _, plain = ring.runs
    sde = judgement.drawn[0]
    return (
        (magnitude(native.rate or 0.0), "chain-steps per second, native run"),
        (f"{(native.rate or 0.0) / (plain.rate or 1.0):.0f} ×", "the plain torch loop's rate"),
        (f"{native.modes} of {N_MODES}", "modes of the ring found"),
        (f"{sde.covered} of {N_CLASSES}", "digits among the new ones"),
    )


def ring_prose(result: RingResult, settings: Settings) -> tuple[Paragraphs, Paragraphs]:
    """Return what stands before and after the ring's table."""
    threads = torch.get_num_threads()
    before = (
        f"Eight Gaussians of standard deviation {MODE_STD:g} stand on a circle of radius "
        f"{RADIUS:g}. {settings.n_chains} chains start from one broad Gaussian in the middle and "
        f"take {settings.n_steps} Langevin steps of size {STEP_SIZE:g}: as native code, as a torch "
        "energy with a fused update, and as a loop in plain torch (autograd and torch.randn, not "
        "compiled).",
    )
    after = (
        f"How to read it. W2 is the exact optimal transport cost between {settings.subset_size} "
        f"points and as many exact draws, a mean over {settings.n_subsets} disjoint subsets with "
        "its standard error. It is not zero even for two sets of exact draws (first row), mostly "
        "because the modes hold different numbers of points by chance: a sampler that matches the "
        "first row cannot be told from exact at this size.",
        "What Langevin does wrong shows in the fourth column: its finite step widens each mode. "
        f"Theory predicts a variance {result.bias:.3f} times the exact one at this step size. A "
        "mode counts as found if it holds at least a third of its fair share. The start is as "
        "symmetric as the ring, which is why all modes get their share; chains rarely cross from "
        "one to another in a run this short.",
        f"Rates are medians over {settings.n_blocks} blocks run in turns on {threads} "
        f"{'thread' if threads == 1 else 'threads'}. The fused update cannot be much faster than "
        "plain torch here, because evaluating the energy and its gradient in torch is nearly all "
        f"the work. {agreement(result)}",
    )
    return before, after


def agreement(result: RingResult) -> str:
    """Return how well the native run and the fused update agree, for the page and the terminal."""
    return (
        "Native run and fused update read the same noise: "
        f"{100 * result.agreeing:.2f} % of their chains agree to rounding after the whole run; the "
        f"largest difference is {result.largest_difference:.1e}."
    )


def digit_prose(judgement: Judgement, settings: Settings) -> tuple[Paragraphs, Paragraphs]:
    """Return what stands before and after the digits' table."""
    low, high = NOISE_LEVELS
    n_real = len(judgement.data.distances)
    near = float(np.quantile(judgement.data.distances, 0.01))
    closer = [100 * float(np.mean(source.distances < near)) for source in judgement.drawn]
    before = (
        f"A small U-Net learns to remove noise from scikit-learn's {n_real} handwritten digits of "
        f"8×8 pixels, in {settings.training_steps} batches of {settings.batch_size} on one thread. "
        "Tweedie's formula turns it into the score, and the reverse process carries noise back to "
        f"{settings.n_samples} new digits in {settings.reverse_steps} steps over noise levels from "
        f"{high:g} to {low:g}: once as the SDE (α = 1), once as the probability-flow ODE "
        "(α = 0), from the same noise. All are shown; none were picked.",
    )
    after = (
        f"How to read it. The Fréchet distance compares means and covariances of {N_FEATURES} "
        f"principal components with those of {n_real - settings.n_samples} real digits; the first "
        f"row is the distance of the other {settings.n_samples} real ones, which is what a perfect "
        "sampler would get. ± is one standard deviation over random splits of the data, and for "
        "new digits over bootstrap resamples of them as well. The distance sees two moments only, "
        "and the denoiser was trained on all of the data: a low value is necessary, not "
        "sufficient.",
        "The distance to the nearest real digit tells copies from inventions: of the SDE's digits "
        f"{closer[0]:.1f} % and of the ODE's {closer[1]:.1f} % are closer to a real one than "
        "99 % of the real ones are to each other; without copying it would be 1 % or less. Real "
        "digits have the nearer neighbours, as each of a few writers gave many of them; but some "
        "strokes of the new ones are not quite as a hand would draw them, and that adds to it.",
        "Digits are named by a support vector machine fitted to real ones; it is right on "
        f"{100 * judgement.accuracy:.1f} % of those held out. Confidence is the mean probability "
        "of its answer: for shapes between two digits it drops. A digit counts if it holds at "
        "least a third of a tenth of all.",
    )
    return before, after
