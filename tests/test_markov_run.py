# SPDX-License-Identifier: Apache-2.0
"""Many steps of a kernel in somebody else's loop: the same as in `sample`, traced or not."""

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import lattice
from pushforward._ops.arguments import BatchMoments
from pushforward._ops.lattice import Phi4Parameters, ising_sweeps, phi4_run

LAW = pf.targets.Gaussian(torch.tensor([1.0, -1.0]), scale=torch.tensor([1.0, 0.5]))
TRIANGLE = torch.tensor([[1.0, 0.0], [0.25, 0.5]])
CENTER, SCALES = torch.ones(2), torch.tensor([0.5, 0.75])
BETAS = torch.linspace(0.5, 2, 9, dtype=torch.float64)
# A move, its arguments, and the kernel of `sample` that takes the same steps.
CALLS = {
    "langevin": ("langevin", {"step_size": 0.1, "beta": 1.5}, pf.Langevin(0.1, beta=1.5)),
    "annealed": (
        "langevin", {"step_size": 0.1, "betas": BETAS}, pf.AnnealedLangevin(0.1, betas=BETAS),
    ),
    "random walk": ("random_walk", {"step_size": 0.5, "beta": 0.5}, pf.RandomWalk(0.5, beta=0.5)),
    "dense": ("random_walk", {"step_size": 1.0, "metric": TRIANGLE}, pf.RandomWalk(TRIANGLE)),
    "autoregressive": (
        "random_walk",
        {"proposal": "autoregressive", "metric": SCALES, "center": CENTER, "persistence": 0.5},
        pf.MetropolisHastings(pf.mcmc.Autoregressive(0.5, scale=SCALES, center=CENTER)),
    ),
    "mala": ("mala", {"step_size": 0.2}, pf.MALA(0.2)),
    "hmc": (
        "hmc", {"step_size": 0.3, "n_leapfrog": 3, "jitter": 0.2},
        pf.HMC(0.3, n_leapfrog=3, jitter=0.2),
    ),
    "nuts": ("nuts", {"step_size": 0.4, "max_depth": 4}, pf.NUTS(0.4, max_depth=4)),
}  # fmt: skip
RUN = {"n_steps": 9, "seed": 3, "chain_offset": 5}


def start(n=37):
    return pf.random.normal(n, 2, seed=1)


@pytest.mark.parametrize(("move", "arguments", "kernel"), CALLS.values(), ids=CALLS)
def test_the_steps_are_those_of_sample(move, arguments, kernel):
    chains = pf.sample(LAW, kernel, start(), store="stats", progress=False, **RUN)
    x, counts = start(), pf.ops.Counts.zeros(37)
    assert pf.ops.markov_run_(x, LAW, move, counts=counts, **arguments, **RUN) is x
    assert torch.equal(x, chains.x)
    if chains.accept_rate is not None:
        assert torch.equal(counts.accepted / 9, chains.accept_rate)


