# SPDX-License-Identifier: Apache-2.0
"""A step that cannot be captured in a CUDA graph: the run goes on as if nobody had tried."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

import pushforward as pf
from pushforward import graphs
from pushforward.run import Plan, Run
from pushforward.sweeps import as_kernel
from pushforward.targets import as_target


def running(kernel):
    target = as_target(lambda x: -0.5 * (x**2).sum(1))
    plan = Plan(0, 0, 10, 1, "stats", covariance=False, quantiles=False, first_step=0,
                chain_offset=0, seed=3)  # fmt: skip
    run = Run(target, as_kernel(kernel, target), torch.ones(7, 2), plan)
    run.begin()
    run.start_recording()
    return run


@contextmanager
def refused(*_args, **_kwargs):
    raise RuntimeError("operation not permitted when stream is capturing")
    yield


@pytest.fixture
def no_capture(monkeypatch):
    """Streams that do nothing, and a capture that fails as torch's does."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", refused)


KERNELS = [pf.Langevin(0.1), pf.RandomWalk(0.5), pf.MALA(0.1), pf.HMC(0.2, 3)]


@pytest.mark.usefixtures("no_capture")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_a_failed_capture_takes_no_step(kernel):
    run, untried = running(kernel), running(kernel)
    with pytest.warns(RuntimeWarning, match="runs eagerly: RuntimeError: operation not permitted"):
        assert graphs._captured(run, required=False) is None
    for mine, other in zip(run.state.tensors(), untried.state.tensors(), strict=True):
        assert torch.equal(mine, other)
    run.advance(5), untried.advance(5)
    assert torch.equal(run.x, untried.x)
    assert not torch.equal(run.x, torch.ones(7, 2))


@pytest.mark.usefixtures("no_capture")
def test_a_required_capture_raises_its_cause():
    run = running(pf.MALA(0.1))
    with pytest.raises(RuntimeError, match="cannot be captured: RuntimeError: operation not"):
        graphs._captured(run, required=True)
    assert torch.equal(run.x, torch.ones(7, 2))


def test_a_graph_that_is_demanded_needs_a_gpu():
    with pytest.raises(ValueError, match="cuda_graph: expected a state on a GPU, got one on cpu"):
        pf.sample(
            lambda x: -(x**2).sum(1), pf.MALA(0.1), torch.ones(3, 1), n_steps=2, cuda_graph=True
        )
