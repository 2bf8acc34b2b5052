# SPDX-License-Identifier: Apache-2.0
"""The other libraries' Langevin steps: on a Gaussian, and given the score.

A *walk* takes a number of steps more and returns the state. torch draws its noise into a buffer
with ``normal_`` everywhere, compiled or not: inside a compiled graph it is several times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

Walk = Callable[[], Any]
Walks = Mapping[str, Callable[[], Callable[[int], Walk]]]
"""By name: what builds (and may lack a package) the function from a number of steps to a walk."""
Step = Callable[[Any, Any], Any]


def torch_walk(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int) -> Walk:
    """Return the walk of a step that takes the state and its noise."""
    noise = torch.empty_like(x)

    @torch.no_grad()
    def walk() -> Tensor:
        nonlocal x
        for _ in range(steps):
            x = step(x, noise.normal_())
        return x

    return walk


def jax_walk(step: Step, start: Tensor, steps: int, unroll: int = 1) -> Walk:
    """Return the walk of a step as one jitted ``lax.scan``, a key a step, noise drawn inside."""
    import jax
    import jax.numpy as jnp

    x, calls = jnp.asarray(start.numpy()), 0

    @jax.jit
    def scan(x: Any, call: int) -> Any:
        def body(x: Any, key: Any) -> tuple[Any, None]:
            return step(x, jax.random.normal(key, x.shape)), None

        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), call), steps)
        return jax.lax.scan(body, x, keys, unroll=unroll)[0]

    def walk() -> Any:
        nonlocal x, calls
        x, calls = scan(x, calls).block_until_ready(), calls + 1
        return x

    return walk


def gaussian_eager(precision: Tensor, step_size: float, start: Tensor, steps: int) -> Walk:
    """One ``addmm_`` a step into the noise, drawn at its scale: ``c xi + x (1 - h P)``."""
    one_step = (torch.eye(len(precision)) - step_size * precision).float()
    spare, scale = [start.clone(), torch.empty_like(start)], math.sqrt(2 * step_size)

    def walk() -> Tensor:
        for _ in range(steps):
            spare[1].normal_(0, scale).addmm_(spare[0], one_step)
            spare.reverse()
        return spare[0]

    return walk


def gaussian_compiled(precision: Tensor, step_size: float, start: Tensor, steps: int) -> Walk:
    """The same step, compiled."""
    one_step = (torch.eye(len(precision)) - step_size * precision).float()
    scale = math.sqrt(2 * step_size)
    compiled = torch.compile(lambda x, noise: x @ one_step + scale * noise, fullgraph=True)
    return torch_walk(compiled, start.clone(), steps)


def gaussian_jax(
    precision: Tensor, step_size: float, start: Tensor, steps: int, *, form: str, unroll: int = 1
) -> Walk:
    """The same step by ``form`` "product" of matrices or by the "grad" of the log-density."""
    import jax
    import jax.numpy as jnp

    p, scale = jnp.asarray(precision.float().numpy()), math.sqrt(2 * step_size)
    one_step = jnp.eye(len(precision)) - step_size * p
    gradient = jax.grad(lambda x: -0.5 * ((x @ p) * x).sum())

    def step(x: Any, noise: Any) -> Any:
        move = x @ one_step if form == "product" else x + step_size * gradient(x)
        return move + scale * noise

    return jax_walk(step, start, steps, unroll)


def gaussian(precision: Tensor, step_size: float, start: Tensor) -> Walks:
    """Return all walks on a Gaussian by name."""
    args = (precision, step_size, start)
    return {
        "torch eager": lambda: partial(gaussian_eager, *args),
        "torch.compile": lambda: partial(gaussian_compiled, *args),
        "JAX scan": lambda: partial(gaussian_jax, *args, form="product"),
        "JAX scan, unrolled": lambda: partial(gaussian_jax, *args, form="product", unroll=5),
        "JAX scan, grad": lambda: partial(gaussian_jax, *args, form="grad"),
    }


def updates(
    x: Tensor, score: Tensor, step_size: float, calls: int
) -> dict[str, Callable[[], Tensor]]:
    """Return ways of torch to do one step given the score ``calls`` times, in place."""
    noise, c = torch.empty_like(x), math.sqrt(2 * step_size)

    def fresh() -> Tensor:
        for _ in range(calls):
            x.add_(score, alpha=step_size).add_(torch.randn_like(x), alpha=c)
        return x

    def buffered() -> Tensor:
        for _ in range(calls):
            x.add_(score, alpha=step_size).add_(noise.normal_(), alpha=c)
        return x

    @torch.compile(fullgraph=True)
    def step(x: Tensor, score: Tensor, noise: Tensor) -> None:
        x.copy_(x + step_size * score + c * noise)

    def compiled() -> Tensor:
        for _ in range(calls):
            step(x, score, noise.normal_())
        return x

    return {"fresh": fresh, "buffered": buffered, "compiled": compiled}


def update_jax(
    start: Tensor, score: Tensor, step_size: float, calls: int
) -> tuple[Walk, Callable[[], None]]:
    """Return one jitted step given the score, ``calls`` times, and what sets the state back."""
    import jax
    import jax.numpy as jnp

    x0, s, c = jnp.asarray(start.numpy()), jnp.asarray(score.numpy()), math.sqrt(2 * step_size)
    state, count = jnp.array(x0), 0

    @partial(jax.jit, donate_argnums=0)
    def step(x: Any, s: Any, k: int) -> Any:
        key = jax.random.fold_in(jax.random.key(0), k)
        return x + step_size * s + c * jax.random.normal(key, x.shape)

    def walk() -> Any:
        nonlocal state, count
        for _ in range(calls):
            state, count = step(state, s, count), count + 1
        return state.block_until_ready()

    def restart() -> None:
        nonlocal state
        state = jnp.array(x0).block_until_ready()

    return walk, restart
