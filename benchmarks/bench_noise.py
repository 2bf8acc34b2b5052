# SPDX-License-Identifier: Apache-2.0
"""Random numbers into existing memory: ``python benchmarks/bench_noise.py [--quick]``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gates
import pushforward as pf
from harness import Absent, Case, Contender, arguments, attempt, run
from machine import pin
from make_tables import publish

TORCH_BAR, JAX_BAR = 4.0, 15.0
BLOCK = 10_000  # numbers: as many as stay in a core's cache
Shape = tuple[int, int]


def ours(out: Tensor, draw: Callable[..., Tensor], gate: Any) -> Contender:
    """Return pushforward's fill of ``out``, with another seed at each call."""
    seeds = itertools.count()
    rows, columns = out.shape

    def call() -> Tensor:
        return draw(rows, columns, seed=next(seeds), out=out)

    return Contender(
        "pushforward", call, out.numel(), gate, role="ours", prepare=lambda: out.fill_(torch.nan)
    )


def torch_fill(
    name: str, out: Tensor, fill: Callable[[], Tensor], gate: Any, bar: float | None = None
) -> Contender:
    """Return torch's own fill of ``out``."""
    return Contender(name, fill, out.numel(), gate, bar=bar, prepare=lambda: out.fill_(torch.nan))


def jax_fill(
    name: str, out: Tensor, gate: Any, *, law: str, impl: str = "threefry2x32", blocks: int = 0,
    bar: float | None = None,
) -> Contender:  # fmt: skip
    """Return JAX's jitted draw into a donated buffer of the shape and type of ``out``.

    With ``blocks`` the draw is one of many small ones in a row, whose temporaries stay in cache.
    """
    import jax
    import jax.numpy as jnp

    x64, dtype = out.dtype == torch.float64, jnp.dtype(str(out.dtype).removeprefix("torch."))
    shape, sample = tuple(out.shape), getattr(jax.random, law)

    def draw(buffer: Any, key: Any) -> Any:
        if not blocks:
            return sample(key, shape, dtype)
        part = partial(sample, shape=(out.numel() // blocks,), dtype=dtype)
        return jax.lax.map(part, jax.random.split(key, blocks)).reshape(shape)

    with jax.enable_x64(x64):
        compiled = jax.jit(draw, donate_argnums=0, keep_unused=True)
        buffer, key = jnp.zeros(shape, dtype), jax.random.key(0, impl=impl)

    def next_key() -> None:
        nonlocal key
        key = jax.random.fold_in(key, 1)

    def call() -> Any:
        nonlocal buffer
        with jax.enable_x64(x64):
            buffer = compiled(buffer, key).block_until_ready()
        return buffer

    return Contender(name, call, out.numel(), gate, bar=bar, prepare=next_key)


def ignoring_calls(gate: Callable[[Any], None]) -> Callable[[Any, int], None]:
    """Return ``gate`` as the harness calls it."""
    return lambda samples, calls: gate(samples)


def peers(out: Tensor, law: str, gate: Any, barred: bool) -> list[Contender | Absent]:
    """Return the peers that draw ``law`` into ``out``."""
    fill = {"normal": out.normal_, "uniform": out.uniform_}[law]
    jax = partial(jax_fill, out=out, gate=gate, law=law)
    torch_bar, jax_bar = (TORCH_BAR, JAX_BAR) if barred else (None, None)
    blocks = max(1, out.numel() // BLOCK)
    names = [f"jax.random.{law}", f"jax.random.{law}, rbg", f"jax.random.{law}, in small blocks"]
    return [
        torch_fill(f"torch.Tensor.{law}_", out, fill, gate, torch_bar),
        attempt(names[0], lambda: jax(names[0], bar=jax_bar)),
        attempt(names[1], lambda: jax(names[1], impl="rbg")),
        attempt(names[2], lambda: jax(names[2], blocks=blocks)),
    ]


def case(law: str, shape: Shape, dtype: torch.dtype, barred: bool) -> Case:
    """Return the case of one law, shape and type."""
    out = torch.empty(shape, dtype=dtype)
    gate = ignoring_calls(gates.standard_normal if law == "normal" else gates.uniform)
    draw = pf.random.normal if law == "normal" else pf.random.uniform
    writes = Contender(
        "fill_", lambda: out.fill_(0.5), out.numel(), gates.constant(0.5), role="ceiling",
        prepare=lambda: out.fill_(torch.nan),
    )  # fmt: skip
    kind = str(dtype).removeprefix("torch.")
    return Case(
        claim=f"`pf.random.{law}`: {shape[0]:,} x {shape[1]:,} {kind} numbers into `out`",
        unit="numbers",
        contenders=[ours(out, draw, gate), *peers(out, law, gate, barred), writes],
        ceilings={"memory writes": lambda seconds: seconds["fill_"]},
    )


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    chains, n = (100, 10_000) if quick else (10_000, 1000)
    many, one = (chains, n), (1, chains * n)
    single, double = torch.float32, torch.float64
    return {
        "normal": partial(case, "normal", many, single, True),
        "normal, one chain": partial(case, "normal", one, single, True),
        "normal, float64": partial(case, "normal", many, double, False),
        "uniform": partial(case, "uniform", many, single, False),
        "uniform, float64": partial(case, "uniform", many, double, False),
    }


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    pin(options.threads)
    publish(run("noise", cases(options.quick), options), options)


if __name__ == "__main__":
    main()
