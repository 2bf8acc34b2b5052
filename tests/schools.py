# SPDX-License-Identifier: Apache-2.0
"""Eight schools as a law of a dict and of a flat state, and whether two runs of them agree."""

import math

import torch

import pushforward as pf
from posteriors import EFFECT, ERROR

SHAPES = {"theta": (8,), "mu": (), "log_tau": ()}


def schools(x):
    """Log-density of Rubin's eight schools, each effect in units of tau around mu."""
    mu, log_tau, theta = x["mu"], x["log_tau"], x["theta"]
    effect, error = (torch.tensor(v, dtype=mu.dtype) for v in (EFFECT, ERROR))
    misfit = (effect - mu[:, None] - log_tau.exp()[:, None] * theta) / error
    prior = -0.5 * (mu / 5) ** 2 - torch.log1p((log_tau.exp() / 5) ** 2) + log_tau
    return prior - 0.5 * (theta.square() + misfit.square()).sum(1)


def by_hand(flat):
    return {"theta": flat[:, :8], "mu": flat[:, 8], "log_tau": flat[:, 9]}


def schools_by_hand(flat):
    return schools(by_hand(flat))


def start(n=40, seed=1, dtype=torch.float32):
    flat = pf.random.normal(n, 10, seed=seed, dtype=dtype)
    return {name: value.clone() for name, value in by_hand(flat).items()}


def flattened(x):
    return torch.cat([v.reshape(len(v), math.prod(v.shape[1:])) for v in x.values()], 1)


def pieces(flat, shapes):
    """What a flat result holds of each parameter, cut by hand."""
    at, found = 0, {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = flat[..., at : at + size].reshape((*flat.shape[:-1], *shape))
        at += size
    return found


OF_PARAMETERS = ("x", "draws", "mean", "var", "rhat", "ess", "mcse")
OF_THE_RUN = (
    "log_density", "accept_rate", "accept_var", "n_nonfinite", "n_divergent", "held", "cov",
    "energy", "seed", "first_step", "next_step", "n_steps", "interrupted", "path",
)  # fmt: skip


def equal(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    return type(a) is type(b) and (a == b or (a != a and b != b))


def check_same(named, flat, shapes=SHAPES):
    """Assert that a result of a dict is a flat one by other names, bit for bit."""
    assert isinstance(named, pf.NamedChains)
    assert isinstance(flat, pf.Chains)
    for name in OF_PARAMETERS:
        ours, theirs = getattr(named, name), getattr(flat, name)
        if theirs is None:
            assert ours is None, name
            continue
        assert list(ours) == list(shapes), name
        for key, piece in pieces(theirs, shapes).items():
            assert ours[key].shape == piece.shape, (name, key)
            assert equal(ours[key], piece), (name, key)
    for name in OF_THE_RUN:
        assert equal(getattr(named, name), getattr(flat, name)), name
