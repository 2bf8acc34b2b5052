# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pushforward as pf
from pushforward.demo.drawing import Picture
from pushforward.demo.page_style import STYLE
from pushforward.demo.prose import digit_prose, opening, ring_prose, tiles
from pushforward.demo.quality import Judgement
from pushforward.demo.ring import RingResult
from pushforward.demo.settings import Settings
from pushforward.demo.stages import Stages
from pushforward.demo.table import Table


@dataclass(frozen=True)
class Report:
    """Everything that goes into ``report.html``.

    Attributes:
        ring: measures of the ring.
        judgement: measures of the digits.
        ring_table: the ring's table.
        digit_table: the digits' table.
        pictures: figures by their place: clouds, rates, grids, path, charts.
        settings: the sizes of the runs.
        seed: the demo's seed.
        stages: what ran and how long it took.

    """

    ring: RingResult
    judgement: Judgement
    ring_table: Table
    digit_table: Table
    pictures: dict[str, tuple[Picture, ...]]
    settings: Settings
    seed: int
    stages: Stages

    def write(self, folder: Path) -> Path:
        """Write the report and its figures into the folder; return the report's path."""
        for group in self.pictures.values():
            for picture in group:
                (folder / f"{picture.name}.png").write_bytes(picture.light)
        path = folder / "report.html"
        path.write_text(self.html(), encoding="utf-8")
        return path

    def html(self) -> str:
        """Return the page."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>pushforward demo</title><style>{STYLE}</style></head><body><main>"
            f"<header><h1>pushforward demo</h1>{_paragraphs(opening(self.settings))}</header>"
            f"{_tiles(tiles(self.ring, self.judgement))}"
            f"{self._ring()}{self._digits()}{self._runs()}"
            "</main></body></html>\n"
        )

    def _ring(self) -> str:
        before, after = ring_prose(self.ring, self.settings)
        return (
            f"<section><h2>Eight modes, three ways</h2>{_paragraphs(before)}"
            f"{self._figures('clouds')}{self.ring_table.html()}{self._figures('rates')}"
            f"{_paragraphs(after)}</section>"
        )

    def _digits(self) -> str:
        before, after = digit_prose(self.judgement, self.settings)
        return (
            f"<section><h2>New handwritten digits</h2>{_paragraphs(before)}"
            f"{self._figures('grids')}{self._figures('path')}{self.digit_table.html()}"
            f"{self._figures('charts')}{_paragraphs(after)}</section>"
        )

    def _runs(self) -> str:
        facts = {
            **pf.build_info(),
            "seed": str(self.seed),
            **{title: f"{seconds:.1f} s" for title, seconds in self.stages.seconds.items()},
            "total, up to this page": f"{self.stages.total():.0f} s",
        }
        rows = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in facts.items()
        )
        return f"<section><h2>What was run</h2><dl>{rows}</dl></section>"

    def _figures(self, place: str) -> str:
        figures = "".join(_figure(picture) for picture in self.pictures[place])
        return f'<div class="figures {place}">{figures}</div>'


def _figure(picture: Picture) -> str:
    return (
        '<figure><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{_data_url(picture.dark)}">'
        f'<img src="{_data_url(picture.light)}" alt="{escape(picture.alternative)}"></picture>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _paragraphs(texts: tuple[str, ...]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _tiles(values: tuple[tuple[str, str], ...]) -> str:
    return (
        '<ul class="tiles">'
        + "".join(
            f"<li><b>{escape(big)}</b><span>{escape(small)}</span></li>" for big, small in values
        )
        + "</ul>"
    )
