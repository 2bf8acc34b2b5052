# SPDX-License-Identifier: Apache-2.0
"""What the driver takes: every kind of target, events of any shape; what it refuses."""

import math
import warnings

import pytest
import torch

import pushforward as pf
from conftest import ZOO, ring_of_modes

LAW = ring_of_modes()
KERNEL = pf.Langevin(step_size=0.05)


def start(n=37, seed=1):
    return 4 * pf.random.normal(n, 2, seed=seed)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, x):
        return -self.layer(x).square().sum(1)


def test_modules_distributions_callables_and_energies():
    torch.manual_seed(0)
    net = Net()
    normal = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    x = torch.zeros(5, 3)
    for target in (net, normal, pf.Energy(lambda x: -net(x)), lambda x: normal.log_prob(x)):
        chains = pf.sample(target, KERNEL, x, n_steps=4, seed=1)
        assert chains.draws.shape == (4, 5, 3)
    assert net.layer.weight.grad is None
    a = pf.sample(net, KERNEL, x, n_steps=4, seed=1)
    b = pf.sample(pf.Energy(lambda x: -net(x)), KERNEL, x, n_steps=4, seed=1)
    assert torch.equal(a.x, b.x)


def test_events_of_any_shape():
    x = torch.zeros(5, 2, 3, 4)
    chains = pf.sample(lambda x: -0.5 * x.flatten(1).square().sum(1), KERNEL, x, n_steps=6, seed=1)
    flat = pf.sample(lambda x: -0.5 * x.square().sum(1), KERNEL, x.flatten(1), n_steps=6, seed=1)
    assert chains.draws.shape == (6, 5, 2, 3, 4)
    assert chains.mean.shape == (2, 3, 4)
    assert torch.equal(chains.draws.flatten(2), flat.draws)
    scalar = pf.sample(
        torch.distributions.Normal(0.0, 1.0), KERNEL, torch.zeros(5), n_steps=6, seed=1
    )
    assert scalar.draws.shape == (6, 5)
    assert scalar.mean.shape == ()
    well = pf.sample(pf.targets.DoubleWell(1, -1.0, 1.0), KERNEL, torch.zeros(5), n_steps=6, seed=1)
    assert well.draws.shape == (6, 5)


def test_progress_bar_on_stderr(capsys):
    pf.sample(LAW, KERNEL, start(), n_steps=30, seed=1, progress=True)
    assert "30/30" in capsys.readouterr().err
    pf.sample(LAW, KERNEL, start(), n_steps=30, seed=1)
    assert capsys.readouterr().err == ""


def test_gradients_stay_off_and_no_warning_in_a_plain_run():
    x = start().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chains = pf.sample(LAW, KERNEL, x, n_steps=3, seed=1)
    assert not chains.x.requires_grad


# ---- bad input -----------------------------------------------------------------------------------

GOOD = {"target": LAW, "kernel": KERNEL, "x": torch.zeros(3, 2), "n_steps": 2, "seed": 0}


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"target": 3}, TypeError, "target"),
        ({"target": lambda x: x}, ValueError, "target: expected a log-density of shape"),
        ({"target": lambda x: 3.0}, TypeError, "target"),
        ({"target": lambda x: torch.zeros(len(x))}, ValueError, "differentiably"),
        ({"target": lambda x: 1 / 0}, ValueError, "ZeroDivisionError"),
        ({"target": ZOO["banana"]}, ValueError, "x: expected shape"),
        ({"kernel": 0.1}, TypeError, "kernel"),
        ({"x": [[0.0, 0.0]]}, TypeError, "x"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "float32 or float64"),
        ({"x": torch.zeros(3, 2, dtype=torch.float16)}, TypeError, "float32 or float64"),
        ({"x": torch.tensor(0.0)}, ValueError, "0-d"),
        ({"x": torch.tensor([[0.0, math.nan], [0.0, 0.0]])}, ValueError, r"1 chains.*\[0\]"),
        ({"x": torch.tensor([[0.0, math.inf]])}, ValueError, "finite start"),
        ({"x": torch.zeros(3, 2, device="meta")}, ValueError, "CPU"),
        ({"n_steps": -1}, ValueError, "n_steps"),
        ({"n_steps": 1.5}, TypeError, "n_steps"),
        ({"n_steps": 2**62, "store": "draws"}, ValueError, "2\\*\\*63 bytes"),
        ({"burn_in": -1}, ValueError, "burn_in"),
        ({"thin": 0}, ValueError, "thin"),
        ({"store": "all"}, ValueError, "store"),
        ({"first_step": -1}, ValueError, "first_step"),
        ({"first_step": 2**63 - 2}, ValueError, "first_step"),
        ({"chain_offset": 2**56}, ValueError, "chain_offset"),
        ({"chain_offset": -1}, ValueError, "chain_offset"),
        ({"seed": 2**63}, ValueError, "seed"),
        ({"seed": 1.0}, TypeError, "seed"),
        ({"progress": 1}, TypeError, "progress"),
        ({"cuda_graph": 1}, ValueError, "cuda_graph"),
        ({"cuda_graph": 0}, ValueError, "cuda_graph"),
        ({"cuda_graph": "always"}, ValueError, "cuda_graph"),
        ({"callback": 3}, TypeError, "callback"),
        ({"kernel": pf.Langevin(torch.full((4,), 0.1))}, ValueError, "step_size"),
        (
            {"kernel": pf.Langevin(torch.tensor(1e-60, dtype=torch.float64))},
            ValueError,
            "step_size",
        ),
        ({"kernel": pf.Langevin(0.1, torch.ones(2))}, ValueError, "beta"),
    ],
)
def test_bad_arguments_are_named(change, error, word):
    arguments = {**GOOD, **change}
    target, kernel, x = (arguments.pop(k) for k in ("target", "kernel", "x"))
    with pytest.raises(error, match=word):
        pf.sample(target, kernel, x, **arguments)


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf, torch.tensor([0.1, -0.1])])
def test_langevin_wants_positive_numbers(value):
    with pytest.raises(ValueError, match="step_size"):
        pf.Langevin(step_size=value)
    with pytest.raises(ValueError, match="beta"):
        pf.Langevin(step_size=0.1, beta=value)


@pytest.mark.parametrize("value", ["0.1", None, True, torch.ones(2, 2), torch.tensor(1)])
def test_langevin_wants_numbers(value):
    with pytest.raises((TypeError, ValueError), match="step_size"):
        pf.Langevin(step_size=value)
