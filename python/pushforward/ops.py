# SPDX-License-Identifier: Apache-2.0
"""The fused ops, for other people's loops.

An ``update`` op does one step whose model was just evaluated; a ``run`` op does many on a native
target. Both read the same noise, so they agree number for number. ``accept_`` is the second half of
any Metropolis-Hastings step, ``markov_run_`` many steps of any kernel.

States may also be arrays of NumPy, CuPy, JAX or any other library that speaks DLPack: their memory
is used without a copy, and results come back as the same kind of array.

Example:
    >>> import numpy as np, pushforward as pf
    >>> x = np.zeros((3, 2), dtype=np.float32)
    >>> type(pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=0)).__name__
    'ndarray'

"""

from pushforward import _ops
from pushforward._ops.arrays import takes_arrays

Counts = _ops.Counts
accept_ = takes_arrays(_ops.accept_, "log_density", "score")
commit_ = takes_arrays(_ops.commit_, "n_nonfinite")
diffuse = takes_arrays(_ops.diffuse)
langevin = takes_arrays(_ops.langevin)
langevin_ = takes_arrays(_ops.langevin_)
langevin_run_ = takes_arrays(_ops.langevin_run_, "n_nonfinite")
log_density = takes_arrays(_ops.log_density)
log_density_and_score = takes_arrays(_ops.log_density_and_score)
markov_run_ = takes_arrays(_ops.markov_run_, "velocity")
reverse_step = takes_arrays(_ops.reverse_step)
reverse_step_ = takes_arrays(_ops.reverse_step_)
score = takes_arrays(_ops.score)

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
