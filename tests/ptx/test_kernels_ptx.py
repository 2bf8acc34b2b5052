# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels without a GPU: their PTX rounds as it must and returns the bits of the CPU."""

import math
from ctypes import c_bool, c_int64, c_uint64

import pytest
import torch

import pushforward as pf
from conftest import ZOO
from ptx import rounding
from ptx.calls import (
    BLOCK,
    CSRC,
    DTYPES,
    HALVES,
    NAMES,
    PER_BLOCK,
    SEED,
    Call,
    S,
    compile_op,
    entry,
    module,
    needs_sources,
    of_dim,
    same,
    states,
    walk,
)
from ptx.structs import functor
from pushforward import _native, _ops

HAS_WALKS = CSRC.exists() and "#error" not in (CSRC / "backend" / "backend.hpp").read_text()
pytestmark = [
    *needs_sources,
    pytest.mark.skipif(not HAS_WALKS, reason="the CUDA walks are not written yet"),
]
STORED = [*DTYPES, *HALVES]  # in memory, by the walks over elements
# Many kernels: half a minute of nvcc each.
SLOW = {"evaluate", *(f"{run}_run" for run in _native.run_kinds)}
OPS = [
    pytest.param(p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW))
    for p in sorted((CSRC / "ops").glob("*.cpp"))
    if p.stem != "table"  # which has no kernels
]


@pytest.mark.parametrize("op", OPS)
def test_every_operation_is_rounded_once(op):
    assert module(op).entries
    assert [str(v) for v in rounding.violations(compile_op(op))] == []


# ---- elements ------------------------------------------------------------------------------------

# rows, numbers a row, first entry (below zero: before the carry of the block's lower word), aligned
SHAPES = [(5, 8, 0, True), (5, 8, 0, False), (7, 5, 3, True), (3, 1, 6, True), (2, 131, -9, True)]


@pytest.mark.parametrize(("rows", "n", "start", "aligned"), SHAPES)
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("law", ["Normal", "Uniform"])
def test_fill(law, dtype, rows, n, start, aligned):
    call, out = Call(dtype), torch.zeros(rows, n, dtype=dtype)
    start += PER_BLOCK[dtype] * 2**32 if start < 0 else 0
    offset = 2**32 - 2  # so that chains carry into the upper word
    noise = call.noise("user", start, offset)
    store = functor(c_uint64(call.at(out, 0 if aligned else out.itemsize)), c_bool(False))
    call.elements(
        "fill",
        [f"{law}, "],
        (rows, n),
        noise,
        store,
        phase=start % PER_BLOCK[dtype],
        aligned=aligned,
    )
    draw = getattr(pf.random, law.lower())
    assert same(out, draw(rows, n, seed=SEED, start=start, chain_offset=offset, dtype=dtype))


def each_row(low, high, rows, dtype):
    """A coefficient a row, of the type that the kernels compute in."""
    return torch.linspace(low, high, rows, dtype=torch.float32 if dtype in HALVES else dtype)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize(("rows", "n"), [(40, 8), (9, 7)])
@pytest.mark.parametrize("one_each", [False, True])
def test_langevin(dtype, rows, n, one_each):
    call, step = Call(dtype), 5
    x, score = states(dtype, rows, n)
    h, beta = (
        (each_row(0.01, 0.3, rows, dtype), each_row(1.5, 1.5, 1, dtype)[0])
        if one_each
        else (0.1, 1.5)
    )
    expected = pf.ops.langevin_(
        x.clone(), score, step_size=h, beta=beta, seed=SEED, step=step, chain_offset=3
    )
    place = c_uint64(call.at(x))
    kernel = functor(
        place, place, c_uint64(call.at(score)), call.per_chain(h), call.per_chain(beta)
    )
    noise = call.noise("proposal", step * n, 3)
    call.elements(
        "langevin",
        ["LangevinStep"],
        (rows, n),
        noise,
        kernel,
        phase=step * n % PER_BLOCK[dtype],
        aligned=True,
    )
    assert same(x, expected)


