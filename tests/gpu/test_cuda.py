# SPDX-License-Identifier: Apache-2.0
"""The public API on a GPU gives the CPU's bits."""

import pytest
import torch
from on_device import STEP, Quadratic, each_device, each_dtype, on, same

import pushforward as pf
from conftest import ZOO
from registered_ops import state

EVENTS = [(), (1,), (2,), (3,), (4, 4), (67,)]


# ---- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "n", "start"), [(1, 1, 0), (5, 7, 3), (1000, 33, 2), (3, 100_001, 1), (0, 4, 0)]
)
@each_device
@each_dtype
def test_noise(device, dtype, rows, n, start):
    for draw in (pf.random.normal, pf.random.uniform):
        where = {"seed": 2**40 + 11, "start": start, "chain_offset": 9, "purpose": "init"}
        expected = draw(rows, n, dtype=dtype, **where)
        got = draw(rows, n, dtype=dtype, device=device, **where)
        assert got.device.type == device
        assert same(got, expected)
        out = torch.empty_like(got)
        assert draw(rows, n, out=out, **where) is out
        assert same(out, expected)


@pytest.mark.parametrize("n", [1, 133])
@each_device
@each_dtype
def test_runs(device, target, dtype, n):
    x, h = target.sample(n, seed=1, dtype=dtype), torch.linspace(0.001, 0.02, n, dtype=dtype)
    more = {"beta": 0.7, "seed": 3, "n_steps": 9, "first_step": 2, "chain_offset": 5}
    expected = pf.ops.langevin_run_(x.clone(), target, step_size=h, **more)
    there, there_h = on(device, x, h)
    assert pf.ops.langevin_run_(there, target, step_size=there_h, **more) is there
    assert same(there, expected)


@pytest.mark.parametrize("field", [0.0, 0.01])
@pytest.mark.parametrize(("shape", "n_steps"), [((1024, 1024), 20), ((128, 128), 100)], ids=str)
@each_device
def test_clusters(device, shape, n_steps, field):
    # Near the critical point, where clusters are large and many threads meet in each.
    law = pf.lattice.Ising(shape, temperature=2.25, field=field)
    steps = {"seed": 4, "first_step": 2, "n_steps": n_steps, "chain_offset": 5}
    for kernel in (pf.lattice.SwendsenWang(), pf.lattice.Wolff()):
        up = pf.random.uniform(3, law.n_sites, seed=5) < 0.6
        expected = torch.where(up, 1, -1).to(torch.int8).reshape(3, *shape)
        got = expected.to(device, copy=True)
        kernel.advance(expected, law, **steps)
        kernel.advance(got, law, **steps)
        assert same(got, expected)


# Too large for the shared memory of a block, or large and few: spread over many blocks. Rows that
# fill their words and rows that do not, a single row, more lattices than blocks run at once.
SPREAD_FIELDS = [
    ((100_000,), 1, torch.float32), ((140, 150), 1, torch.float64), ((150, 180), 3, torch.float32),
    ((26, 28, 30), 3, torch.float32), ((12, 12, 12, 20), 1, torch.float64),
    ((200, 180), 300, torch.float32),
]  # fmt: skip
FIELD_KERNELS = [
    pf.Langevin(0.02), pf.MALA(0.02), pf.HMC(0.1, 3), pf.lattice.Metropolis(0.7),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "n", "dtype"), SPREAD_FIELDS, ids=str)
@pytest.mark.parametrize("kernel", FIELD_KERNELS, ids=lambda k: type(k).__name__)
@each_device
def test_fields_of_many_blocks(device, kernel, shape, n, dtype):
    n = min(n, 3) if device == "cpu" else n
    law = pf.lattice.Phi4(shape, kappa=0.1 / len(shape), lam=torch.linspace(0.05, 0.2, n))
    x = state(n, shape, dtype, 1)
    more = {"n_steps": 5 if n < 100 else 2, "store": "stats", "seed": 3, "chain_offset": 5}
    expected = pf.sample(law, kernel, x, **more)
    got = pf.sample(law, kernel, x.to(device), **more)
    assert same(got.x, expected.x)
    assert same(got.mean, expected.mean)
    assert same(got.var, expected.var)


