# SPDX-License-Identifier: Apache-2.0
"""The ops: the only importer of the native module, and their torch.library registrations.

Each op has an eager front that hands tensors and Python floats straight to C++, which checks
them, and a registered twin ``torch.ops.pushforward.<op>`` that takes over under torch.compile,
where a gradient is wanted, and for tensor subclasses. Coefficients are tensors there, because a
Python float in a schema recompiles at every new value.

Three have no such twin. :func:`run_chunk` is :func:`markov_run_` with the record of
:func:`pushforward.sample`, whose loop reads signals, clocks and files and is no graph.
:func:`elementwise_math` is for the tests. The functions of memory (:func:`empty`, :func:`zeros`,
:func:`copied`, :func:`copy_`, :func:`is_finite`) are torch's own, without its threads.
"""

from pushforward import _native
from pushforward._ops.accept import Counts, accept_
from pushforward._ops.arguments import (
    DEVICES,
    GROUP,
    BatchMoments,
    Moments,
    check_device,
    check_tensor,
    column,
    count,
    is_plain,
    rows,
    whole,
)
from pushforward._ops.diffusion import diffuse, reverse_step, reverse_step_
from pushforward._ops.evaluate import Matrix, log_density, log_density_and_score, score
from pushforward._ops.langevin import langevin, langevin_
from pushforward._ops.langevin_run import langevin_run_
from pushforward._ops.markov_run import markov_run_
from pushforward._ops.math import MATH_FUNCTIONS, elementwise_math
from pushforward._ops.memory import copied, copy_, empty, is_finite, sums_about, zeros
from pushforward._ops.moments import (
    LEFT_OUT,
    TAKEN,
    Place,
    add_states,
    commit_,
    pooled_moments,
    totals,
)
from pushforward._ops.noise import fill_
from pushforward._ops.pooled import (
    SKETCH_BINS,
    Products,
    add_chain_sums_,
    count_in_bins_,
    width_of,
)
from pushforward._ops.run import proposal_, run_chunk

NativeHandle = _native.Target
cpu_level = _native.cpu_level
cuda_architectures = _native.cuda_architectures

__all__ = [
    "DEVICES",
    "GROUP",
    "LEFT_OUT",
    "MATH_FUNCTIONS",
    "SKETCH_BINS",
    "TAKEN",
    "BatchMoments",
    "Counts",
    "Matrix",
    "Moments",
    "NativeHandle",
    "Place",
    "Products",
    "accept_",
    "add_chain_sums_",
    "add_states",
    "check_device",
    "check_tensor",
    "column",
    "commit_",
    "copied",
    "copy_",
    "count",
    "count_in_bins_",
    "cpu_level",
    "cuda_architectures",
    "diffuse",
    "elementwise_math",
    "empty",
    "fill_",
    "is_finite",
    "is_plain",
    "langevin",
    "langevin_",
    "langevin_run_",
    "log_density",
    "log_density_and_score",
    "markov_run_",
    "pooled_moments",
    "proposal_",
    "reverse_step",
    "reverse_step_",
    "rows",
    "run_chunk",
    "score",
    "sums_about",
    "totals",
    "whole",
    "width_of",
    "zeros",
]
