# SPDX-License-Identifier: Apache-2.0
"""Posteriors in torch and in JAX, and the no-U-turn samplers of other libraries on them.

A sampler returns its draws ``(n_kept, n_chains, dim)``; what it compiles, it compiles anew at each
call, since a user does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Draws = Callable[[], Tensor]


@dataclass(frozen=True)
class Posterior:
    """A log-density in torch, batched over rows, and in JAX, at one point."""

    name: str
    dim: int
    in_torch: Callable[[Tensor], Tensor]
    in_jax: Callable[[], Callable[[Any], Any]]


def eight_schools() -> Posterior:
    """Rubin's eight schools (1981), non-centred: mu, log tau and eight standardised effects."""
    effects = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])

    def in_torch(x: Tensor) -> Tensor:
        mu, log_tau, z = x[:, :1], x[:, 1:2], x[:, 2:]
        tau = log_tau.exp()
        off = (effects - mu - tau * z) / errors
        prior = -0.5 * (mu / 5) ** 2 - torch.log1p((tau / 5) ** 2) + log_tau
        return prior[:, 0] - 0.5 * (z * z + off * off).sum(1)

    def in_jax() -> Callable[[Any], Any]:
        import jax.numpy as jnp

        y, s = jnp.asarray(effects.numpy()), jnp.asarray(errors.numpy())

        def log_density(x: Any) -> Any:
            mu, log_tau, z = x[0], x[1], x[2:]
            tau = jnp.exp(log_tau)
            off = (y - mu - tau * z) / s
            prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) + log_tau
            return prior - 0.5 * (z * z + off * off).sum()

        return log_density

    return Posterior("eight schools", 10, in_torch, in_jax)


def logistic() -> Posterior:
    """Logistic regression on the breast cancer data of scikit-learn, standard normal priors."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    features = torch.tensor(data.data, dtype=torch.float64)
    features = (features - features.mean(0)) / features.std(0)
    design = torch.cat([torch.ones(len(features), 1, dtype=torch.float64), features], 1).float()
    sign = torch.tensor(2.0 * data.target - 1).float()
    signed = (design * sign[:, None]).T.contiguous()

    def in_torch(x: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(x @ signed).sum(1) - 0.5 * (x * x).sum(1)

    def in_jax() -> Callable[[Any], Any]:
        import jax
        import jax.numpy as jnp

        matrix = jnp.asarray(signed.numpy())
        return lambda x: jax.nn.log_sigmoid(x @ matrix).sum() - 0.5 * (x * x).sum()

    return Posterior("logistic regression", design.shape[1], in_torch, in_jax)


def start(posterior: Posterior, n_chains: int) -> Tensor:
    """Return a start near the origin."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(n_chains, posterior.dim, generator=generator)


def numpyro(posterior: Posterior, n_chains: int, warmup: int, n_kept: int) -> Draws:
    """NumPyro, vectorised over chains."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    log_density, calls = posterior.in_jax(), 0
    x = jnp.asarray(start(posterior, n_chains).numpy())

    def draws() -> Tensor:
        nonlocal calls
        jax.clear_caches()
        mcmc = MCMC(
            NUTS(potential_fn=lambda z: -log_density(z), dense_mass=True),
            num_warmup=warmup, num_samples=n_kept, num_chains=n_chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(calls), init_params=x)
        calls += 1
        return torch.tensor(_array(mcmc.get_samples(group_by_chain=True))).transpose(0, 1)

    return draws


def blackjax(posterior: Posterior, n_chains: int, warmup: int, n_kept: int) -> Draws:
    """BlackJAX: window adaptation on one chain, then all chains in one scan."""
    import blackjax as bj
    import jax
    import jax.numpy as jnp

    log_density, calls = posterior.in_jax(), 0
    x = jnp.asarray(start(posterior, n_chains).numpy())

    def draws() -> Tensor:
        nonlocal calls
        jax.clear_caches()
        key, calls = jax.random.key(calls), calls + 1
        warm, run = jax.random.split(key)
        adaptation = bj.window_adaptation(bj.nuts, log_density, is_mass_matrix_diagonal=False)
        (state, parameters), _ = adaptation.run(warm, x[0], num_steps=warmup)
        kernel = bj.nuts(log_density, **parameters)
        states = jax.vmap(lambda z: kernel.init(state.position + 0 * z))(x)

        @jax.jit
        def scan(states: Any) -> Any:
            def body(states: Any, key: Any) -> tuple[Any, Any]:
                states, _ = jax.vmap(kernel.step)(jax.random.split(key, n_chains), states)
                return states, states.position

            return jax.lax.scan(body, states, jax.random.split(run, n_kept + 50))[1]

        return torch.tensor(_array(scan(states)))[50:]

    return draws


def _array(samples: Any) -> Any:
    import numpy as np

    return np.array(samples)


def reference(posterior: Posterior) -> tuple[Tensor, Tensor]:
    """Return means and variances by an independent sampler: a long random walk in float64."""
    import pushforward as pf

    scale = 2.38 / math.sqrt(posterior.dim)
    x = start(posterior, 2000).double()
    kernel = pf.RandomWalk(scale)
    chains = pf.sample(
        lambda z: posterior.in_torch(z.float()).double(), kernel, x, warmup=2000, burn_in=1000,
        n_steps=4000, store="stats", seed=9, progress=False,
    )  # fmt: skip
    return chains.mean, chains.var
