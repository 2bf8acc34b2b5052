# SPDX-License-Identifier: Apache-2.0
"""Metropolis-Hastings and Hamiltonian Monte Carlo as users of other libraries write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peers import Walk

LogDensity = Callable[[Any], Any]


def mixture_in_torch(means: Tensor, stds: Tensor) -> LogDensity:
    """Return the log-density of a mixture by a matrix product, on rows."""
    p = (stds**-2).float()
    into = torch.cat([p[:, None] * means.float(), -0.5 * p[:, None]], 1).T.contiguous()
    offset = p.log() - 0.5 * p * means.float().square().sum(1)

    def log_density(x: Tensor) -> Tensor:
        features = torch.cat([x, x.square().sum(1, keepdim=True)], 1)
        return torch.logsumexp(torch.addmm(offset, features, into), 1)

    return log_density


def mixture_in_jax(means: Tensor, stds: Tensor) -> LogDensity:
    """Return the log-density of a mixture at one point."""
    import jax
    import jax.numpy as jnp

    m, p = jnp.asarray(means.numpy(), "float32"), jnp.asarray((stds**-2).numpy(), "float32")
    return lambda x: jax.nn.logsumexp(jnp.log(p) - 0.5 * p * ((x - m) ** 2).sum(1))


def random_walk_torch(log_density: LogDensity, scale: float, start: Tensor, steps: int) -> Walk:
    """Metropolis' random walk, eager."""
    x = start.clone()
    value, noise, u = log_density(x), torch.empty_like(x), torch.empty(len(x))

    @torch.no_grad()
    def walk() -> Tensor:
        nonlocal x, value
        for _ in range(steps):
            y = x + scale * noise.normal_()
            there = log_density(y)
            taken = u.uniform_().log_() <= there - value
            x, value = torch.where(taken[:, None], y, x), torch.where(taken, there, value)
        return x

    return walk


def mala_torch(log_density: LogDensity, h: float, start: Tensor, steps: int) -> Walk:
    """MALA with the score by autograd, eager."""
    noise, u = torch.empty_like(start), torch.empty(len(start))

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        at = x.detach().requires_grad_()
        value = log_density(at)
        (score,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), score

    x = start.clone()
    value, score = evaluate(x)

    def walk() -> Tensor:
        nonlocal x, value, score
        for _ in range(steps):
            y = x + h * score + math.sqrt(2 * h) * noise.normal_()
            there, next_score = evaluate(y)
            forward = (y - x - h * score).square().sum(1)
            backward = (x - y - h * next_score).square().sum(1)
            taken = u.uniform_().log_() <= there - value + (forward - backward) / (4 * h)
            x = torch.where(taken[:, None], y, x)
            value = torch.where(taken, there, value)
            score = torch.where(taken[:, None], next_score, score)
        return x

    return walk


def blackjax_walk(
    kernel: str, log_density: LogDensity, start: Tensor, steps: int, **parameters: Any
) -> Walk:
    """Return the walk of a BlackJAX kernel, all chains in one jitted scan.

    ``kernel`` is "rmh" (random walk), "mala" or "hmc".
    """
    import blackjax
    import jax
    import jax.numpy as jnp

    if kernel == "rmh":
        sigma = parameters.pop("scale") * jnp.ones(start.shape[1])
        algorithm = blackjax.additive_step_random_walk.normal_random_walk(log_density, sigma)
    else:
        algorithm = getattr(blackjax, kernel)(log_density, **parameters)
    state, calls = jax.vmap(algorithm.init)(jnp.asarray(start.numpy())), 0
    n_chains = len(start)

    @jax.jit
    def scan(state: Any, call: int) -> Any:
        def body(state: Any, key: Any) -> tuple[Any, None]:
            state, _ = jax.vmap(algorithm.step)(jax.random.split(key, n_chains), state)
            return state, None

        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), call), steps)
        return jax.lax.scan(body, state, keys)[0]

    def walk() -> Any:
        nonlocal state, calls
        state, calls = jax.block_until_ready(scan(state, calls)), calls + 1
        return state.position

    return walk
