# SPDX-License-Identifier: Apache-2.0
"""Markov chain kernels, as frozen descriptions that :func:`pushforward.sample` runs."""

from pushforward.mcmc.base import Kernel, State
from pushforward.mcmc.gibbs import Gibbs
from pushforward.mcmc.hamiltonian import HMC
from pushforward.mcmc.langevin import AnnealedLangevin, Langevin, UnderdampedLangevin
from pushforward.mcmc.metropolis import MALA, Independence, MetropolisHastings, RandomWalk
from pushforward.mcmc.nuts import NUTS
from pushforward.mcmc.proposals import Autoregressive, LogNormal

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "AnnealedLangevin",
    "Autoregressive",
    "Gibbs",
    "Independence",
    "Kernel",
    "Langevin",
    "LogNormal",
    "MetropolisHastings",
    "RandomWalk",
    "State",
    "UnderdampedLangevin",
]
