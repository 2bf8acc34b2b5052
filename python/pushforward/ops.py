# SPDX-License-Identifier: Apache-2.0
"""The fused ops, for other people's loops.

An ``update`` op does one step whose model was just evaluated; a ``run`` op does many on a native
target. Both read the same noise, so they agree number for number.
"""

from pushforward._ops import (
    commit_,
    diffuse,
    langevin,
    langevin_,
    langevin_run_,
    log_density,
    log_density_and_score,
    reverse_step,
    reverse_step_,
    score,
)

__all__ = [
    "commit_",
    "diffuse",
    "langevin",
    "langevin_",
    "langevin_run_",
    "log_density",
    "log_density_and_score",
    "reverse_step",
    "reverse_step_",
    "score",
]
