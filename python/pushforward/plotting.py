# SPDX-License-Identifier: Apache-2.0
"""Figures. matplotlib is imported when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["trace_plot"]


def trace_plot(
    draws: Tensor,
    max_coordinates: int = 6,
    max_chains: int = 8,
    names: Sequence[str] | None = None,
) -> Figure:
    """Return a figure with a row a coordinate: the chains' traces, and the histogram of all.

    Args:
        draws: ``(n_kept, n_chains, *event)``.
        max_coordinates: how many coordinates are shown at most.
        max_chains: how many chains a trace shows at most.
        names: of the coordinates, by default their numbers.

    Raises:
        ValueError: there are no coordinates.
        ImportError: matplotlib is not installed.

    """
    if 0 in draws.shape[2:]:
        raise ValueError("plot: expected draws with at least one coordinate, got draws with none")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install matplotlib") from error
    flat = draws.flatten(2).cpu() if draws.ndim > 2 else draws[..., None].cpu()
    n = min(max_coordinates, flat.shape[2])
    figure = Figure(figsize=(9, 0.6 + 1.7 * n), layout="constrained")
    rows = figure.subplots(n, 2, squeeze=False, width_ratios=(3, 1))
    for i, (trace, histogram) in enumerate(rows):
        values = flat[:, :, i]
        trace.plot(values[:, :max_chains].numpy(), linewidth=0.6)
        trace.set_ylabel(f"coordinate {i}" if names is None else names[i])
        histogram.hist(
            values.flatten().numpy(), bins=60, density=True, orientation="horizontal", color="0.6"
        )
        histogram.sharey(trace)
        histogram.tick_params(labelleft=False)
    rows[-1][0].set_xlabel("kept draw")
    rows[-1][1].set_xlabel("density")
    return figure