@pytest.mark.parametrize("dtype", STORED)
def test_langevin_reads_seed_and_step_in_memory(dtype):
    rows, n, step = 11, 6, 7
    call, (x, score) = Call(dtype), states(dtype, rows, n)
    expected = pf.ops.langevin_(x.clone(), score, step_size=0.2, seed=SEED, step=step)
    seed_at, step_at = call.at(torch.tensor([SEED])), call.at(torch.tensor([step]))
    noise = call.noise("proposal", seed=1, seed_at=seed_at, step_at=step_at, per_step=n)
    place = c_uint64(call.at(x))
    kernel = functor(
        place, place, c_uint64(call.at(score)), call.per_chain(0.2), call.per_chain(1.0)
    )
    per = PER_BLOCK[dtype]
    phase = 0 if n % per == 0 else per - 1
    call.elements("langevin", ["LangevinStep"], (rows, n), noise, kernel, phase=phase, aligned=True)
    assert same(x, expected)


@pytest.mark.parametrize("dtype", STORED)
def test_diffusion(dtype):
    rows, n, step = 10, 12, 3
    (x, score), call = states(dtype, rows, n), Call(dtype)
    std, out = each_row(0, 1, rows, dtype), torch.zeros(rows, n, dtype=dtype)
    kernel = functor(
        c_uint64(call.at(out)), c_uint64(call.at(x)), call.per_chain(0.75), call.per_chain(std)
    )
    call.elements(
        "diffusion", ["::Diffuse<"], (rows, n), call.noise("forward"), kernel, phase=0, aligned=True
    )
    assert same(out, pf.ops.diffuse(x, mean_scale=0.75, std=std, seed=SEED))

    call = Call(dtype)
    expected = pf.ops.reverse_step(
        x, score, growth=1.1, drift_scale=std, noise_scale=0.3, seed=SEED, step=step
    )
    kernel = functor(
        *(c_uint64(call.at(t)) for t in (out, x, score)),
        *(call.per_chain(v) for v in (1.1, std, 0.3)),
    )
    noise = call.noise("reverse", step * n)
    call.elements("diffusion", ["ReverseStep"], (rows, n), noise, kernel, phase=0, aligned=True)
    assert same(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", _ops.MATH_FUNCTIONS)
def test_math(name, dtype):
    small = torch.finfo(dtype).smallest_normal
    edges = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        -1.0,
        small,
        small / 8,
        -small / 8,
        1e30,
        -1e30,
    ]
    spread = torch.cat(
        (torch.linspace(-110, 100, 150, dtype=dtype), torch.linspace(-1.1, 1.1, 150, dtype=dtype))
    )
    x = torch.cat((spread, spread.exp(), torch.tensor(edges, dtype=dtype)))
    if name in ("sinpi", "cospi"):
        x = x[x.abs() < 2**20]  # beyond, no value is specified
    call, out = Call(dtype), torch.zeros_like(x)
    params = S["MathParams"](function=_ops.MATH_FUNCTIONS.index(name), out=call.at(out), n=len(x))
    setattr(params, "in", call.at(x))
    run = entry("math", f"Apply<{NAMES[dtype]}>")
    call.launch(run, -(-len(x) // BLOCK), [c_int64(len(x))], params)
    assert same(out, _ops.elementwise_math(name, x))


# ---- chains --------------------------------------------------------------------------------------


def check_evaluate(target, dtype):
    n_chains = 9
    x = target.sample(n_chains, seed=1).to(dtype)
    value, score = torch.zeros(n_chains, dtype=dtype), torch.zeros_like(x)
    call = Call(dtype)
    dim, size = of_dim(target, dtype, 16)
    params, name, held = call.target(target, dim)
    p = S["EvaluateParams"](
        x=call.at(x),
        n_chains=n_chains,
        target=params,
        log_density=call.at(value),
        score=call.at(score),
    )
    parts = ["Evaluate<", f"cuda::{name}", f", {dim}"]
    call.chains("evaluate", parts, n_chains, target.dim, 0, functor(p, held, size), n_rows=5)
    expected = pf.ops.log_density_and_score(x, target)
    assert same(value, expected[0])
    assert same(score, expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluate(target, dtype):
    check_evaluate(target, dtype)


def gaussian(dim):
    return pf.targets.Gaussian(torch.zeros(dim), scale=torch.linspace(0.5, 2, dim))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 16, 33])  # beyond the zoo's
def test_evaluate_more_coordinates(dim):
    check_evaluate(gaussian(dim), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 8, 45])
