# SPDX-License-Identifier: Apache-2.0
"""Figures of the ring: what each sampler drew, and how fast."""

from __future__ import annotations

from matplotlib.figure import Figure

from pushforward.demo.drawing import Picture, Theme, picture, quiet_axes
from pushforward.demo.ring import RADIUS, Cloud, RingResult
from pushforward.demo.table import magnitude

_REACH = RADIUS + 2.0


def cloud_pictures(result: RingResult) -> tuple[Picture, ...]:
    """Return one scatter plot a sample, exact draws first."""
    clouds = (result.floor, *result.runs)
    return tuple(_cloud_picture(cloud, number) for number, cloud in enumerate(clouds))


def _cloud_picture(cloud: Cloud, number: int) -> Picture:
    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(2.8, 2.8))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        first, second = cloud.x.numpy().T
        axes.scatter(first, second, s=1.6, alpha=0.35, linewidths=0, color=theme.series[number])
        axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal")
        axes.set_axis_off()
        return figure

    return picture(
        "ring-" + cloud.name.replace(" ", "-"), draw,
        alternative=f"{len(cloud.x)} points in eight groups on a circle: {cloud.name}",
        caption=cloud.name,
    )  # fmt: skip


def rate_picture(result: RingResult) -> Picture:
    """Return the chain-steps a second of the three samplers as bars."""
    rates = [run.rate or 0.0 for run in result.runs]

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(6.4, 1.7))
        axes = figure.add_axes((0.17, 0.04, 0.7, 0.92))
        rows = range(len(rates))
        axes.barh(rows, rates, height=0.56, color=theme.series[1:])
        for row, rate in zip(rows, rates, strict=True):
            axes.annotate(
                f"{magnitude(rate)}/s", (rate, row), (5, 0), textcoords="offset points",
                va="center", color=theme.ink, size=10,
            )  # fmt: skip
        quiet_axes(axes, theme)
        axes.spines["bottom"].set_visible(False)
        axes.set_yticks(rows, [run.name for run in result.runs], color=theme.ink, size=10)
        axes.set_xticks([])
        axes.invert_yaxis()
        return figure

    return picture(
        "ring-rates", draw,
        alternative="Bars of chain-steps per second: "
        + ", ".join(
            f"{run.name} {magnitude(rate)}" for run, rate in zip(result.runs, rates, strict=True)
        ),
        caption="Chain-steps per second, from zero: the length of a bar is the rate.",
    )  # fmt: skip
