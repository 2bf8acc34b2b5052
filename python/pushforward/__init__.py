# SPDX-License-Identifier: Apache-2.0
"""pushforward: fast, reproducible sampling by transport and denoising, for torch users."""

from importlib.metadata import version as _version

from pushforward import diagnostics, diffusion, lattice, nets, ops, random, targets
from pushforward.info import build_info
from pushforward.mcmc import Langevin
from pushforward.sampling import Chains, sample
from pushforward.targets import Energy

__version__ = _version("pushforward")

__all__ = [
    "Chains",
    "Energy",
    "Langevin",
    "__version__",
    "build_info",
    "diagnostics",
    "diffusion",
    "lattice",
    "nets",
    "ops",
    "random",
    "sample",
    "targets",
]
