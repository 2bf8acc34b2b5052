# SPDX-License-Identifier: Apache-2.0
"""Langevin on a mixture as torch and JAX users can write it, each as strong as we could make it.

A factory takes the problem and a number of steps and returns a walk (see :mod:`peers`). The state
is rows ``(n_chains, 2)`` or columns, which is what the other libraries vectorise well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from peers import Walk, Walks, jax_walk, torch_walk


@dataclass(frozen=True)
class Mixture:
    """Langevin on an isotropic mixture of equal weights in two dimensions."""

    means: Tensor
    stds: Tensor
    step_size: float
    start: Tensor

    @property
    def precisions(self) -> Tensor:
        """Return the components' precisions, float32."""
        return (self.stds**-2).float()

    @property
    def noise_scale(self) -> float:
        """Return the standard deviation of a step's noise."""
        return math.sqrt(2 * self.step_size)

    @property
    def components(self) -> list[tuple[float, float, float]]:
        """Return centre and precision of each component as constants of a program."""
        precisions = (self.stds**-2).tolist()
        return [(*m, p) for m, p in zip(self.means.tolist(), precisions, strict=True)]

    def products(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the matrices of the score by two matrix products, for columns.

        With features ``f = (x, |x|^2)`` the logits are ``offset + into @ f``, and with their
        softmax ``r`` the score is ``m[:2] - m[2] x``, ``m = out @ r``.
        """
        p, means = self.precisions, self.means.float()
        into = torch.cat([p[:, None] * means, -0.5 * p[:, None]], 1)
        offset = (p.log() - 0.5 * p * (means * means).sum(1))[:, None]
        out = torch.cat([p[:, None] * means, p[:, None]], 1).T.contiguous()
        return into.contiguous(), offset.contiguous(), out


def columns(x: Tensor) -> Tensor:
    """Return a copy of rows as contiguous columns."""
    return x.T.contiguous().clone()


def textbook(problem: Mixture, steps: int) -> Walk:
    """Score as the textbook writes it, on rows.

    Not compiled: on several threads the compiler opens a parallel region for every chain, which
    takes seconds a step.
    """
    means, p, h = problem.means.float(), problem.precisions, problem.step_size
    log_weights = p.log()

    def step(x: Tensor, noise: Tensor) -> Tensor:
        away = means - x[:, None]
        r = torch.softmax(log_weights - 0.5 * p * (away * away).sum(2), 1) * p
        return x + h * (r[:, :, None] * away).sum(1) + problem.noise_scale * noise

    return torch_walk(step, problem.start.clone(), steps)


def products(problem: Mixture, steps: int) -> Walk:
    """Score in closed form by two matrix products, in place, on columns."""
    into, offset, out = problem.products()
    h, n = problem.step_size, len(problem.start)
    features, logits, m = torch.empty(3, n), torch.empty(len(into), n), torch.empty(3, n)

    def step(x: Tensor, noise: Tensor) -> Tensor:
        features[:2] = x
        torch.mul(x[0], x[0], out=features[2]).addcmul_(x[1], x[1])
        torch.addmm(offset, into, features, out=logits)
        torch.mm(out, torch.softmax(logits, 0), out=m)
        x.addcmul_(x, m[2:], value=-h).add_(m[:2], alpha=h)
        return x.add_(noise, alpha=problem.noise_scale)

    return torch_walk(step, columns(problem.start), steps)


def autograd(problem: Mixture, steps: int) -> Walk:
    """Score by autograd of the log-density, on columns."""
    into, offset, _ = problem.products()
    h = problem.step_size

    def step(x: Tensor, noise: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.requires_grad_()
            features = torch.cat([y, (y * y).sum(0, keepdim=True)])
            value = torch.logsumexp(torch.addmm(offset, into, features), 0).sum()
            (score,) = torch.autograd.grad(value, y)
        x = x.detach()
        return x.add_(score, alpha=h).add_(noise, alpha=problem.noise_scale)

    return torch_walk(step, columns(problem.start), steps)


def written_out(
    x: Any, y: Any, components: list[tuple[float, float, float]], exp: Any, maximum: Any
) -> tuple[Any, Any]:
    """Return the score of two coordinates with the components written out, for a compiler to fuse.

    Takes torch tensors and JAX arrays.
    """
    terms = []
    for mx, my, p in components:
        dx, dy = mx - x, my - y
        terms.append((math.log(p) - 0.5 * p * (dx * dx + dy * dy), p, dx, dy))
    top = terms[0][0]
    for logit, *_ in terms[1:]:
        top = maximum(top, logit)
    total = sum_x = sum_y = 0.0
    for logit, p, dx, dy in terms:
        weight = exp(logit - top)
        total = total + weight
        sum_x, sum_y = sum_x + p * weight * dx, sum_y + p * weight * dy
    return sum_x / total, sum_y / total


def written_out_compiled(problem: Mixture, at_once: int) -> Callable[[int], Walk]:
    """Return walks with ``at_once`` whole steps in one compiled graph, on two vectors."""
    h, c, n = problem.step_size, problem.noise_scale, len(problem.start)
    components = problem.components

    def step(x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        for z in noise:
            sx, sy = written_out(x, y, components, torch.exp, torch.maximum)
            x, y = x + h * sx + c * z[0], y + h * sy + c * z[1]
        return x, y

    def walk_of(steps: int) -> Walk:
        compiled = torch.compile(step, fullgraph=True)
        noise = torch.empty(at_once, 2, n)
        x, y = columns(problem.start)

        def walk() -> Tensor:
            nonlocal x, y
            for _ in range(steps // at_once):
                x, y = compiled(x, y, noise.normal_())
            return torch.stack([x, y])

        return walk

    return walk_of


def in_jax(problem: Mixture, form: str, unroll: int = 1) -> Callable[[int], Walk]:
    """Return JAX walks: ``form`` is "rows", "columns" (written out) or "grad" (of the density)."""
    import jax
    import jax.numpy as jnp

    means = jnp.asarray(problem.means.numpy(), "float32")
    p = jnp.asarray(problem.precisions.numpy())
    h, c = problem.step_size, problem.noise_scale

    def log_density(x: Any) -> Any:
        away = means.T[:, :, None] - x[:, None]
        square = p[:, None] * (away * away).sum(0)
        return jax.nn.logsumexp(jnp.log(p)[:, None] - 0.5 * square, axis=0).sum()

    def rows(x: Any) -> Any:
        away = means - x[:, None]
        r = jax.nn.softmax(jnp.log(p) - 0.5 * p * (away * away).sum(2), axis=1) * p
        return (r[:, :, None] * away).sum(1)

    def fused(x: Any) -> Any:
        return jnp.stack(written_out(x[0], x[1], problem.components, jnp.exp, jnp.maximum))

    score = {"rows": rows, "columns": fused, "grad": jax.grad(log_density)}[form]
    start = problem.start if form == "rows" else columns(problem.start)
    return lambda steps: jax_walk(lambda x, z: x + h * score(x) + c * z, start, steps, unroll)


def walks(problem: Mixture) -> Walks:
    """Return all of them by name."""
    return {
        "torch eager, rows": lambda: partial(textbook, problem),
        "torch eager, columns": lambda: partial(products, problem),
        "torch eager, autograd": lambda: partial(autograd, problem),
        "torch.compile, columns": lambda: written_out_compiled(problem, 1),
        "torch.compile, columns, 4 steps a graph": lambda: written_out_compiled(problem, 4),
        "JAX scan, rows": lambda: in_jax(problem, "rows"),
        "JAX scan, columns": lambda: in_jax(problem, "columns"),
        "JAX scan, columns, unrolled": lambda: in_jax(problem, "columns", unroll=4),
        "JAX scan, grad": lambda: in_jax(problem, "grad"),
    }
