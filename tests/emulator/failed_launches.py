# SPDX-License-Identifier: Apache-2.0
"""Launches that a GPU refuses: an error with its cause, and nothing written.

Run by test_suite_on_emulator.py. PF_EMULATOR_LAUNCH_ERROR has the emulator refuse every launch with
the error of that number, as the CUDA runtime would.
"""

import pytest
import torch

import pushforward as pf
from pushforward import _ops

CAUSES = {
    "35": "CUDA: launching a kernel: CUDA driver version is insufficient .* driver of the 580",
    "209": r"CUDA: launching a kernel: no kernel image .* no code for the architecture of this GPU",
    "222": "CUDA: launching a kernel: the provided PTX was compiled .* update the driver",
    "719": "CUDA: launching a kernel: unspecified launch failure",
    "701": "CUDA: launching a kernel: too many resources requested for launch",
}
LAW = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
PHI4 = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1)
ISING = pf.lattice.Ising((4, 4), temperature=20.0)


def counts():
    return pf.ops.Counts.zeros(5)


def zeros(*shape, dtype=torch.float64):
    return torch.zeros(shape, dtype=dtype)


def run(move, **more):
    return lambda x: pf.ops.markov_run_(
        x, LAW, move, step_size=0.5, n_steps=3, seed=1, counts=counts(), **more
    )


def advance(law, kernel):
    return lambda x: kernel.advance(x, law, seed=1, first_step=0, n_steps=3, chain_offset=0)


# Each writes to x and to nothing else that is looked at; ops that return a result, by a copy.


def sum_with_states(x):
    moments = _ops.BatchMoments(x.clone(), *zeros(4, 5, 3), x.new_zeros(50), 16)
    _ops.add_states(x, [x + 1], moments, 15)
    return moments.sum


CALLS = {
    "normals": lambda x: _ops.fill_(x, uniform=False, seed=1, purpose=1, chain_offset=0, start=0),
    "langevin": lambda x: pf.ops.langevin_(x, -x, step_size=0.1, seed=1, step=0),
    "reverse step": lambda x: pf.ops.reverse_step_(
        x, -x, growth=1.1, drift_scale=0.1, noise_scale=0.1, seed=1, step=0
    ),
    "diffuse": lambda x: x.copy_(pf.ops.diffuse(x, mean_scale=0.5, std=0.1, seed=1)),
    "run": lambda x: pf.ops.langevin_run_(x, LAW, step_size=0.1, n_steps=2, seed=1),
    "random walk": run("random_walk"),
    "mala": run("mala"),
    "underdamped": lambda x: run("underdamped", friction=1.0, velocity=zeros(5, 3, dtype=x.dtype))(
        x
    ),
    "hmc": run("hmc", n_leapfrog=2),
    "nuts": run("nuts", max_depth=2),
    "commit": lambda x: pf.ops.commit_(x, x + 1, zeros(5, dtype=torch.int64)),
    "accept": lambda x: pf.ops.accept_(
        x, x + 1, torch.zeros(5), torch.ones(5), seed=1, step=0, counts=counts()
    ),
    "score": lambda x: x.copy_(pf.ops.score(x, LAW)),
    "log density": lambda x: x.copy_(pf.ops.log_density(x, LAW)[:, None]),
    "pool": lambda x: x.copy_(
        _ops.pooled_moments(
            x, 2, zeros(5, dtype=torch.int64), (x.clone(), zeros(5, 3), zeros(5, 3))
        )[1]
    ),
    "totals": lambda x: x.copy_(
        _ops.totals(
            x,
            _ops.BatchMoments(x.clone(), *zeros(4, 5, 3), x.new_zeros(50), 16),
            *zeros(2, 5, 3),
        )[0]
    ),
    "states": lambda x: x.add_(sum_with_states(x)),
    "sums": lambda x: x.copy_(_ops.add_chain_sums_(zeros(3), 2 * x[None])),
    "math": lambda x: x.copy_(_ops.elementwise_math("exp", x)),
}
LATTICES = {
    "heat bath": advance(ISING, pf.lattice.HeatBath()),
    "swendsen-wang": advance(ISING, pf.lattice.SwendsenWang()),
    "wolff": advance(ISING, pf.lattice.Wolff()),
    "site moves": advance(PHI4, pf.lattice.Metropolis(width=1.0)),
    "score of a field": lambda x: x.copy_(PHI4.score(x)),
    "action": lambda x: x.copy_(PHI4.log_density(x)[:, None, None]),
}
EACH = [
    *(pytest.param(call, (5, 3), id=name) for name, call in CALLS.items()),
    *(pytest.param(call, (5, 4, 4), id=name) for name, call in LATTICES.items()),
]


@pytest.mark.parametrize("number", CAUSES)
@pytest.mark.parametrize(("call", "shape"), EACH)
def test_an_op_names_the_cause_and_writes_nothing(call, shape, number, monkeypatch):
    x = torch.ones(shape)
    monkeypatch.setenv("PF_EMULATOR_LAUNCH_ERROR", number)
    with pytest.raises(RuntimeError, match=CAUSES[number]):
        call(x)
    assert torch.equal(x, torch.ones(shape))
    monkeypatch.delenv("PF_EMULATOR_LAUNCH_ERROR")
    call(x)  # the error is not left behind
    assert not torch.equal(x, torch.ones(shape))


def test_the_driver_stops(monkeypatch):
    monkeypatch.setenv("PF_EMULATOR_LAUNCH_ERROR", "719")
    for law, kernel, x in (
        (LAW, pf.MALA(0.1), torch.ones(5, 3)),
        (PHI4, pf.Langevin(0.1), torch.ones(2, 4, 4)),
        (ISING, pf.lattice.HeatBath(), torch.ones(2, 4, 4)),
    ):
        with pytest.raises(RuntimeError, match="unspecified launch failure"):
            pf.sample(law, kernel, x, n_steps=3, seed=1, progress=False)


def test_more_shared_memory_than_there_is(monkeypatch):
    monkeypatch.setenv("PF_EMULATOR_SHARED", "65536")
    law = pf.targets.Gaussian(torch.zeros(9000), scale=torch.ones(9000))
    x = torch.ones(2, 9000)
    cause = (
        r"one chain of this many coordinates needs \d+ bytes of shared memory, this GPU has 65536"
    )
    with pytest.raises(RuntimeError, match=cause):
        pf.ops.langevin_run_(x, law, step_size=0.1, n_steps=1, seed=1)
    assert torch.equal(x, torch.ones(2, 9000))
