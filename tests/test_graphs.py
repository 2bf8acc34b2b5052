# SPDX-License-Identifier: Apache-2.0
"""Steps in CUDA graphs, on a stand-in for torch.cuda that records on the CPU and replays there."""

from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, constraints

import pushforward as pf
from pushforward import graphs, sampling
from pushforward.constrained import Constrained
from pushforward.run import Plan, Run
from pushforward.sweeps import as_kernel
from pushforward.targets import as_target
from stand_in_gpu import Gpu


@pytest.fixture
def gpu(monkeypatch):
    """The stand-in, with which ``pf.sample`` captures steps unless it is told not to."""

    def graphed(run, target, wanted):
        return graphs._captured(run, required=True) if wanted else None

    monkeypatch.setattr(sampling, "graphed", graphed)
    with Gpu(monkeypatch) as stand_in:
        yield stand_in


X = torch.linspace(0.5, 2.0, 14).reshape(7, 2)
COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
KERNELS = {
    "langevin": pf.Langevin(0.1),
    "langevin-each": pf.Langevin(torch.linspace(0.05, 0.2, 7), beta=torch.tensor(1.5)),
    "annealed": pf.AnnealedLangevin(0.1, betas=torch.linspace(0.5, 2.0, 12)),
    "underdamped": pf.UnderdampedLangevin(0.3, friction=1.0),
    "walk": pf.RandomWalk(0.5),
    "walk-diagonal": pf.RandomWalk(torch.tensor([0.5, 0.8])),
    "walk-dense": pf.RandomWalk(torch.linalg.cholesky(COVARIANCE)),
    "mala": pf.MALA(0.1),
    "hmc": pf.HMC(0.2, 3),
    "hmc-diagonal": pf.HMC(0.2, 3, metric=COVARIANCE.diagonal()),
    "hmc-dense": pf.HMC(0.2, 3, metric=COVARIANCE, jitter=0.0),
    "log-normal": pf.MetropolisHastings(pf.mcmc.LogNormal(0.5)),
    "autoregressive": pf.MetropolisHastings(pf.mcmc.Autoregressive(0.9), beta=0.7),
}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))


