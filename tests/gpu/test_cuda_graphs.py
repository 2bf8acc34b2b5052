# SPDX-License-Identifier: Apache-2.0
"""Counters in a GPU's memory, streams, CUDA graphs, and errors."""

from functools import partial

import pytest
import torch
from on_device import (
    STEP,
    counter,
    each_device,
    each_dtype,
    let_waits_raise,
    needs_cuda,
    on,
    same,
)

import pushforward as pf
from conftest import ZOO
from pushforward import _ops
from registered_ops import state

# ---- counters, streams, graphs -------------------------------------------------------------------


def accepted(x, law, seed, step):
    y, counts, value = -x + 0.1, pf.ops.Counts.zeros(len(x), x.device), law.log_density(x)
    where = {"seed": seed, "step": step, "counts": counts, "chain_offset": 2}
    moved = pf.ops.accept_(x.clone(), y, value, law.log_density(y), **where)
    return torch.cat((moved, value[:, None], counts.accepted[:, None]), 1)


MOVES = ["langevin", "random_walk", "mala", "underdamped", "hmc", "nuts"]


def moved(x, law, move, seed, step):
    more = {
        "langevin": {"betas": torch.linspace(0.5, 1.0, 3, dtype=torch.float64).to(x.device)},
        "underdamped": {"friction": 1.0, "velocity": torch.ones_like(x)},
        "hmc": {"n_leapfrog": 2, "jitter": 0.2},
        "nuts": {"max_depth": 3},
    }.get(move, {})
    where = {"seed": seed, "first_step": step, "chain_offset": 2}
    return pf.ops.markov_run_(x.clone(), law, move, step_size=0.05, n_steps=3, **where, **more)


@pytest.mark.parametrize("dim", [3, 4])
@each_device
def test_counters_may_be_tensors(device, dim):
    x = on(device, state(50, (dim,), torch.float32, 1))
    law = pf.targets.DoubleWell(dim, mu=-2.0, b=0.7)
    calls = [
        partial(accepted, x, law),
        *(partial(moved, x, law, move) for move in MOVES),
        lambda seed, step: pf.ops.langevin(x, -x, step_size=0.1, seed=seed, step=step),
        lambda seed, step: pf.ops.diffuse(x, mean_scale=0.5, std=1.0, seed=seed),
        lambda seed, step: pf.ops.reverse_step(
            x, -x, growth=1.0, drift_scale=0.1, noise_scale=1.0, seed=seed, step=step
        ),
        lambda seed, step: pf.ops.langevin_run_(
            x.clone(), law, step_size=0.01, n_steps=3, seed=seed, first_step=step
        ),
    ]
    for call in calls:
        for seed, step in ((7, 0), (2**62 + 1, 2**33 + 5)):
            got = call(counter(seed, device), counter(step, device))
            assert same(got, call(seed, step))


@pytest.mark.parametrize("columns", [1, 4, 7])
@pytest.mark.parametrize("uniform", [False, True])
@each_device
@each_dtype
def test_noise_may_begin_at_a_tensor(device, dtype, uniform, columns):
    got, expected = torch.empty(2, 50, columns, dtype=dtype, device=device)
    what = {"uniform": uniform, "purpose": 0, "chain_offset": 5}
    unit = columns if device == "cuda" else 1  # a GPU's counts stretches of so many entries
    for seed, step in ((7, 0), (2**62 + 1, 2**33 + 5)):
        _ops.fill_(got, seed=counter(seed, device), start=counter(step, device), **what)
        _ops.fill_(expected, seed=seed, start=unit * step, **what)
        assert same(got, expected)


@needs_cuda
def test_a_side_stream_is_respected():
    source = state(1000, (3,), torch.float32, 1)
    expected = pf.ops.langevin(source, -source, step=0, **STEP)
    law = ZOO["double-well"]
    run = {"step_size": 0.01, "n_steps": 5, "seed": 3}
    expected_run = pf.ops.langevin_run_(on("cpu", source[:, [0, 1, 2, 0]]), law, **run)
    there, there_4 = on("cuda", source, source[:, [0, 1, 2, 0]])
    x, y = torch.zeros_like(there), torch.zeros_like(there_4)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # an op on another stream would read the zeros
        x.copy_(there)
        y.copy_(there_4)
        pf.ops.langevin_(x, -x, step=0, **STEP)
        pf.ops.langevin_run_(y, law, **run)
    stream.synchronize()
    assert same(x, expected)
    assert same(y, expected_run)


