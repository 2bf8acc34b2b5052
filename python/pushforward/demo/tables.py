# SPDX-License-Identifier: Apache-2.0
"""The two tables of the demo."""

from __future__ import annotations

import numpy as np

from pushforward.demo.quality import N_CLASSES, Judgement, Quality
from pushforward.demo.ring import N_MODES, Cloud, RingResult
from pushforward.demo.table import Table, magnitude


def ring_table(result: RingResult) -> Table:
    """Return the ring's measures, exact draws first."""
    plain = result.runs[-1].rate or 0.0

    def row(cloud: Cloud) -> tuple[str, ...]:
        speed = ("–", "–")
        if cloud.rate is not None:
            ratio = cloud.rate / plain
            speed = (magnitude(cloud.rate), f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.2f} ×")
        return (cloud.name, str(cloud.w2), f"{cloud.modes} of {N_MODES}", str(cloud.spread), *speed)

    return Table(
        "Eight-mode ring",
        ("", "W2 to exact draws", "modes", "variance in a mode", "chain-steps/s", "speed"),
        tuple(row(cloud) for cloud in (result.floor, *result.runs)),
    )


def digit_table(judgement: Judgement) -> Table:
    """Return the digits' measures, real ones first."""

    def row(quality: Quality) -> tuple[str, ...]:
        return (
            quality.name,
            str(quality.frechet),
            f"{np.median(quality.distances):.2f}",
            f"{quality.distances.min():.2f}",
            f"{quality.covered} of {N_CLASSES}",
            f"{100 * quality.shares.min():.0f}–{100 * quality.shares.max():.0f} %",
            f"{quality.confidence:.3f}",
            "–" if quality.seconds is None else f"{quality.seconds:.1f}",
        )

    return Table(
        "Handwritten digits",
        (
            "", "Fréchet distance", "nearest: median", "least", "classes", "shares", "confidence",
            "seconds",
        ),
        tuple(row(quality) for quality in (judgement.data, *judgement.drawn)),
    )  # fmt: skip
