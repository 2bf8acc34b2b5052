# SPDX-License-Identifier: Apache-2.0
"""Figures of the digits: the digits themselves, their way out of noise, and their measures."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pushforward.demo.digits import Digits, Drawn
from pushforward.demo.drawing import Picture, Theme, mosaic, picture, quiet_axes, show
from pushforward.demo.quality import N_CLASSES, Judgement

_COLUMNS = 16
_N_NEIGHBOURS = 16


def grid_pictures(digits: Digits, drawn: tuple[Drawn, ...]) -> tuple[Picture, ...]:
    """Return a grid of real digits, and one of all digits of each reverse process."""
    n = len(drawn[0].images)
    spaced = torch.linspace(0, len(digits.images) - 1, n).long()  # the file is in writers' order
    real = _grid("digits-real", digits.images[spaced], f"{n} real digits, evenly from the data")
    return (
        real,
        *(
            _grid(f"digits-{new.name.lower()}", new.images, f"{new.label}: all {n} drawn")
            for new in drawn
        ),
    )


def _grid(name: str, images: Tensor, caption: str) -> Picture:
    return _mosaic_picture(name, images, _COLUMNS, f"A grid of digits. {caption}", caption)


def _mosaic_picture(
    name: str, images: Tensor, columns: int, alternative: str, caption: str
) -> Picture:
    canvas = mosaic(images, columns)
    height, width = canvas.shape

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(5.0, 5.0 * height / width))
        show(figure.add_axes((0.0, 0.0, 1.0, 1.0)), canvas)
        return figure

    return picture(name, draw, alternative=alternative, caption=caption)


def neighbour_picture(digits: Digits, sample: Drawn, judgement: Judgement) -> Picture:
    """Return the first drawn digits above the digits of the data nearest to them."""
    nearest = judgement.drawn[0].neighbours[:_N_NEIGHBOURS]
    pairs = torch.cat((sample.images[:_N_NEIGHBOURS], digits.images[torch.as_tensor(nearest)]))
    caption = (
        f"Top: the first {_N_NEIGHBOURS} of the {sample.label}. Below each: the real digit "
        "nearest to it."
    )
    return _mosaic_picture(
        "digits-neighbours", pairs, _N_NEIGHBOURS,
        "Two rows: drawn digits and their nearest real digits", caption,
    )  # fmt: skip


def path_picture(sample: Drawn) -> Picture:
    """Return a few digits on their way out of the noise, one a row."""
    stops, paths = sample.path.shape[:2]
    canvas = mosaic(sample.path.transpose(0, 1).flatten(0, 1).clamp(-1, 1), stops)
    height, width = canvas.shape

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(6.4, 0.3 + 6.4 * height / width))
        share = (6.4 * height / width) / (0.3 + 6.4 * height / width)
        axes = figure.add_axes((0.0, 0.0, 1.0, share))
        show(axes, canvas)
        for i, level in enumerate(sample.levels):
            axes.text(
                (i + 0.5) * width / stops, -2.5, f"{level:.2g}", ha="center", va="center",
                color=theme.muted, size=9,
            )  # fmt: skip
        return figure

    return picture(
        "digits-path", draw,
        alternative=f"{paths} rows of {stops} pictures, from noise on the left to digits",
        caption=f"Out of the noise along the {sample.label}. Above: the noise level that is left.",
    )  # fmt: skip


def distance_picture(judgement: Judgement) -> Picture:
    """Return the distances to the nearest real digit, as outlines of histograms."""
    sources = (judgement.data, *judgement.drawn)
    edges = np.linspace(0, max(float(source.distances.max()) for source in sources), 28)

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(5.0, 3.0))
        axes = figure.add_axes((0.03, 0.17, 0.94, 0.8))
        for number, source in enumerate(sources):
            heights, _ = np.histogram(source.distances, edges, density=True)
            axes.stairs(
                heights, edges, color=theme.series[number], label=source.name,
                fill=number == 0, alpha=0.45 if number == 0 else 1.0, linewidth=1.8,
            )  # fmt: skip
        quiet_axes(axes, theme)
        axes.set_yticks([])
        axes.set(xlabel="distance to the nearest other digit of the data", xlim=(0, edges[-1]))
        axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9.5, loc="upper left")
        return figure

    return picture(
        "digits-distances", draw,
        alternative="Histograms of the distance to the nearest real digit",
        caption="Copies of the data would pile up at distance zero.",
    )  # fmt: skip


def class_picture(judgement: Judgement) -> Picture:
    """Return the share of each digit class, drawn and real."""
    sources = (judgement.data, *judgement.drawn)

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(5.0, 3.0))
        axes = figure.add_axes((0.09, 0.17, 0.89, 0.7))
        places = np.arange(N_CLASSES)
        width = 0.8 / len(sources)
        for number, source in enumerate(sources):
            offset = (number - (len(sources) - 1) / 2) * width
            axes.bar(
                places + offset, 100 * source.shares, 0.86 * width, color=theme.series[number],
                label=source.name,
            )  # fmt: skip
        quiet_axes(axes, theme)
        axes.set_xticks(places)
        axes.set(xlabel="digit, by the classifier")
        axes.yaxis.set_major_formatter("{x:.0f} %")
        axes.legend(
            frameon=False, labelcolor=theme.ink, fontsize=9.5, ncols=len(sources),
            loc="lower center", bbox_to_anchor=(0.5, 1.0),
        )  # fmt: skip
        return figure

    return picture(
        "digits-classes", draw,
        alternative="Bars of the share of each of the ten digits, real and drawn",
        caption="Share of each digit; real digits by their label.",
    )  # fmt: skip