@pytest.mark.parametrize(("shape", "n"), [((300, 518), 1), ((30, 40, 70), 2), ((1024, 96), 3)])
@pytest.mark.parametrize("kernel", [pf.lattice.Metropolis(), pf.lattice.HeatBath()], ids=str)
@each_device
def test_spins_of_many_blocks(device, kernel, shape, n):
    law = pf.lattice.Ising(shape, temperature=torch.linspace(2.0, 3.0, n), field=0.1)
    x = torch.where(state(n, shape, torch.float32, 1) > 0, 1, -1).to(torch.int8)
    more = {"n_steps": 300, "store": "stats", "seed": 3}  # more than the counters hold
    expected = pf.sample(law, kernel, x, **more)
    got = pf.sample(law, kernel, x.to(device), **more)
    assert same(got.x, expected.x)
    assert same(got.mean, expected.mean)


@pytest.mark.parametrize("n", [0, 1, 133])
@each_device
@each_dtype
def test_densities_and_scores(device, target, dtype, n):
    x = target.sample(n, seed=1, dtype=dtype)
    for got, expected in zip(
        pf.ops.log_density_and_score(on(device, x), target),
        pf.ops.log_density_and_score(x, target),
        strict=True,
    ):
        assert got.device.type == device
        assert same(got, expected)


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("n", [0, 1, 33, 1000])
@each_device
@each_dtype
def test_updates(device, dtype, n, event):
    x, score = state(n, event, dtype, 1), state(n, event, dtype, 2)
    per_chain, single = torch.linspace(0.1, 0.9, n, dtype=dtype), torch.tensor(0.3, dtype=dtype)
    for c in (0.3, single, per_chain):
        where = {"seed": 5, "chain_offset": 3}
        ops = [
            lambda x, s, c, w=where: pf.ops.langevin(x, s, step_size=c, beta=1.7, step=7, **w),
            lambda x, s, c, w=where: pf.ops.langevin_(x.clone(), s, step_size=c, step=1, **w),
            lambda x, s, c, w=where: pf.ops.diffuse(x, mean_scale=c, std=0.4, **w),
            lambda x, s, c, w=where: pf.ops.reverse_step(
                x, s, growth=1.1, drift_scale=c, noise_scale=0.2, step=2, **w
            ),
            lambda x, s, c, w=where: pf.ops.reverse_step_(
                x.clone(), s, growth=c, drift_scale=0.1, noise_scale=0.2, step=3, **w
            ),
        ]
        for op in ops:
            there = [t.to(device) if isinstance(t, torch.Tensor) else t for t in (x, score, c)]
            assert same(op(*there), op(x, score, c))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("event", [(3,), (64,)], ids=str)
@each_device
def test_updates_of_half_precision(device, half, event):
    x, h = state(33, event, torch.float32, 1).to(half), torch.linspace(0.1, 0.9, 33)
    results = []
    for where in ("cpu", device):
        at, each = on(where, x, h)
        results.append(
            [
                pf.ops.langevin(at, -at, step_size=each, seed=5, step=7),
                pf.ops.diffuse(at, mean_scale=each, std=0.4, seed=5),
                pf.ops.reverse_step(
                    at, -at, growth=1.1, drift_scale=each, noise_scale=0.2, seed=5, step=2
                ),
                pf.random.normal(5, 37, seed=6, start=1, dtype=half, device=where),
            ]
        )
    assert all(same(a, b) for a, b in zip(*results, strict=True))


@each_device
def test_a_number_may_stay_on_the_cpu(device):
    x, h = state(9, (3,), torch.float32, 1), torch.tensor(0.2)
    expected = pf.ops.langevin(x, -x, step_size=h, seed=0, step=0)
    there = on(device, x)
    assert same(pf.ops.langevin(there, -there, step_size=h, seed=0, step=0), expected)


