# SPDX-License-Identifier: Apache-2.0
"""What all figures share: two themes, chart axes, mosaics of digits, PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

_DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Theme:
    """Colours of a chart on a light or on a dark page."""

    ink: str
    muted: str
    rule: str
    page: str
    series: tuple[str, str, str, str]


LIGHT = Theme(
    "#1f2733", "#5b6573", "#d9dee5", "#ffffff", ("#8a94a3", "#2563c9", "#d9600a", "#11837a")
)
DARK = Theme(
    "#e8ecf2", "#a3adba", "#39424f", "#171c24", ("#98a2b1", "#6ea3f5", "#f59a4c", "#3fbfb1")
)


@dataclass(frozen=True)
class Picture:
    """A figure of the report as PNG files.

    Attributes:
        name: of its file, without the suffix.
        alternative: what it shows, for who cannot see it.
        caption: how to read it.
        light: PNG for a light page.
        dark: PNG for a dark page.

    """

    name: str
    alternative: str
    caption: str
    light: bytes
    dark: bytes


def picture(
    name: str, draw: Callable[[Theme], Figure], *, alternative: str, caption: str
) -> Picture:
    """Return the figure that ``draw`` makes, in both themes."""
    light, dark = (_png(draw(theme), theme) for theme in (LIGHT, DARK))
    return Picture(name, alternative, caption, light, dark)


def _png(figure: Figure, theme: Theme) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor=theme.page)
    return buffer.getvalue()


def quiet_axes(axes: Axes, theme: Theme) -> None:
    """Leave only a baseline and muted labels."""
    axes.set_facecolor(theme.page)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.rule)
    axes.tick_params(colors=theme.muted, length=0, labelsize=8.5)
    axes.xaxis.label.set(color=theme.muted, size=9)


def mosaic(images: Tensor, columns: int) -> NDArray[np.float32]:
    """Return images ``(n, 1, height, width)`` side by side in rows, one dark pixel apart."""
    tiles = images[:, 0].numpy()
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1] + 1, tiles.shape[2] + 1
    canvas = np.full((rows * height + 1, columns * width + 1), -1.0, dtype=np.float32)
    for i, tile in enumerate(tiles):
        top, left = 1 + (i // columns) * height, 1 + (i % columns) * width
        canvas[top : top + height - 1, left : left + width - 1] = tile
    return canvas


def show(axes: Axes, canvas: NDArray[np.float32]) -> None:
    """Show a mosaic, ink white on black, without axes."""
    axes.imshow(canvas, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_axis_off()
