# SPDX-License-Identifier: Apache-2.0
"""Runs of Langevin on a ring of modes, and whether two are the same."""

import torch

import pushforward as pf
from conftest import RING as TARGETS

LAW = TARGETS["native"]
KERNEL = pf.Langevin(step_size=0.05)


def start(n=37, seed=1):
    return 4 * pf.random.normal(n, 2, seed=seed)


def same(a, b):
    return all(
        (getattr(a, f) is None and getattr(b, f) is None)
        or torch.equal(getattr(a, f), getattr(b, f))
        for f in ("x", "draws", "log_density", "mean", "var", "n_nonfinite")
    )