@pytest.mark.parametrize(("move", "arguments", "kernel"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("n", [0, 1, 37])
def test_what_is_not_counted_does_not_matter(n, move, arguments, kernel):
    x, y = start(n), start(n)
    pf.ops.markov_run_(x, LAW, move, **arguments, **RUN)
    pf.ops.markov_run_(y, LAW, move, counts=pf.ops.Counts.zeros(n), **arguments, **RUN)
    assert torch.equal(x, y)
    if move == "langevin":
        z = pf.ops.langevin_run_(start(n), LAW, step_size=0.1, beta=1.5, **RUN)
        assert torch.equal(z, x) == ("beta" in arguments or n == 0)


def test_a_velocity_goes_on():
    arguments = {"step_size": 0.2, "friction": 0.5, "seed": 3}
    once, velocity = start(), torch.zeros(37, 2)
    pf.ops.markov_run_(once, LAW, "underdamped", velocity=velocity, n_steps=9, **arguments)
    x, v = start(), torch.zeros(37, 2)
    for first, n in ((0, 4), (4, 5)):
        pf.ops.markov_run_(
            x, LAW, "underdamped", velocity=v, n_steps=n, first_step=first, **arguments
        )
    assert torch.equal(x, once)
    assert torch.equal(v, velocity)
    assert bool((v != 0).all())


def test_arrays():
    x, v = start().numpy().copy(), np.zeros((37, 2), dtype=np.float32)
    more = {"step_size": 0.2, "friction": 0.5, "n_steps": 9, "seed": 3}
    assert pf.ops.markov_run_(x, LAW, "underdamped", velocity=v, **more) is x
    t, u = start(), torch.zeros(37, 2)
    pf.ops.markov_run_(t, LAW, "underdamped", velocity=u, **more)
    assert np.array_equal(x, t.numpy())
    assert np.array_equal(v, u.numpy())


@pytest.mark.parametrize("move", ["mala", "hmc", "dense", "annealed", "autoregressive"])
def test_compiled_equals_eager(move):
    move, arguments, _ = CALLS[move]

    def steps(x):
        y, counts = x.clone(), pf.ops.Counts.zeros(len(x))
        pf.ops.markov_run_(y, LAW, move, counts=counts, **arguments, **RUN)
        return y, counts.accepted

    compiled = torch.compile(steps, fullgraph=True, backend="aot_eager")
    for a, b in zip(steps(start()), compiled(start()), strict=True):
        assert torch.equal(a, b)


FIELDS = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1)
SPINS = pf.lattice.Ising((4, 4), temperature=2.0)


@pytest.mark.parametrize(
    ("kernel", "law"),
    [
        (lattice.Metropolis(), SPINS), (lattice.HeatBath(), SPINS), (lattice.Wolff(), SPINS),
        (lattice.SwendsenWang(), SPINS), (lattice.Metropolis(width=0.5), FIELDS),
    ],
)  # fmt: skip
def test_compiled_lattices_equal_eager(kernel, law):
    def moved(x):
        y = x.clone()
        kernel.advance(y, law, seed=1, first_step=2, n_steps=3, chain_offset=4)
        return y, law.log_density(y)

    x = torch.ones(5, 4, 4)
    compiled = torch.compile(moved, fullgraph=True, backend="aot_eager")
    for a, b in zip(moved(x), compiled(x), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(moved(x)[0], x)


def test_compiled_sums_equal_eager():
    def moved(x, phi, step_size):
        y, field = x.clone(), phi.clone()
        run = {"seed": 1, "first_step": 2, "n_steps": 4, "chain_offset": 4, "steps_done": 2}
        wide = [torch.zeros(x.shape, dtype=torch.float64) for _ in range(8)]
        of_x = BatchMoments(x, *wide[:4], None, 3)
        t = torch.tensor(2.0, dtype=torch.float64)
        ising_sweeps(
            y, temperature=t, field=0 * t, no_field=True, heat_bath=True, moments=of_x, **run
        )
        law = Phi4Parameters(0.1 * t, 0.05 * t, 0 * t)
        phi4_run("langevin", field, law, step_size, moments=(phi, *wide[4:6]), **run)
        return y, field, *wide

    x, phi = torch.ones(5, 4, 4), pf.random.normal(5, 16, seed=2).reshape(5, 4, 4)
    compiled = torch.compile(moved, fullgraph=True, backend="aot_eager")
    expected = moved(x, phi, 0.1)
    for step_size in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        for a, b in zip(expected, compiled(x, phi, step_size), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(expected, moved(x, phi, step_size), strict=True):
            assert torch.equal(a, b)
    assert sum(bool(sums.any()) for sums in expected[2:]) == 6


def test_compiled_fields_have_gradients():
    x = pf.random.normal(3, 16, seed=2).reshape(3, 4, 4).requires_grad_()
    value = torch.compile(FIELDS.log_density, fullgraph=True, backend="aot_eager")
    value(x).sum().backward()
    assert torch.allclose(x.grad, FIELDS.score(x.detach()), atol=1e-5)


@pytest.mark.parametrize(
    ("move", "given", "says"),
    [
        ("gibbs", {"step_size": 0.1}, "move: expected one of langevin, "),
        ("mala", {}, "step_size: expected a value, which mala needs"),
        ("mala", {"step_size": 0.1, "friction": 1.0}, "friction: expected None, since mala"),
        ("nuts", {"step_size": 0.1, "beta": 2.0}, "beta: expected None, since nuts"),
        ("underdamped", {"step_size": 0.1, "friction": 1.0}, "velocity: expected a value"),
        ("random_walk", {"step_size": 1.0, "proposal": "cauchy"}, "proposal: expected one of"),
        ("random_walk", {"step_size": 1.0, "center": CENTER}, "center, persistence: expected None"),
        (
            "random_walk",
            {"proposal": "autoregressive", "metric": TRIANGLE, "center": CENTER, "persistence": 0.5},
            "proposal: expected a center and a diagonal metric",
        ),
        ("random_walk", {"proposal": "autoregressive", "step_size": 1.0}, "step_size: expected None"),
        (
            "random_walk",
            {"proposal": "autoregressive", "metric": SCALES, "center": CENTER, "persistence": 1.0},
            "persistence: expected -1 < persistence < 1, got 1.0",
        ),
        ("hmc", {"step_size": 0.1, "jitter": float("nan")}, "jitter: expected 0 <= jitter < 1"),
        ("hmc", {"step_size": 0.1, "jitter": "x"}, "jitter: expected a number, got str"),
        ("mala", {"step_size": -0.1}, "step_size: expected"),
        ("hmc", {"step_size": 0.1, "n_leapfrog": 0}, "n_leapfrog: expected at least 1"),
        ("hmc", {"step_size": 0.1, "metric": torch.ones(3)}, "metric: expected"),
        ("nuts", {"step_size": 0.1, "max_depth": 30}, "max_depth: expected at most 20"),
        ("langevin", {"step_size": 0.1, "betas": torch.ones(2)}, "betas: expected"),
    ],
)  # fmt: skip
def test_what_a_move_does_not_take_is_refused(move, given, says):
    x = start()
    with pytest.raises((ValueError, TypeError), match=says):
        pf.ops.markov_run_(x, LAW, move, **given, **RUN)
    assert torch.equal(x, start())


def test_gradients_and_other_targets_are_refused():
    x = start().requires_grad_()
    with pytest.raises(ValueError, match="do not require grad"):
        pf.ops.markov_run_(x, LAW, "mala", step_size=0.1, **RUN)
    with pytest.raises(TypeError, match="expected a native target"):
        pf.ops.markov_run_(start(), lambda x: -x, "mala", step_size=0.1, **RUN)