@each_device
@each_dtype
def test_chains_that_leave_the_finite_numbers(device, dtype):
    law = ZOO["double-well"]
    x = 3 * state(200, (4,), dtype, 1)
    results = []
    for where in ("cpu", device):
        at, bad = on(where, x, torch.zeros(200, dtype=torch.int64))
        pf.ops.langevin_run_(at, law, step_size=0.1, n_steps=30, seed=2, n_nonfinite=bad)
        results.append((at, bad))
    assert results[0][1].sum() > 0
    assert all(same(a, b) for a, b in zip(*results, strict=True))
    proposed = x.clone()
    proposed[::3, 1] = torch.nan
    for where in ("cpu", device):
        at, new, bad = on(where, x, proposed, torch.zeros(200, dtype=torch.int64))
        pf.ops.commit_(at, new, bad)
        results.append((at, bad))
    assert all(same(a, b) for a, b in zip(*results[2:], strict=True))


@each_device
@each_dtype
def test_there_and_back(device, dtype):
    process = pf.diffusion.OrnsteinUhlenbeck()
    x = state(70, (5,), dtype, 1)
    results = []
    for where in ("cpu", device):
        y = process.diffuse(on(where, x), 0.7, seed=2)
        times = [1.0, 0.5, 0.2, 0.0]
        results += [y, pf.diffusion.reverse(lambda y, t: -y, process, y, times=times, seed=3)]
    assert same(results[0], results[2])
    assert same(results[1], results[3])


# ---- the driver ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixture-isotropic", "gaussian-dense-long"])
@each_device
@each_dtype
def test_sample_on_a_native_target(device, dtype, name):
    law = ZOO[name]
    x = law.sample(4000, seed=1, dtype=dtype)
    how = {"n_steps": 30, "burn_in": 5, "thin": 10, "seed": 2, "progress": False}
    expected = pf.sample(law, pf.Langevin(0.01), x, **how)
    got = pf.sample(law, pf.Langevin(0.01), on(device, x), **how)
    for part in ("x", "draws", "log_density", "mean", "var", "n_nonfinite"):
        assert getattr(got, part).device.type == device, part
        assert same(getattr(got, part), getattr(expected, part)), part
    # 4000 chains that begin in the law: six standard errors of the mean
    error = (law.covariance.diagonal() / 4000).sqrt()
    assert bool(((got.mean.cpu() - law.mean).abs() < 6 * error + 0.01).all())


@each_device
def test_sample_on_a_module(device):
    h, energy = 0.1, pf.Energy(Quadratic().to(device).eval())
    how = {"n_steps": 200, "burn_in": 100, "seed": 2, "progress": False, "store": "stats"}
    start = torch.zeros(4000, 3, device=device)
    chains = pf.sample(energy, pf.Langevin(h), start, **how)
    precision = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    expected = 1 / (precision * (1 - h * precision / 2))
    # At least 4000 * 200 h p / 4 = 20000 independent values: a relative error of 1 %, six allowed.
    assert bool(((chains.var.cpu() / expected - 1).abs() < 0.06).all())
    assert bool((chains.mean.cpu().abs() < 0.06 * expected.sqrt()).all())
    assert int(chains.n_nonfinite.sum()) == 0


@each_device
def test_gradients_and_compilation(device):
    x = state(33, (3,), torch.float32, 1)
    results = []
    for where in ("cpu", device):
        at = on(where, x).requires_grad_()
        y = pf.ops.langevin(at, 2 * at.detach(), step=1, **STEP)
        y.square().sum().backward()
        compiled = torch.compile(
            lambda x: pf.ops.langevin(x, 2 * x, step=1, **STEP), backend="aot_eager"
        )
        results.append([y, at.grad, compiled(at.detach())])
    assert all(same(a, b) for a, b in zip(*results, strict=True))
    assert same(results[0][0], results[0][2])