@pytest.mark.parametrize("langevin", [False, True])
def test_accept(langevin, dim, dtype):
    n, step = 37, 5
    start = [*states(dtype, n, dim), *(t / 2 for t in states(dtype, n, dim))]
    values = pf.random.normal(3, n, seed=3, dtype=dtype)
    values[1, ::7], values[1, 3] = math.nan, math.inf
    beta, h = torch.linspace(0.5, 2, n, dtype=dtype), torch.linspace(0.1, 0.5, n, dtype=dtype)

    def state():
        x, y, score, next_score = (t.clone() for t in start)
        sums = torch.zeros(2, n, dim, dtype=torch.float64)
        moments = (start[1], sums[0], sums[1])
        marks = torch.full((n,), 7, dtype=torch.uint8), torch.zeros_like(x)
        return x, y, score, next_score, values.clone(), *marks, _ops.Counts.zeros(n), moments

    x, y, score, next_score, (value, next_value, correction), *marks, counts, moments = ours = (
        state()
    )
    more = {"score": score, "proposed_score": next_score, "step_size": h}
    pf.ops.accept_(
        x, y, value, next_value, seed=SEED, step=step, chain_offset=3, beta=beta, counts=counts,
        moments=moments, taken=marks[0], kept=marks[1],
        **(more if langevin else {"correction": correction}),
    )  # fmt: skip

    x, y, score, next_score, (value, next_value, correction), *marks, counts, moments = theirs = (
        state()
    )
    call = Call(dtype)
    scores = {"score": call.at(score), "proposed_score": call.at(next_score)}
    p = S["AcceptParams"](
        x=call.at(x), taken=call.at(marks[0]), kept=call.at(marks[1]), proposed=call.at(y),
        log_density=call.at(value), proposed_log_density=call.at(next_value), n_chains=n, dim=dim, langevin=langevin,
        correction=0 if langevin else call.at(correction), **(scores if langevin else {}),
        step_size=call.per_chain(h), beta=call.per_chain(beta), accept=call.noise("accept", step, 3),
        tallies=S["Tallies"](*map(call.at, counts.tensors())),
        moments=S["Moments"](*map(call.at, moments)),
    )  # fmt: skip
    walked, size = walk(dim, dtype, 8)
    parts = [f"AcceptChains<{NAMES[dtype]}", f", {walked}"]
    call.chains("accept", parts, n, dim, 0, functor(p, size), n_rows=0)
    for a, b in ((ours[:7], theirs[:7]), (ours[7].tensors(), counts.tensors()), (ours[8], moments)):
        assert all(same(u, v) for u, v in zip(a, b, strict=True))


# A run, its parameters, its rows of coordinates without the noise's, the most a thread keeps, and
# the purpose of its noise.
RUNS = {
    "langevin": ({"step_size": 0.02}, 5, 32, "proposal"),
    "random_walk": ({"step_size": 0.5}, 6, 8, "proposal"),
    "mala": ({"step_size": 0.05}, 6, 8, "proposal"),
    "underdamped": ({"step_size": 0.125, "friction": 0.75}, 8, 4, "momentum"),
    "hmc": ({"step_size": 0.125, "n_leapfrog": 2, "jitter": 0.25}, 8, 4, "momentum"),
    "nuts": ({"step_size": 0.25, "max_depth": 3}, 22, 4, "momentum"),
}
SOME = ["gaussian-plane", "gaussian-dense", "mixture-isotropic", "double-well", "ring"]


def group_parts(group, n):
    """The arrays of an open group."""
    return group[:n], group[n : 2 * n], group[2 * n : 3 * n], group[3 * n :]


