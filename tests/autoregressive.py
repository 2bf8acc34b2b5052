# SPDX-License-Identifier: Apache-2.0
"""AR(1) chains, and their exact autocorrelation time."""

import math

import torch
from scipy.signal import lfilter

import pushforward as pf


def ar1(n, n_chains, phi, *, seed=0):
    """Stationary chains x' = phi x + sqrt(1 - phi^2) xi of variance 1, ``(n, n_chains)``."""
    xi = pf.random.normal(n_chains, n, seed=seed, dtype=torch.float64).numpy()
    xi[:, 1:] *= math.sqrt(1 - phi**2)
    return torch.from_numpy(lfilter([1], [1, -phi], xi, axis=1).T.copy())


def ar1_time(phi, n=None):
    """n times the variance of the mean of n steps of AR(1): the autocorrelation time, exactly."""
    if n is None:
        return (1 + phi) / (1 - phi)
    return (1 + phi) / (1 - phi) - 2 * phi * (1 - phi**n) / (n * (1 - phi) ** 2)
