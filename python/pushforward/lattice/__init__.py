# SPDX-License-Identifier: Apache-2.0
"""Fields on periodic lattices: the Ising model and phi^4, kernels made for them, observables.

A state is ``(n_lattices, *shape)`` and one lattice is one chain. Parameters of a law are numbers or
one value a lattice, so that one call may scan a coupling.
"""

from pushforward.lattice.ising import Ising
from pushforward.lattice.kernels import HeatBath, Metropolis, SwendsenWang, Wolff
from pushforward.lattice.observables import Estimate, Observables, observables
from pushforward.lattice.phi4 import Phi4

__all__ = [
    "Estimate",
    "HeatBath",
    "Ising",
    "Metropolis",
    "Observables",
    "Phi4",
    "SwendsenWang",
    "Wolff",
    "observables",
]