def check_run(kind, target, dtype, **more):
    parameters, n_rows, largest, purpose = RUNS[kind]
    parameters = {**parameters, **more}
    n_chains, n_steps, thin, first = 6, 5, 2, 3
    start = target.sample(n_chains, seed=1).to(dtype)
    n_kept = (n_steps + 1) // thin
    depth = parameters.get("max_depth", 0)
    waiting = 3 * max(0, depth - 1) * dtype.itemsize  # bytes a coordinate, of the blocks of a tree
    if kind not in ("underdamped", "nuts"):
        parameters["beta"] = torch.linspace(0.5, 2, n_chains, dtype=dtype)

    def outputs():
        sums = [torch.zeros(n_chains, target.dim, dtype=torch.float64) for _ in range(4)]
        return (
            start.clone(), _ops.Counts.zeros(n_chains, start.device),
            (start.clone(), *sums, torch.zeros(3 * start.numel() + n_chains, dtype=dtype), 3),
            torch.zeros(n_kept, n_chains, target.dim, dtype=dtype), torch.zeros(n_kept, n_chains, dtype=dtype),
            start.flip(0).contiguous(),
        )  # fmt: skip

    x, counts, moments, draws, value, velocity = expected = outputs()
    _ops.run_chunk(
        kind, x, target.native(x), {**parameters, **({"velocity": velocity} if kind == "underdamped" else {})},
        seed=SEED, first_step=first, n_steps=n_steps, chain_offset=7, counts=counts.tensors(),
        steps_done=1, thin=thin, draws=draws, log_density=value, moments=moments,
    )  # fmt: skip

    x, counts, moments, draws, value, velocity = outputs()
    call = Call(dtype)
    dim, size = of_dim(target, dtype, largest)
    params, name, held = call.target(target, dim, largest)
    coefficients = {
        k: call.per_chain(parameters.get(k, 1.0)) for k in ("step_size", "beta", "friction")
    }
    p = S["RunParams"](
        x=call.at(x), n_chains=n_chains, target=params, **coefficients,
        velocity=call.at(velocity), n_leapfrog=parameters.get("n_leapfrog", 1),
        jitter=parameters.get("jitter", 0.0), jitter_noise=call.noise("adaptation", first, 7),
        max_depth=depth, tree=call.noise("tree", first << depth, 7),
        noise=call.noise(purpose, first * target.dim, 7), accept=call.noise("accept", first, 7),
        n_steps=n_steps, steps_done=1, thin=thin, draws=call.at(draws), log_density=call.at(value),
        tallies=S["Tallies"](*map(call.at, counts.tensors())),
        moments=S["Moments"](*map(call.at, moments[:5]), 3, S["OpenGroup"](*map(call.at, group_parts(moments[5], start.numel())))),
    )  # fmt: skip
    parts = ["RunChains<", f"cuda::{name}", f", {dim}"]
    call.chains(
        f"{kind}_run", parts, n_chains, target.dim, (4 * dtype.itemsize + waiting) * target.dim,
        functor(p, held, size), n_rows=n_rows + 1,
    )  # fmt: skip
    theirs = (expected[0], *expected[1].tensors(), *expected[2][:6], *expected[3:])
    ours = (x, *counts.tensors(), *moments[:6], draws, value, velocity)
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step_size", [0.02, 1e9])  # the second soon leaves the finite numbers
def test_langevin_run(target, dtype, step_size):
    check_run("langevin", target, dtype, step_size=step_size)


@pytest.mark.slow
@pytest.mark.parametrize(  # all that a thread keeps, and one more than a warp has lanes
    ("kind", "dim"),
    [(k, d) for k in RUNS for d in (1, 2, 3, 4, 8, 16, 32, 33) if d <= RUNS[k][2] or d == 33],
)
def test_numbers_of_coordinates(kind, dim):
    check_run(kind, gaussian(dim), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("kind", [k for k in RUNS if k != "langevin"])
def test_runs(kind, name, dtype):
    check_run(kind, ZOO[name], dtype)
