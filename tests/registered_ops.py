# SPDX-License-Identifier: Apache-2.0
"""Calls of all registered ops, for the tests of torch.library and torch.compile on each device."""

import math

import torch
from torch.utils._pytree import tree_map_only

import pushforward as pf
from conftest import ZOO
from pushforward import _ops


def state(n, event, dtype, seed=0):
    """Normal numbers ``(n, *event)``."""
    dim = math.prod(event)
    return pf.random.normal(n, dim, seed=seed, dtype=dtype).reshape(n, *event)


def registered_calls(device="cpu"):
    """One call of each registered op or more: (op, arguments)."""
    x, score = state(5, (3,), torch.float32, 1), state(5, (3,), torch.float32, 2)
    h, b = torch.tensor(0.1), torch.full((5,), 1.5)
    refused = torch.zeros(5, dtype=torch.int64)
    wide = torch.zeros(5, 3, dtype=torch.float64)
    counts, sums = pf.ops.Counts.zeros(5).tensors(), (x.clone(), wide, wide.clone())
    two, none = (None, None), (None, None, None)
    marks = torch.zeros(5, dtype=torch.uint8), x.clone()
    kind, dim, k, tensors, scalars = ZOO["gaussian-diagonal"].native_arguments(torch.float32)
    law = (tensors, kind, dim, k, scalars)
    nothing, eye = (None,) * 12, torch.eye(3)
    spins, t = torch.ones(5, 4, 4), torch.tensor(2.0, dtype=torch.float64)
    of_spins = [spins.clone(), *(torch.zeros(5, 4, 4, dtype=torch.float64) for _ in range(4))]
    bins, ends = (torch.zeros(1, 3, n, dtype=torch.int64) for n in (_ops.SKETCH_BINS, 2))
    ops = torch.ops.pushforward
    calls = [
        (ops.langevin, (x, score, h, b, 1, 2, 3)),
        (ops.langevin_, (x, score, h, b, 1, 2, 3)),
        (ops.langevin_run_, (x, *law, h, b, 1, 2, 4, 3, refused)),
        (ops.evaluate, (x, *law)),
        (ops.commit_, (x, score, refused, *two, *none)),
        (ops.commit_, (x, score, refused, *marks, *sums)),
        (ops.accept_, (x, score, b, b + 1, None, None, b, None, h, 1, 2, 3, *counts, *two, *none)),
        (ops.accept_, (x, score, b, b + 1, score, x + 1, None, h, b, 1, 2, 3, *counts, *marks, *sums)),
        (ops.markov_run_, (x, *law, "mala", h, *nothing, 1, 2, 4, 3, *counts)),
        (ops.markov_run_, (x, *law, "underdamped", h, b, None, h, score, *nothing[:8], 1, 2, 4, 3, *counts)),
        (ops.markov_run_, (x, *law, "hmc", h, *nothing[:4], eye, eye, *nothing[:3], 2, 0.5, None, 1, 2, 4, 3, *counts)),
        (ops.ising_sweeps_, (spins, t, t, False, True, 1, 2, 3, 4, None, None)),
        (ops.ising_sweeps_, (spins, t, t, False, False, 1, 2, 3, 4, *counts[2:], *of_spins, None, 2, 1)),
        (ops.ising_clusters_, (spins, t, t, True, 1, 2, 3, 4)),
        (ops.phi4_run_, (spins, 0, t, t, t, t / 20, 1, 1, 2, 3, 4, None, None, None)),
        (ops.phi4_run_, (spins, 2, t, t, t, t / 20, 2, 1, 2, 3, 4, *counts[2:], refused)),
        (ops.phi4_run_, (spins, 0, t, t, t, t / 20, 1, 1, 2, 3, 4, *[None] * 4, 0.0, *of_spins[:3])),
        (ops.phi4_log_density, (spins, t, t, t)),
        (ops.phi4_score, (spins, t, t, t)),
        (ops.diffuse, (x, h, b, 1, 3)),
        (ops.reverse_step, (x, score, h, b, h, 1, 2, 3)),
        (ops.reverse_step_, (x, score, h, b, h, 1, 2, 3)),
        (ops.fill_, (x, False, 1, 0, 3, 2)),
        (ops.proposal_, (x, score, h, 1, 2, 8, 3)),
        (ops.pooled_moments, (x, 4, refused, *sums)),
        (ops.add_chain_sums_, (wide[0], x[None], None, 0, 3)),
        (ops.add_chain_sums_, (wide[:2].flatten(), x[None], wide[0].clone(), 1, 3)),
        (ops.count_in_bins_, (bins, ends, x, wide[0], wide[0] + 1)),
    ]  # fmt: skip
    return [(op, tree_map_only(torch.Tensor, lambda t: t.to(device), args)) for op, args in calls]


def every_kind_of_op(x, h, first):
    """Steps of elementwise ops, of ops in place, of native targets and of noise."""
    law = ZOO["gaussian-diagonal"]
    for k in range(2):
        x = pf.ops.langevin(x, -x, step_size=h, seed=1, step=first + k)
    y = pf.ops.diffuse(x, mean_scale=0.5, std=0.3, seed=2)
    y = pf.ops.reverse_step(y, -y, growth=1.1, drift_scale=0.1, noise_scale=0.2, seed=2, step=first)
    pf.ops.langevin_(y, x, step_size=0.1, seed=1, step=first)
    pf.ops.reverse_step_(y, x, growth=1.0, drift_scale=0.1, noise_scale=0.2, seed=2, step=1)
    pf.ops.langevin_run_(y, law, step_size=0.1, n_steps=2, seed=1)
    value, score = pf.ops.log_density_and_score(y, law)
    pf.ops.commit_(y, y + score, torch.zeros(len(y), dtype=torch.int64, device=x.device))
    counts = pf.ops.Counts.zeros(len(y), x.device)
    pf.ops.accept_(y, x, value, value - 0.5, seed=1, step=first, counts=counts)
    return y, value, counts.accepted, pf.random.normal(3, 4, seed=5, start=first, device=x.device)