@each_device
def test_the_ops_wait_for_nothing(device):
    x = on(device, state(500, (4,), torch.float32, 1))
    h, bad = torch.full((500,), 0.01, device=device), torch.zeros(500, dtype=torch.int64)
    bad, out, law = bad.to(device), torch.empty_like(x), ZOO["double-well"]
    counts, value = pf.ops.Counts.zeros(500, device), torch.zeros(500, device=device)
    field, spins = torch.zeros(2, 4, 6, device=device), torch.ones(2, 4, 6, device=device)
    phi4 = pf.lattice.Phi4((4, 6), kappa=0.2, lam=0.1)
    ising = pf.lattice.Ising((4, 6), temperature=2.0)

    def loop(steps):
        for k in range(steps):
            pf.ops.langevin_(x, -x, step_size=h, seed=0, step=k)
            pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=k, out=out)
            pf.ops.commit_(x, out, bad)
            pf.ops.reverse_step_(
                x, -x, growth=1.0, drift_scale=0.1, noise_scale=0.1, seed=0, step=k
            )
            pf.ops.diffuse(x, mean_scale=0.9, std=0.1, seed=k)
            pf.ops.langevin_run_(x, law, step_size=0.01, n_steps=3, seed=k)
            pf.ops.log_density_and_score(x, law)
            pf.random.normal(500, 4, seed=k, out=out)
            pf.ops.accept_(x, out, value, value.clone(), seed=0, step=k, counts=counts)
            pf.ops.markov_run_(x, law, "mala", step_size=0.01, n_steps=2, seed=k)
            for moves, law_of, at in (
                (pf.lattice.Metropolis(width=1.0), phi4, field),
                (pf.lattice.HeatBath(), ising, spins),
            ):
                moves.advance(at, law_of, seed=0, first_step=k, n_steps=2, chain_offset=0)

    loop(1)  # the law's parameters travel once
    if device == "cuda":
        torch.cuda.synchronize()
        let_waits_raise(True)
    try:
        loop(5)
    finally:
        if device == "cuda":
            let_waits_raise(False)
    assert bool(x.isfinite().all())


def captured(body):
    """A CUDA graph of ``body``, run three times before on a side stream as torch asks."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        body()
    return graph


@needs_cuda
@pytest.mark.parametrize("dim", [2, 3, 64])
def test_graph_replays_are_the_eager_loop(dim):
    start = state(257, (dim,), torch.float32, 1)
    x, score = on("cuda", start, start)
    seed, step = counter(4, "cuda"), counter(0, "cuda")

    def body():
        torch.neg(x, out=score)
        pf.ops.langevin_(x, score, step_size=0.1, seed=seed, step=step)
        step.add_(1)

    graph = captured(body)
    for a_seed in (4, 5):
        x.copy_(start)
        seed.fill_(a_seed)
        step.fill_(7)
        expected = start.clone()
        for k in range(7, 12):
            graph.replay()
            pf.ops.langevin_(expected, -expected, step_size=0.1, seed=a_seed, step=k)
        assert int(step) == 12
        assert same(x, expected)


@needs_cuda
def test_graph_replays_of_a_run():
    law, n = ZOO["mixture-isotropic"], 10
    start = law.sample(300, seed=1)
    x, bad = on("cuda", start, torch.zeros(300, dtype=torch.int64))
    step = counter(0, "cuda")

    def body():
        pf.ops.langevin_run_(
            x, law, step_size=0.01, n_steps=n, seed=6, first_step=step, n_nonfinite=bad
        )
        step.add_(n)

    graph = captured(body)
    x.copy_(start)
    step.zero_()
    for _ in range(4):
        graph.replay()
    expected = pf.ops.langevin_run_(start.clone(), law, step_size=0.01, n_steps=4 * n, seed=6)
    assert same(x, expected)


# ---- errors --------------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("x_on", ["cpu", "cuda"])
def test_tensors_on_different_devices_are_named(x_on):
    x = on(x_on, state(6, (4,), torch.float32, 1))
    far = on("cuda" if x_on == "cpu" else "cpu", x)
    h, bad = torch.full((6,), 0.1, device=far.device), torch.zeros(6, dtype=torch.int64)
    bad, law = bad.to(far.device), ZOO["double-well"]
    calls = {
        "score": lambda: pf.ops.langevin_(x, far, step=0, **STEP),
        "out": lambda: pf.ops.langevin(x, x, step=0, out=far, **STEP),
        "step_size": lambda: pf.ops.langevin_(x, x, step_size=h, seed=0, step=0),
        "beta": lambda: pf.ops.langevin_(x, x, step_size=0.1, beta=h, seed=0, step=0),
        "mean_scale": lambda: pf.ops.diffuse(x, mean_scale=h, std=1.0, seed=0),
        "n_nonfinite": lambda: pf.ops.langevin_run_(
            x, law, step_size=0.1, n_steps=1, seed=0, n_nonfinite=bad
        ),
        "proposed": lambda: pf.ops.commit_(x, far, bad.to(x.device)),
    }
    if x_on == "cpu":
        calls["seed"] = lambda: pf.ops.langevin_(
            x, x, step_size=0.1, seed=counter(1, "cuda"), step=0
        )
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}: "):
            call()


@needs_cuda
def test_too_many_coordinates_for_shared_memory():
    dim = 100_000
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    x = torch.zeros(2, dim, device="cuda")
    with pytest.raises(RuntimeError, match="shared memory"):
        pf.ops.langevin_run_(x, law, step_size=0.1, n_steps=1, seed=0)
    torch.cuda.synchronize()  # and the device works on
    assert same(pf.random.normal(2, 3, seed=1, device="cuda"), pf.random.normal(2, 3, seed=1))


@needs_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    x = state(100, (4,), torch.float32, 1)
    expected = pf.ops.langevin_run_(
        x.clone(), ZOO["double-well"], step_size=0.01, n_steps=5, seed=1
    )
    got = pf.ops.langevin_run_(
        on("cuda:1", x), ZOO["double-well"], step_size=0.01, n_steps=5, seed=1
    )
    assert same(got, expected)
    assert torch.cuda.current_device() == 0
