# SPDX-License-Identifier: Apache-2.0
"""What a progress bar says, and that it changes no number."""

import re

import pytest
import torch

import pushforward as pf
from pushforward import progress
from pushforward.mcmc import Kernel
from pushforward.run import Plan, Run
from pushforward.targets import as_target

LAW = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))


def run_of(kernel: Kernel, n_steps: int, store="stats") -> Run:
    plan = Plan(0, 0, n_steps, 1, store, covariance=False, quantiles=False, first_step=0,
                chain_offset=0, seed=3)  # fmt: skip
    run = Run(as_target(LAW), kernel, LAW.sample(200, seed=1), plan)
    run.begin()
    run.start_recording()
    return run


def test_r_hat_is_said_from_the_second_step_on():
    run = run_of(pf.MALA(0.8), 100)
    assert "rhat" not in run.so_far()
    seen = []
    for steps in (2, 8, 39, 1, 50):  # the half is among them
        run.advance(steps)
        assert set(run.so_far()) == {"accept", "rhat"}
        seen.append(float(run.so_far()["rhat"]))
    assert all(0.9 < rhat < 1.8 for rhat in seen)
    assert seen[-1] < 1.02
    assert 0.7 < float(run.so_far()["accept"]) <= 1.0


def test_whole_chains_before_the_half():
    """With no half to split, R-hat is that of the textbook for whole chains."""
    run = run_of(pf.RandomWalk(0.3), 1000, "draws")
    run.advance(300)
    draws = run.recorder.draws[:300].double()
    within, means = draws.var(0).mean(0), draws.mean(0)
    expected = (1 - 1 / 300 + means.var(0) / within).sqrt().max()
    assert run.so_far()["rhat"] == f"{float(expected):.3f}"


@pytest.mark.parametrize("store", ["last", "stats"])
def test_one_chain_and_nothing_kept(store):
    run = run_of(pf.MALA(0.8), 10, store)
    run.advance(3)
    assert ("rhat" in run.so_far()) == (store == "stats")


def test_the_bar_tells_as_it_goes_and_at_the_end(capsys, monkeypatch):
    x = LAW.sample(50, seed=1)
    silent = pf.sample(LAW, pf.HMC(1.1, 3), x, n_steps=300, seed=1, progress=False)
    assert capsys.readouterr().err == ""
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(progress, "_SECONDS", seconds)
        chains = pf.sample(LAW, pf.HMC(1.1, 3), x, n_steps=300, seed=1, progress=True)
        said = capsys.readouterr().err
        assert "300/300" in said
        assert re.search(r"accept=0\.\d\d, rhat=\d\.\d\d\d\]?\s*$", said)
        assert torch.equal(chains.draws, silent.draws)
