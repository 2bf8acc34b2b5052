# SPDX-License-Identifier: Apache-2.0
"""The other libraries' lattices: Metropolis in Numba and packages, a fused phi^4 loop in JAX."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peers import torch_walk


def _acceptance(temperature: float) -> Any:
    """Return the probability to turn a spin, by spin times neighbours, from -4 on."""
    return np.minimum(1, np.exp(-2 * np.arange(-4, 5) / temperature))


def numba_sweeps(start: Tensor, temperature: float, steps: int, *, inline: bool) -> Any:
    """Return calls of ``steps`` sweeps, rows on all threads, with NumPy's or an inline generator.

    The inline one is a xorshift of 64 bits a row, a word for two sites.
    """
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def numpy_noise(x: Any, states: Any, accept: Any, steps: int) -> None:
        n, height, width = x.shape
        for _ in range(steps):
            for colour in range(2):
                for row in numba.prange(n * height):
                    lattice, y = row // height, row % height
                    up, down = (y - 1) % height, (y + 1) % height
                    for i in range((colour + y) % 2, width, 2):
                        left = i - 1 if i > 0 else width - 1
                        right = i + 1 if i + 1 < width else 0
                        around = (
                            x[lattice, up, i] + x[lattice, down, i]
                            + x[lattice, y, left] + x[lattice, y, right]
                        )  # fmt: skip
                        p = accept[x[lattice, y, i] * around + 4]
                        if p >= 1 or np.random.random() < p:  # noqa: NPY002  # Numba's own
                            x[lattice, y, i] = -x[lattice, y, i]

    @numba.njit(parallel=True, fastmath=True)
    def inline_noise(x: Any, states: Any, accept: Any, steps: int) -> None:
        n, height, width = x.shape
        limits = (accept * 4294967295.0).astype(np.uint64)
        for _ in range(steps):
            for colour in range(2):
                for row in numba.prange(n * height):
                    lattice, y = row // height, row % height
                    up, down = (y - 1) % height, (y + 1) % height
                    s = states[row]
                    word = s
                    half = False
                    for i in range((colour + y) % 2, width, 2):
                        left = i - 1 if i > 0 else width - 1
                        right = i + 1 if i + 1 < width else 0
                        around = (
                            x[lattice, up, i] + x[lattice, down, i]
                            + x[lattice, y, left] + x[lattice, y, right]
                        )  # fmt: skip
                        if half:
                            word = s >> np.uint64(32)
                        else:
                            s ^= s << np.uint64(13)
                            s ^= s >> np.uint64(7)
                            s ^= s << np.uint64(17)
                            word = s & np.uint64(0xFFFFFFFF)
                        half = not half
                        turned = word <= limits[x[lattice, y, i] * around + 4]
                        x[lattice, y, i] = -x[lattice, y, i] if turned else x[lattice, y, i]
                    states[row] = s

    x, accept = start.numpy().copy(), _acceptance(temperature)
    rows = x.shape[0] * x.shape[1]
    states = np.random.default_rng(0).integers(1, 2**63, rows, dtype=np.uint64)
    sweep = inline_noise if inline else numpy_noise

    def call() -> Any:
        sweep(x, states, accept, steps)
        return x

    return call


def torch_sweeps(start: Tensor, temperature: float, steps: int) -> Any:
    """Return the checkerboard of torch users: whole-lattice operations and a mask a colour."""
    x = start.float()
    i = torch.arange(x.shape[1])
    even = (i[:, None] + i) % 2 == 0
    u = torch.empty_like(x)

    def call() -> Tensor:
        for _ in range(steps):
            for colour in (even, ~even):
                around = x.roll(1, 1) + x.roll(-1, 1) + x.roll(1, 2) + x.roll(-1, 2)
                turn = (u.uniform_() < (x * around * (-2 / temperature)).exp()) & colour
                x.copy_(torch.where(turn, -x, x))
        return x

    return call


def peapods_sweeps(start: Tensor, temperature: float, steps: int) -> Any:
    """Return the sweeps of peapods, its replicas on all threads, without measurements.

    It takes no start: from its own, which is random, cluster moves come to equilibrium first.
    """
    from peapods import Ising

    n, *shape = start.shape
    model = Ising(shape, temperatures=np.array([temperature]), n_replicas=n)

    def sweep(steps: int, **moves: int) -> None:
        with np.errstate(invalid="ignore"):  # its averages are over no sweep
            model.sample(steps, sweep_mode="metropolis", warmup_ratio=1.0, **moves)

    sweep(30, cluster_update_interval=1)

    def call() -> Any:
        sweep(steps)
        return model._sim.get_spins().reshape(start.shape)

    return call


def mcising_sweeps(start: Tensor, temperature: float, steps: int) -> Any:
    """Return the sweeps of mcising, a simulation a lattice, several ones on all threads.

    Threads run beside each other only in its sweeps that measure, here once a call.
    """
    from mcising import IsingSimulation

    lattices = [IsingSimulation(start.shape[-1], 1.0, 0.0, 0.0, 0.0, k) for k in range(len(start))]
    for lattice, spins in zip(lattices, start.numpy(), strict=True):
        lattice.set_spins(spins)
    threads = ThreadPoolExecutor(torch.get_num_threads())

    def sweep_measured(lattice: Any) -> None:
        lattice.production_sweeps(1, steps, temperature=temperature, store_configs=False)

    def call() -> Any:
        if len(lattices) == 1:
            lattices[0].sweep(steps, temperature=temperature)
        else:
            list(threads.map(sweep_measured, lattices))
        return np.stack([lattice.get_spins() for lattice in lattices])

    return call


def _score_torch(x: Tensor, kappa: float, lam: float) -> Tensor:
    around = x.roll(1, 1) + x.roll(-1, 1) + x.roll(1, 2) + x.roll(-1, 2)
    return 2 * kappa * around - x * (4 * lam * x * x + 2 * (1 - 2 * lam))


def torch_langevin(
    start: Tensor, kappa: float, lam: float, h: float, steps: int, *, compiled: bool
) -> Callable[[], Tensor]:
    """Return Langevin steps of a phi^4 field in torch."""

    def step(x: Tensor, xi: Tensor) -> Tensor:
        return x + h * _score_torch(x, kappa, lam) + math.sqrt(2 * h) * xi

    return torch_walk(torch.compile(step) if compiled else step, start.clone(), steps)


def jax_langevin(
    start: Tensor, kappa: float, lam: float, h: float, steps: int, *, bits: str = "threefry2x32"
) -> Any:
    """Return Langevin steps as one jitted loop with the noise drawn inside."""
    import jax
    import jax.numpy as jnp

    x, calls = jnp.asarray(start.numpy()), itertools.count()

    @jax.jit
    def loop(x: Any, key: Any) -> Any:
        def body(k: Any, x: Any) -> Any:
            around = sum(jnp.roll(x, s, a) for a in (1, 2) for s in (1, -1))
            score = 2 * kappa * around - x * (4 * lam * x * x + 2 * (1 - 2 * lam))
            xi = jax.random.normal(jax.random.fold_in(key, k), x.shape)
            return x + h * score + math.sqrt(2 * h) * xi

        return jax.lax.fori_loop(0, steps, body, x)

    def call() -> Any:
        nonlocal x
        x = loop(x, jax.random.fold_in(jax.random.key(0, impl=bits), next(calls)))
        return x.block_until_ready()

    return call


ISING = {
    "Numba checkerboard": partial(numba_sweeps, inline=False),
    "Numba, inline xorshift": partial(numba_sweeps, inline=True),
    "torch eager": torch_sweeps,
    "peapods": peapods_sweeps,
    "mcising": mcising_sweeps,
}
LANGEVIN = {
    "JAX fused loop": jax_langevin,
    "JAX fused loop, rbg": partial(jax_langevin, bits="rbg"),
    "torch.compile": partial(torch_langevin, compiled=True),
    "torch eager": partial(torch_langevin, compiled=False),
}