class Model(nn.Module):
    """A log-density with a matrix product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.2], [0.1, 0.7]]))

    def forward(self, x):
        return -nn.functional.softplus(x @ self.weight).sum(1) - 0.5 * (x * x).sum(1)


def item(x):
    return -0.5 * (x**2).sum(1) + x.detach()[0, 0].item()


def mask(x):
    return -0.5 * (x**2).sum(1) + x[x > 5].sum()


def running(kernel, target=None, store="stats"):
    target = as_target(Model().eval() if target is None else target)
    plan = Plan(0, 0, 40, 1, store, covariance=store == "draws", quantiles=False, first_step=0,
                chain_offset=0, seed=3)  # fmt: skip
    run = Run(target, as_kernel(kernel, target), X.clone(), plan)
    run.begin()
    if not run.native:  # a run on a field would not need it
        run.kernel.begin(run.state)
    run.start_recording()
    return run


def same(mine, others):
    pairs = zip(mine.state.tensors(), others.state.tensors(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---- steps, loops, replays -----------------------------------------------------------------------


@each_kernel
def test_a_step_reads_nothing_on_the_host(gpu, kernel):
    run = running(kernel)
    gpu.reads.clear()
    run.kernel.step(run.state, torch.tensor(3))
    assert gpu.reads == []
    assert graphs._is_fixed(kernel)


PROPOSAL = SimpleNamespace(sample=torch.clone, log_prob=torch.sub)
NEVER = [
    pf.NUTS(0.1), pf.mcmc.Gibbs(), pf.AnnealedLangevin(0.1, betas=lambda k: 1.0),
    pf.Independence(PROPOSAL), pf.MetropolisHastings(PROPOSAL),
]  # fmt: skip


@pytest.mark.parametrize("kernel", NEVER, ids=lambda k: type(k).__name__)
def test_kernels_that_are_never_captured_say_so(kernel):
    state = running(pf.MALA(0.1)).state
    with pytest.raises(TypeError, match=r"cuda_graph|CUDA graph"):
        kernel.prepare(X).step(state, torch.tensor(0))
    assert not graphs._is_fixed(kernel)


@each_kernel
@pytest.mark.parametrize("store", ["draws", "stats"])
def test_the_loop_reads_nothing_on_the_host(gpu, kernel, store):
    captured, eager = running(kernel, store=store), running(kernel, store=store)
    native = running(kernel, pf.targets.Gaussian(torch.zeros(2), covariance=COVARIANCE), store)
    captured.graph = graphs.StepGraph(captured)
    gpu.sync = "error"
    for run in (captured, eager, native):
        run.advance(20)  # the batches of the error bars and half the run end on the way
    gpu.sync = 1
    assert native.native
    assert same(captured, eager)


PARTS = ["x", "draws", "log_density", "mean", "var", "accept_rate", "n_nonfinite", "n_divergent"]


@each_kernel
def test_a_captured_run_is_the_eager_run(gpu, kernel):
    how = {"n_steps": 12, "burn_in": 3, "thin": 2, "first_step": 5, "seed": 2, "progress": False}
    captured = pf.sample(Model().eval(), kernel, X, **how)
    assert gpu.replays == 3 + 12 + 2  # two graphs, one replay of each compared
    eager = pf.sample(Model().eval(), kernel, X, cuda_graph=False, **how)
    assert gpu.replays == 17
    for part in PARTS:
        mine, other = getattr(captured, part), getattr(eager, part)
        assert (mine is None and other is None) or torch.equal(mine, other), part
    assert not torch.equal(captured.draws[0], captured.draws[1])


@each_kernel
def test_steps_may_come_in_any_order(gpu, kernel):
    captured, eager = running(kernel), running(kernel)
    graph = graphs.StepGraph(captured)
    assert same(captured, eager)  # capturing takes no step
    for step in (0, 1, 2, 9, 10, 3):
        value = graph.step(step)
        assert torch.equal(value, eager.kernel.step(eager.state, step))
        assert same(captured, eager)


class Counting:
    """A kernel that does something else at every call, which a replay cannot know of."""

    def __init__(self, kernel, change):
        self.kernel, self.change, self.calls = kernel, change, count()

    def step(self, state, step):
        value = self.kernel.step(state, step)
        self.change(state, value, next(self.calls))
        return value


CHANGES = {
    "x": lambda state, value, n: state.x[3].add_(1e-6 * n),
    "the value": lambda state, value, n: value[3].add_(1e-6 * n),
    "NaN for 0": lambda state, value, n: value[3].fill_(torch.nan if n % 2 else 0.0),
    "a count": lambda state, value, n: state.counts.n_divergent[3].add_(n),
    "a sum": lambda state, value, n: state.moments.sum_of_squares[3].add_(n),
    "the memory": lambda state, value, n: state.memory["score"][3].add_(n),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_replay_that_differs_in_anything_is_refused(change):
    run, untried = running(pf.MALA(0.1)), running(pf.MALA(0.1))
    run.kernel = Counting(run.kernel, change)
    with pytest.raises(RuntimeError, match="a replayed step differs from the same step"):
        graphs.StepGraph(run)
    assert same(run, untried)
    run.kernel.calls = iter([1] * 5)  # the same at every call, be it NaN
    assert graphs.StepGraph(run)


# ---- captures that fail --------------------------------------------------------------------------

SYNCS, CAPTURING = "called a synchronizing CUDA", "operation not permitted when stream is capturing"
FAILURES = {
    "item": (item, {}, SYNCS),
    "mask": (mask, {}, SYNCS),
    "item, as the capture ends": (item, {"is_blind": True}, CAPTURING),
    "mask, as the capture ends": (mask, {"is_blind": True}, CAPTURING),
    "as the capture begins": (Model().eval(), {"is_busy": True}, "another capture is underway"),
}
each_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=list(FAILURES))


@each_failure
@pytest.mark.parametrize("name", ["langevin", "walk", "mala", "hmc", "underdamped"])
def test_a_failed_capture_takes_no_step(gpu, name, failure):
    target, how, cause = failure
    vars(gpu).update(how)
    run, untried = running(KERNELS[name], target), running(KERNELS[name], target)
    with pytest.warns(RuntimeWarning, match=f"runs eagerly: RuntimeError: {cause}") as warned:
        assert graphs._captured(run, required=False) is None
    assert len(warned) == 1
    assert same(run, untried)
    assert gpu.stream is gpu.callers
    assert gpu.sync == 1
    run.advance(5), untried.advance(5)
    assert same(run, untried)
    assert not torch.equal(run.x, X)


@each_failure
def test_a_required_capture_raises_its_cause(gpu, failure):
    target, how, cause = failure
    vars(gpu).update(how)
    run = running(pf.MALA(0.1), target)
    with pytest.raises(RuntimeError, match=f"cannot be captured: RuntimeError: {cause}") as raised:
        graphs._captured(run, required=True)
    assert raised.value.__cause__ is not None
    assert gpu.stream is gpu.callers
    assert torch.equal(run.x, X)


def test_what_the_caller_was_handling_is_not_the_cause(gpu):
    run = running(pf.MALA(0.1), item)
    try:
        raise KeyError("of the caller")
    except KeyError:
        with pytest.warns(RuntimeWarning, match=f"RuntimeError: {SYNCS}"):
            graphs._captured(run, required=False)


def test_a_graph_that_is_demanded_needs_a_gpu():
    with pytest.raises(ValueError, match="cuda_graph: expected a state on a GPU, got one on cpu"):
        pf.sample(item, pf.MALA(0.1), X, n_steps=2, cuda_graph=True)


# ---- what is captured without being demanded -----------------------------------------------------

compiled = partial(torch.compile, backend="eager")
positive = partial(Constrained, constraint=constraints.positive, shape=(2,))
holding = partial(SimpleNamespace, log_density=item)
FIELD, STILL = pf.lattice.Phi4((2,), kappa=0.1, lam=0.1), Model().eval()
SAME = {
    "native": pf.targets.Ring(), "phi4": FIELD, "module": STILL,
    "compiled module": compiled(STILL), "compiled function": compiled(item),
    "energy of a module": pf.Energy(STILL), "energy of a law": pf.Energy(FIELD.action),
    "constrained law": positive(pf.targets.Ring()), "constrained module": positive(STILL),
    "holds modules": holding(a=STILL, b=Model().eval(), c=3),
}  # fmt: skip
UNKNOWN = {
    "function": item, "training": Model(), "compiled, training": compiled(Model()),
    "training in part": nn.Sequential(STILL).eval().append(nn.Dropout()),
    "distribution": Normal(0.0, 1.0), "energy of a function": pf.Energy(item),
    "constrained density": positive(Normal(0.0, 1.0).log_prob),
    "holds nothing": holding(c=3), "holds one in training": holding(a=STILL, b=Model()),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SAME, *UNKNOWN])
def test_what_does_the_same_at_every_call(name):
    assert graphs._is_still({**SAME, **UNKNOWN}[name]) == (name in SAME)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["phi4", "energy of a law", "constrained law", "module"])
def test_laws_of_the_package_are_captured(name):
    assert graphs.StepGraph(running(pf.HMC(0.2, 3), SAME[name]))
