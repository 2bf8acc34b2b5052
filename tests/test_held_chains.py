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
    table = chains.summary().mean
    expected = chains.mean if store == "stats" else kept.double().mean((0, 1))
    assert torch.allclose(table, expected, atol=1e-6)


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
    assert bool(chains.quantile(Q).isnan().all())
    assert chains.quantile(Q).shape == (2, 2)


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


LAWS = {
    "NaN": lambda x: torch.where(x.abs().amax(1) > 1e5, torch.nan, -0.5 * x.square().sum(1)),
    "infinite": lambda x: torch.where(x.abs().amax(1) > 1e5, torch.inf, -0.5 * x.square().sum(1)),
}


@each_kernel
@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
@pytest.mark.parametrize("held", [0, 3])
def test_chains_far_away_leave_no_trace(kernel, law, held):
    x = pf.random.normal(8, 2, seed=1, dtype=torch.float64)
    x[held] = 1e10
    how = {**HOW, "store": "stats", "quantiles": True, "n_steps": 800}
    with pytest.warns(RuntimeWarning, match="1 of 8 chains"):
        chains = pf.sample(law, kernel, x, **how)
    assert chains.held.nonzero().tolist() == [[held]]
    # The law's own, or that of Langevin steps of 0.2, whose variance is a tenth larger.
    assert bool((chains.mean.abs() < 0.35).all())
    assert bool(((chains.var - 1.05).abs() < 0.45).all())
    assert bool(((chains.cov.diagonal() - chains.var).abs() < 0.02).all())
    assert abs(float(chains.cov[0, 1])) < 0.4
    assert 0.5 < chains.energy < 1.6
    assert bool((chains.quantile(torch.tensor([0.0, 1.0])).abs() < 8).all())
    assert bool((chains.quantile(0.5).abs() < 0.4).all())
    assert bool((chains.mcse < 0.3).all())


def test_a_start_without_a_score():
    # log pi is -2 there, and its gradient no number.
    def law(x):
        return -x.abs().sum(1).sqrt()

    x = torch.ones(6, 2)
    x[1] = 0.0
    with pytest.warns(RuntimeWarning, match="1 of 6"):
        chains = pf.sample(law, pf.Langevin(0.01), x, n_steps=50, seed=1, store="stats")
    assert chains.held.nonzero().tolist() == [[1]]
    assert pf.sample(law, pf.RandomWalk(0.5), x, n_steps=50, seed=1).held is None


def test_fields_that_diverge_at_every_step_are_a_result():
    law = pf.lattice.Phi4((8, 8), kappa=0.2, lam=0.5)
    x = pf.random.normal(64, 64, seed=2).reshape(64, 8, 8)
    with pytest.warns(RuntimeWarning, match="left the finite numbers"):
        chains = pf.sample(law, pf.HMC(3.0, n_leapfrog=10), x, n_steps=20, store="stats", seed=0)
    assert chains.held is None
    assert bool((chains.n_nonfinite == 20).any())


@pytest.mark.parametrize("stop", [150, 300])
def test_a_resumed_run_knows_them(tmp_path, stop):
    x = start()
    how = {**HOW, "store": "stats", "quantiles": True, "every": 10}
    with pytest.warns(RuntimeWarning):
        whole = pf.sample(broken, pf.MALA(0.5), x, **how, checkpoint=tmp_path / "whole")
    path, halt = tmp_path / "part", lambda step, x: step >= stop
    with pytest.warns(RuntimeWarning):
        pf.sample(broken, pf.MALA(0.5), x, **how, checkpoint=path, callback=halt)
    with pytest.warns(RuntimeWarning):
        again = pf.sample(broken, pf.MALA(0.5), x, **how, checkpoint=path)
    assert again.held.tolist() == whole.held.tolist()
    for name in ("mean", "var", "cov", "rhat", "ess", "mcse", "x"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert again.energy == whole.energy
    assert torch.equal(again.quantile(Q), whole.quantile(Q))
