# SPDX-License-Identifier: Apache-2.0
"""Launches that a GPU refuses: an error with its cause, and nothing written.

Run by test_suite_on_emulator.py. PF_EMULATOR_LAUNCH_ERROR has the emulator refuse every launch with
the error of that number, as the CUDA runtime would.
"""

import pytest
import torch

import pushforward as pf
from pushforward import _ops
from pushforward._ops.lattice import phi4_run

CAUSES = {
    "209": r"CUDA: launching a kernel: no kernel image .* no code for the architecture of this GPU",
    "719": "CUDA: launching a kernel: unspecified launch failure",
    "701": "CUDA: launching a kernel: too many resources requested for launch",
}
LAW = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
PHI4 = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1)


def counts():
    return pf.ops.Counts.zeros(5)


# Each writes to x and to nothing else.
CALLS = {
    "normals": lambda x: _ops.fill_(x, uniform=False, seed=1, purpose=1, chain_offset=0, start=0),
    "langevin": lambda x: pf.ops.langevin_(x, -x, step_size=0.1, seed=1, step=0),
    "reverse step": lambda x: pf.ops.reverse_step_(
        x, -x, growth=1.1, drift_scale=0.1, noise_scale=0.1, seed=1, step=0
    ),
    "run": lambda x: pf.ops.langevin_run_(x, LAW, step_size=0.1, n_steps=2, seed=1),
    "commit": lambda x: pf.ops.commit_(x, x + 1, torch.zeros(5, dtype=torch.int64)),
    "accept": lambda x: pf.ops.accept_(
        x, x + 1, torch.zeros(5), torch.ones(5), seed=1, step=0, counts=counts()
    ),
}


@pytest.mark.parametrize("number", CAUSES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_op_in_place_names_the_cause_and_writes_nothing(call, number, monkeypatch):
    x = torch.ones(5, 3)
    monkeypatch.setenv("PF_EMULATOR_LAUNCH_ERROR", number)
    with pytest.raises(RuntimeError, match=CAUSES[number]):
        call(x)
    assert torch.equal(x, torch.ones(5, 3))
    monkeypatch.delenv("PF_EMULATOR_LAUNCH_ERROR")
    call(x)  # the error is not left behind
    assert not torch.equal(x, torch.ones(5, 3))


def test_a_run_and_a_lattice_stop(monkeypatch):
    x, field = torch.ones(5, 3), torch.ones(2, 4, 4)
    monkeypatch.setenv("PF_EMULATOR_LAUNCH_ERROR", "719")
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        pf.sample(LAW, pf.MALA(0.1), x, n_steps=3, seed=1, progress=False)
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        phi4_run("langevin", field, PHI4.native_parameters(field), 0.1, seed=1, first_step=0,
                 n_steps=1, chain_offset=0)  # fmt: skip
    assert torch.equal(field, torch.ones(2, 4, 4))


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
