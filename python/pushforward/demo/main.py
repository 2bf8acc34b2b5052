# SPDX-License-Identifier: Apache-2.0
"""The demo from start to end."""

from __future__ import annotations

from pathlib import Path

from pushforward.demo.digit_figures import (
    class_picture,
    distance_picture,
    grid_pictures,
    neighbour_picture,
    path_picture,
)
from pushforward.demo.digits import Digits, Drawn, draw, load_digits, train
from pushforward.demo.drawing import Picture
from pushforward.demo.prose import agreement
from pushforward.demo.quality import Judgement, judge
from pushforward.demo.report import Report
from pushforward.demo.ring import RingResult, sample_ring
from pushforward.demo.ring_figures import cloud_pictures, rate_picture
from pushforward.demo.settings import FULL, SHORT, Seeds, Settings
from pushforward.demo.stages import Stages, one_thread
from pushforward.demo.tables import digit_table, ring_table


def run_demo(out: Path, *, short: bool = False, seed: int = 0) -> None:
    """Sample, train, measure; print the tables, and write the report and its figures.

    Args:
        out: an existing folder.
        short: do less of everything.
        seed: all random numbers come from it.

    """
    settings, seeds = SHORT if short else FULL, Seeds.of(seed)
    stages = Stages()
    with stages.stage(f"Ring: {settings.n_chains} chains, {settings.n_steps} steps, three ways"):
        ring = sample_ring(settings, seeds)
    with one_thread():
        digits, drawn = _new_digits(settings, seeds, stages)
    with stages.stage("Measuring the digits"):
        judgement = judge(digits, drawn, settings, seeds)
    tables = ring_table(ring), digit_table(judgement)
    with stages.stage("Figures and report"):
        pictures = _pictures(ring, digits, drawn, judgement)
        report = Report(ring, judgement, *tables, pictures, settings, seed, stages).write(out)
    print(f"\n{tables[0].text()}\n{agreement(ring)}\n\n{tables[1].text()}")
    print(f"\n{report} written, {stages.total():.0f} s in total")


def _new_digits(
    settings: Settings, seeds: Seeds, stages: Stages
) -> tuple[Digits, tuple[Drawn, ...]]:
    digits = load_digits()
    with stages.stage(
        f"Digits: training a denoiser on {settings.training_steps} batches of {settings.batch_size}"
    ):
        denoiser = train(digits.images, settings, seeds)
    with stages.stage(f"Digits: drawing {settings.n_samples} by the SDE and by the ODE"):
        drawn = (
            draw("SDE", denoiser, 1.0, settings, seeds),
            draw("ODE", denoiser, 0.0, settings, seeds),
        )
    return digits, drawn


def _pictures(
    ring: RingResult, digits: Digits, drawn: tuple[Drawn, ...], judgement: Judgement
) -> dict[str, tuple[Picture, ...]]:
    """Return the figures by their place in the report."""
    return {
        "clouds": cloud_pictures(ring),
        "rates": (rate_picture(ring),),
        "grids": (*grid_pictures(digits, drawn),),
        "path": (path_picture(drawn[1]), neighbour_picture(digits, drawn[0], judgement)),
        "charts": (distance_picture(judgement), class_picture(judgement)),
    }
