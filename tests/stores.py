# SPDX-License-Identifier: Apache-2.0
"""Stores of draws for the tests: an endless run to put into them, and whether one holds it."""

import numpy as np
import pytest
import torch

from pushforward.storage import DrawStore


def run_of(n, n_chains=3, event=(4,), dtype=torch.float32, start=0):
    """Draws ``start .. start + n - 1`` of an endless run, each number another."""
    n_event = int(np.prod(event))
    each = torch.arange(start, start + n, dtype=torch.float64).reshape(n, 1, 1)
    chain = torch.arange(n_chains).reshape(1, n_chains, 1) / 8
    draws = (each + chain + torch.arange(n_event) / 256).reshape(n, n_chains, *event)
    return draws.to(dtype), (-each - chain)[..., 0].to(real(dtype))


def real(dtype):
    """The type of the log-densities of such draws."""
    return dtype if dtype.is_floating_point else torch.float64


def made(path, n_kept=50, n_chains=3, event=(4,), dtype=torch.float32, **more):
    return DrawStore.create(
        path, n_kept=n_kept, n_chains=n_chains, event=event, dtype=dtype, **more
    )


def holds(store, n, **how):
    """Whether the store has the first ``n`` draws of the run and no others."""
    how = {"n_chains": store.n_chains, "event": store.event, "dtype": store.dtype, **how}
    draws, log_density = store.read()
    expected = run_of(n, **how)
    return (
        store.n_written == n
        and torch.equal(draws, expected[0])
        and torch.equal(log_density, expected[1])
        and draws.dtype == store.dtype
        and log_density.dtype == real(store.dtype)
    )


def opened(path):
    return pytest.importorskip("xarray").open_datatree(path, engine="zarr")
