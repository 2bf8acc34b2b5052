# SPDX-License-Identifier: Apache-2.0
"""The fused ops, for other people's loops.

An ``update`` op does one step whose model was just evaluated; a ``run`` op does many on a native
target. Both read the same noise, so they agree number for number. ``accept_`` is the second half of
any Metropolis-Hastings step, ``markov_run_`` many steps of any kernel.

States may also be arrays of NumPy, CuPy, JAX or any other library that speaks DLPack: their memory
is used without a copy, and results come back as the same kind of array. What ``torch.compile``
makes takes tensors.

Example:
    >>> import numpy as np, pushforward as pf
    >>> x = np.zeros((3, 2), dtype=np.float32)
    >>> type(pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=0)).__name__
    'ndarray'

"""

from pushforward._ops import (
    Counts,
    accept_,
    commit_,
    diffuse,
    langevin,
    langevin_,
    langevin_run_,
    log_density,
    log_density_and_score,
    markov_run_,
    reverse_step,
    reverse_step_,
    score,
)

__all__ = [
    "Counts",
    "accept_",
    "commit_",
    "diffuse",
    "langevin",
    "langevin_",
    "langevin_run_",
    "log_density",
    "log_density_and_score",
    "markov_run_",
    "reverse_step",
    "reverse_step_",
    "score",
]
