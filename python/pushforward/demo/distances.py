# SPDX-License-Identifier: Apache-2.0
"""The distances between samples that the demo reports, exact for their finite samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its error bar."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


def mean_and_error(values: list[float]) -> Estimate:
    """Return the mean of independent values and its standard error."""
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))


def wasserstein(a: Array, b: Array) -> float:
    """Return W2 between two clouds of as many points, by the optimal assignment."""
    cost = cdist(a, b, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return math.sqrt(float(cost[rows, columns].mean()))


def wasserstein_on_subsets(a: Array, b: Array, *, n_subsets: int, size: int) -> Estimate:
    """Return the mean of W2 over disjoint subsets of ``size`` points, with its standard error."""
    subsets = [slice(i * size, (i + 1) * size) for i in range(n_subsets)]
    return mean_and_error([wasserstein(a[rows], b[rows]) for rows in subsets])


def frechet(a: Array, b: Array) -> float:
    r"""Return the squared W2 distance between the Gaussians fitted to two samples.

    .. math:: \|m_a - m_b\|^2 + \operatorname{tr} C_a + \operatorname{tr} C_b
        - 2 \operatorname{tr} (C_a^{1/2} C_b C_a^{1/2})^{1/2}

    Reference: D. C. Dowson, B. V. Landau (1982), The Fréchet distance between multivariate normal
    distributions, J. Multivariate Analysis 12.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def nearest(a: Array, b: Array, *, same: bool = False) -> tuple[Array, NDArray[np.intp]]:
    """Return the distance from each point of ``a`` to its nearest in ``b``, and which it is.

    Args:
        a: points, ``(n, dim)``.
        b: points, ``(m, dim)``.
        same: whether ``b`` is ``a``: a point is then not its own neighbour.

    """
    distance = cdist(a, b)
    if same:
        np.fill_diagonal(distance, np.inf)
    which = distance.argmin(1)
    return distance[np.arange(len(a)), which], which
