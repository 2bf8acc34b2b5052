# SPDX-License-Identifier: Apache-2.0
"""Quality of chains: how far they are from having converged, and what their averages are worth.

From kept draws: :func:`rhat`, :func:`ess`, :func:`mcse`, :func:`quantile`, and :func:`summary` of
all of them. From sums that a run adds up without keeping draws: :class:`Tallies` and the
``streaming`` functions; from draws that pass by: :class:`QuantileSketch`.
For any correlated series: :func:`autocorrelation`, :func:`integrated_autocorrelation_time`,
:func:`blocking`, :func:`block_means` and :func:`jackknife`. Everything is computed in float64.
"""

from pushforward.diagnostics.convergence import ess, mcse, rhat
from pushforward.diagnostics.series import (
    autocorrelation,
    block_means,
    blocking,
    integrated_autocorrelation_time,
    jackknife,
)
from pushforward.diagnostics.sketch import QuantileSketch, quantile
from pushforward.diagnostics.streaming import (
    Tallies,
    batch_size,
    streaming_ess,
    streaming_mcse,
    streaming_rhat,
    tally,
)
from pushforward.diagnostics.table import Summary, summary

__all__ = [
    "QuantileSketch",
    "Summary",
    "Tallies",
    "autocorrelation",
    "batch_size",
    "block_means",
    "blocking",
    "ess",
    "integrated_autocorrelation_time",
    "jackknife",
    "mcse",
    "quantile",
    "rhat",
    "streaming_ess",
    "streaming_mcse",
    "streaming_rhat",
    "summary",
    "tally",
]
