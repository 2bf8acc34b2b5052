# SPDX-License-Identifier: Apache-2.0
"""Laws, kernels and results can be copied and pickled, as worker processes need them."""

import copy
import io
import pickle

import pytest
import torch

import pushforward as pf

LAW = pf.targets.Gaussian(torch.zeros(2), covariance=torch.tensor([[1.0, 0.3], [0.3, 0.5]]))
START = torch.zeros(8, 2)
KERNELS = [pf.RandomWalk(), pf.MALA(), pf.HMC(), pf.NUTS()]
WAYS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "deepcopy": copy.deepcopy}


def saved(value):
    """The value by way of ``torch.save``."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [*WAYS.values(), saved], ids=[*WAYS, "torch"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_adapted_kernels_and_their_chains(kernel, way):
    chains = pf.sample(LAW, kernel, START, warmup=60, n_steps=5, seed=1)
    again = way(chains)
    assert torch.equal(again.draws, chains.draws)
    assert torch.equal(again.mean, chains.mean)
    for law in (LAW, LAW.torch_log_density):
        first = pf.sample(law, chains.kernel, START, n_steps=5, seed=2)
        second = pf.sample(law, way(chains.kernel), START, n_steps=5, seed=2)
        assert torch.equal(first.draws, second.draws)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_laws(target, way):
    x = target.sample(5, seed=1)
    assert torch.equal(way(target).log_density(x), target.log_density(x))


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_laws_of_lattices(way):
    field = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1)
    spins = pf.lattice.Ising((4, 4), temperature=2.0)
    x = torch.ones(2, 4, 4)
    for law in (field, spins):
        assert torch.equal(way(law).log_density(x), law.log_density(x))


def test_pickled_chains_hold_their_sums_once():
    chains = pf.sample(LAW, pf.MALA(0.3), torch.zeros(5000, 2), n_steps=21, store="stats", seed=1)
    again = pickle.loads(pickle.dumps(chains))
    assert torch.equal(again.rhat, chains.rhat)
    assert torch.equal(again.mcse, chains.mcse)
    sums = 6 * 5000 * 2 * 8
    assert len(pickle.dumps(chains)) < 2 * sums
