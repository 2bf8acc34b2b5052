# SPDX-License-Identifier: Apache-2.0
"""Runs on a GPU: steps in CUDA graphs, steps that cannot be, loops that wait for nothing."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from on_device import Quadratic, each_device, let_waits_raise, needs_cuda, same
from torch import nn
from torch.distributions import constraints

import pushforward as pf
from pushforward import graphs, pacing
from pushforward.constrained import Constrained

COVARIANCE = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.3]])
KERNELS = {
    "langevin": pf.Langevin(0.1),
    "langevin-each": pf.Langevin(torch.linspace(0.05, 0.2, 300), beta=torch.tensor(1.5)),
    "annealed": pf.AnnealedLangevin(0.1, betas=torch.linspace(0.5, 2.0, 20)),
    "underdamped": pf.UnderdampedLangevin(0.3, friction=1.0),
    "walk": pf.RandomWalk(0.5),
    "walk-diagonal": pf.RandomWalk(torch.tensor([0.8, 0.5, 0.3])),
    "walk-dense": pf.RandomWalk(torch.linalg.cholesky(COVARIANCE)),
    "mala": pf.MALA(0.1),
    "hmc": pf.HMC(0.2, 3),
    "hmc-dense": pf.HMC(0.2, 3, metric=COVARIANCE, jitter=0.0),
    "log-normal": pf.MetropolisHastings(pf.mcmc.LogNormal(0.5)),
    "autoregressive": pf.MetropolisHastings(pf.mcmc.Autoregressive(0.9), beta=0.7),
}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
PARTS = ["x", "draws", "log_density", "mean", "var", "accept_rate", "n_nonfinite", "n_divergent"]
HOW = {"n_steps": 40, "burn_in": 5, "thin": 10, "seed": 2, "progress": False}


def start(device):
    return torch.linspace(0.5, 2.0, 900).reshape(300, 3).to(device)


def assert_same_runs(mine, other):
    for part in PARTS:
        a, b = getattr(mine, part), getattr(other, part)
        assert (a is None and b is None) or same(a, b), part


@pytest.fixture
def captured(monkeypatch):
    """The captured steps in the order in which they were made; each counts its replays."""
    made = []

    class Counted(graphs.StepGraph):
        replays = 0

        def __init__(self, run):
            super().__init__(run)
            self.replays = 0  # the one that was compared does not count
            made.append(self)

        def step(self, step):
            self.replays += 1
            return super().step(step)

    monkeypatch.setattr(graphs, "StepGraph", Counted)
    return made


# ---- steps that are captured ---------------------------------------------------------------------


@needs_cuda
@each_kernel
def test_a_captured_step_is_the_eager_step(captured, kernel):
    energy, x = pf.Energy(Quadratic().cuda().eval()), start("cuda")
    eager = pf.sample(energy, kernel, x, cuda_graph=False, **HOW)
    assert captured == []
    mine = pf.sample(energy, kernel, x, **HOW)
    assert [graph.replays for graph in captured] == [5, 40]
    assert_same_runs(mine, eager)
    assert not same(mine.draws[0], mine.draws[1])


@needs_cuda
def test_a_captured_run_goes_on_where_another_ended(captured):
    energy, x = pf.Energy(Quadratic().cuda().eval()), start("cuda")
    how = {"seed": 2, "progress": False}
    whole = pf.sample(energy, pf.MALA(0.1), x, n_steps=30, **how)
    half = pf.sample(energy, pf.MALA(0.1), x, n_steps=13, **how)
    rest = pf.sample(
        energy, pf.MALA(0.1), half.x, n_steps=17, first_step=half.next_step, cuda_graph=False, **how
    )
    assert [graph.replays for graph in captured] == [30, 13]
    assert same(rest.x, whole.x)


class Holder:
    """A target that holds a module."""

    def __init__(self):
        self.net = Quadratic().cuda().eval()

    def log_density(self, x):
        return -self.net(x)


LAWS = {
    "phi4": lambda: pf.lattice.Phi4((3,), kappa=0.1, lam=0.1),
    "constrained": lambda: Constrained(
        pf.targets.DoubleWell(3, mu=-1.0, b=1.0), constraints.positive, (3,)
    ),
    "holder": Holder,
    "compiled": lambda: pf.Energy(torch.compile(Quadratic().cuda().eval(), backend="aot_eager")),
}


@needs_cuda
@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_what_does_the_same_at_every_call_is_captured(captured, law):
    law, kernel, x = law(), pf.UnderdampedLangevin(0.1, friction=1.0), start("cuda")
    eager = pf.sample(law, kernel, x, cuda_graph=False, **HOW)
    mine = pf.sample(law, kernel, x, **HOW)
    assert [graph.replays for graph in captured] == [5, 40]
    assert_same_runs(mine, eager)


# ---- steps that cannot be ------------------------------------------------------------------------


class Waiting(nn.Module):
    """An energy that waits for the GPU."""

    def __init__(self, wait):
        super().__init__()
        self.wait = wait

    def forward(self, x):
        return 0.5 * (x * x).sum(1) + self.wait(x.detach())


SEEN = "called a synchronizing CUDA operation"
WAITS = {
    "item": (lambda x: x.abs().amax().item(), SEEN),
    "mask": (lambda x: x[x > 1].sum(), SEEN),
    "copy": (lambda x: torch.tensor(1.0).to(x.device), SEEN),
    # torch's debug mode does not see this one, which therefore makes the capture end with an error
    "synchronize": (
        lambda x: torch.cuda.synchronize() or 0.0,
        "CUDA error: operation not permitted when stream is capturing",
    ),
}


def run_a_model_that_waits(kernel, wait, on_a_stream, cuda_graph):
    """Run it, which warns or raises once, and see what is left behind."""
    wait, cause = WAITS[wait]
    energy, x, kernel = pf.Energy(Waiting(wait).cuda().eval()), start("cuda"), KERNELS[kernel]
    eager = pf.sample(energy, kernel, x, cuda_graph=False, **HOW)
    stream = torch.cuda.Stream() if on_a_stream else torch.cuda.current_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        if cuda_graph == "auto":
            with pytest.warns(RuntimeWarning, match=rf"runs eagerly: \w+: {cause}") as warned:
                mine = pf.sample(energy, kernel, x, **HOW)
            told = [w.filename for w in warned if w.category is RuntimeWarning]
            assert told == [__file__]  # once, of the line that called
            torch.cuda.synchronize()
            assert_same_runs(mine, eager)
        else:
            with pytest.raises(RuntimeError, match=rf"cannot be captured: \w+: {cause}"):
                pf.sample(energy, kernel, x, cuda_graph=True, **HOW)
        assert torch.cuda.current_stream() == stream
    assert torch.cuda.get_sync_debug_mode() == 0


@needs_cuda
@pytest.mark.parametrize("cuda_graph", ["auto", True])
@pytest.mark.parametrize("on_a_stream", [False, True])
@pytest.mark.parametrize("wait", ["item", "mask", "copy"])
@pytest.mark.parametrize("kernel", ["mala", "walk"])
def test_a_model_that_waits_runs_eagerly(captured, kernel, wait, on_a_stream, cuda_graph):
    run_a_model_that_waits(kernel, wait, on_a_stream, cuda_graph)
    assert captured == []


@needs_cuda
@pytest.mark.parametrize(("on_a_stream", "cuda_graph"), [(True, "auto"), (False, True)])
def test_a_capture_that_ends_with_an_error_leaves_the_stream(on_a_stream, cuda_graph):
    # In a process of its own: torch 2.11 can make no other capture after one that failed so.
    args = "mala", "synchronize", on_a_stream, cuda_graph
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(run_a_model_that_waits, *args).result(timeout=120)


@needs_cuda
def test_kernels_that_are_never_captured_run_as_they_are(captured):
    energy, x = pf.Energy(Quadratic().cuda().eval()), start("cuda")
    kernels = [pf.NUTS(0.2, max_depth=3), pf.AnnealedLangevin(0.1, betas=lambda k: 1.0 + k)]
    for kernel in kernels:
        assert pf.sample(energy, kernel, x, **HOW).x.isfinite().all()
        with pytest.raises(RuntimeError, match="cannot be captured: TypeError"):
            pf.sample(energy, kernel, x, cuda_graph=True, **HOW)
    assert captured == []


# ---- loops ---------------------------------------------------------------------------------------


class Watch:
    """A callback of ``pf.sample``: waiting raises from the first chunk's end to the last one's.

    Before, the start is checked, parameters travel, a step is captured; after, counts are read.
    """

    def __init__(self, device, last):
        self.device, self.last, self.chunks = device, last, 0

    def __call__(self, next_step, x):
        self.chunks += 1
        if self.device == "cuda":
            let_waits_raise(next_step < self.last)


# NUTS is not among them: on a torch target it asks after each doubling whether to go on.
@pytest.mark.parametrize("name", ["langevin", "annealed", "underdamped", "walk", "mala", "hmc"])
@pytest.mark.parametrize("store", ["draws", "stats"])
@pytest.mark.parametrize("how", ["native", "captured", "eager"])
@each_device
def test_the_loop_waits_for_nothing(captured, monkeypatch, device, how, store, name):
    monkeypatch.setattr(pacing, "SECONDS", 1e-4)  # so that there are several chunks
    law = pf.targets.Gaussian(torch.zeros(3), covariance=COVARIANCE)
    if how != "native":
        law = pf.Energy(Quadratic().to(device).eval())
    watch = Watch(device, last=200)
    more = {"store": store, "covariance": store == "stats", "thin": 3, "callback": watch}
    try:
        chains = pf.sample(
            law, KERNELS[name], start(device), n_steps=200, seed=2, progress=False,
            cuda_graph="auto" if how == "captured" else False, **more,
        )  # fmt: skip
    finally:
        if device == "cuda":
            let_waits_raise(False)
    assert watch.chunks > 2  # of which the first is not watched
    assert len(captured) == (how == "captured" and device == "cuda")
    assert bool(chains.x.isfinite().all())
