# SPDX-License-Identifier: Apache-2.0
"""pushforward: fast, reproducible sampling by transport and denoising, for torch users."""

from importlib.metadata import version as _version

from pushforward import diagnostics, diffusion, lattice, mcmc, nets, ops, random, targets
from pushforward.chains import Chains
from pushforward.constrained import Constrained
from pushforward.info import build_info
from pushforward.mcmc import (
    HMC,
    MALA,
    NUTS,
    AnnealedLangevin,
    Independence,
    Langevin,
    MetropolisHastings,
    RandomWalk,
    UnderdampedLangevin,
)
from pushforward.named_chains import NamedChains
from pushforward.sampling import sample
from pushforward.targets import Energy

__version__ = _version("pushforward")

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "AnnealedLangevin",
    "Chains",
    "Constrained",
    "Energy",
    "Independence",
    "Langevin",
    "MetropolisHastings",
    "NamedChains",
    "RandomWalk",
    "UnderdampedLangevin",
    "__version__",
    "build_info",
    "diagnostics",
    "diffusion",
    "lattice",
    "mcmc",
    "nets",
    "ops",
    "random",
    "sample",
    "targets",
]
