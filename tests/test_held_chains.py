# SPDX-License-Identifier: Apache-2.0
"""Chains that cannot move are reported and left out of what is said of the law."""

import pytest
import torch

import pushforward as pf

KERNELS = [pf.Langevin(0.2), pf.RandomWalk(1.0), pf.MALA(0.5), pf.HMC(0.3, 3)]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
HOW = {"n_steps": 400, "burn_in": 20, "thin": 2, "seed": 1, "covariance": True}
Q = torch.tensor([0.1, 0.5])


def broken(x):
    """A standard normal law; that of the third chain of five is no number."""
    value = -0.5 * x.square().sum(1)
    return value.where(torch.arange(len(x)) != 2, torch.nan) if len(x) == 5 else value


def start():
    return torch.full((5, 2), 3.0)


@each_kernel
@pytest.mark.parametrize("store", ["draws", "stats"])
def test_a_chain_without_a_density_is_left_out(kernel, store):
    with pytest.warns(RuntimeWarning, match="1 of 5 chains left the finite numbers"):
        chains = pf.sample(broken, kernel, start(), store=store, quantiles=True, **HOW)
    assert chains.held.tolist() == [False, False, True, False, False]
    assert torch.equal(chains.x[2], start()[2])
    assert int(chains.n_nonfinite[2]) == 420
    # The others' numbers are those of a run in which the third is as good as they are.
    sound = pf.sample(lambda x: -0.5 * x.square().sum(1), kernel, start(), **{**HOW, "thin": 1})
    rows = sound.draws[:, [0, 1, 3, 4]].flatten(0, 1).double()
    assert torch.allclose(chains.mean, rows.mean(0), atol=1e-6)
    assert torch.allclose(chains.var, rows.var(0), rtol=1e-5)
    assert bool((chains.rhat < 1.2).all())
    assert bool((chains.mcse < 0.3).all())
    kept = sound.draws[1::2, [0, 1, 3, 4]]
    assert chains.energy == pytest.approx(float(0.5 * kept.double().square().sum(2).mean()), 1e-5)
    exact = pf.diagnostics.quantile(kept, Q)
    assert torch.allclose(chains.quantile(Q), exact, atol=1e-9 if store == "draws" else 0.05)
    assert torch.equal(chains.summary().mean, chains.mean) or store == "draws"


@each_kernel
def test_streamed_covariance_leaves_it_out(kernel):
    with pytest.warns(RuntimeWarning, match="left the finite numbers"):
        chains = pf.sample(broken, kernel, start(), store="stats", **HOW)
    sound = pf.sample(lambda x: -0.5 * x.square().sum(1), kernel, start(), **{**HOW, "thin": 1})
    rows = sound.draws[:, [0, 1, 3, 4]].flatten(0, 1).double()
    assert torch.allclose(chains.cov, rows.mT.cov(), atol=1e-6)


@each_kernel
@pytest.mark.parametrize("store", ["draws", "stats"])
def test_a_law_that_is_nowhere_a_number(kernel, store):
    with pytest.warns(RuntimeWarning, match="3 of 3 chains"):
        chains = pf.sample(
            lambda x: x.sum(1) * torch.nan, kernel, start()[:3], store=store, quantiles=True, **HOW
        )
    assert bool(chains.held.all())
    assert torch.equal(chains.x, start()[:3])
    for name in ("mean", "var", "cov", "rhat", "ess", "mcse"):
        assert bool(getattr(chains, name).isnan().all()), name
    assert chains.energy is None or chains.energy != chains.energy


def test_a_chain_that_refuses_for_good_reason_is_not_held():
    # One step each, most into where the density is no number: those chains stay where they are,
    # as the law has it.
    x = 1 - 1e-3 * torch.arange(1.0, 1001)[:, None]
    with pytest.warns(RuntimeWarning, match="left the finite numbers"):
        chains = pf.sample(
            lambda x: torch.where(x[:, 0] < 1, -x[:, 0], torch.nan), pf.RandomWalk(5.0), x,
            n_steps=1, seed=3,
        )  # fmt: skip
    assert chains.held is None
    assert int((chains.n_nonfinite == 1).sum()) > 300
    assert torch.allclose(chains.mean, chains.x.double().mean(0))


def test_a_table_of_streaming_statistics():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    how = {"n_steps": 500, "seed": 1, "store": "stats"}
    chains = pf.sample(law, pf.MALA(0.8), law.sample(8, seed=0), quantiles=True, **how)
    table = chains.summary()
    assert torch.equal(table.mean, chains.mean)
    assert torch.equal(table.sd, chains.var.sqrt())
    assert torch.equal(table.rhat, chains.rhat)
    assert table.mcse_sd is None
    assert bool((table.q5 < table.median).all())
    assert str(table).splitlines()[0].split() == [
        "mean", "sd", "mcse_mean", "q5", "median", "q95", "ess_bulk", "rhat",
    ]  # fmt: skip
    plain = pf.sample(law, pf.MALA(0.8), law.sample(8, seed=0), **how).summary()
    assert plain.median is None
    assert torch.equal(plain.mean, chains.mean)
    with pytest.raises(ValueError, match="summary: expected a run with four draws"):
        pf.sample(law, pf.MALA(0.8), law.sample(8, seed=0), n_steps=9, store="last").summary()
