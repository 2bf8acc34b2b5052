# SPDX-License-Identifier: Apache-2.0
"""The phi^4 field: torch against native, each kernel against NumPy, splits, threads, far-out fields."""

import hashlib
import math

import numpy as np
import pytest
import torch

import pushforward as pf
from lattice_reference import words
from pushforward._ops import lattice as ops
from pushforward.lattice import Metropolis, Phi4

SHAPES = [(3, 3), (7,), (1, 1), (1, 40), (32, 32), (40, 70), (2, 3, 5), (4, 2, 6, 36), (2100,)]
DTYPES = [torch.float32, torch.float64]
SEED = 2**35 + 1


def law_of(shape, n=3):
    kappa = torch.linspace(0.05, 0.3, n) / len(shape) * 2
    return Phi4(shape, kappa=kappa, lam=torch.linspace(0.05, 0.4, n), field=0.1)


def start(shape, dtype, n=3):
    volume = int(np.prod(shape))
    return pf.random.normal(n, volume, seed=2, dtype=dtype).reshape(n, *shape)


def noise(law, x, purpose, step, draw=pf.random.normal, offset=0):
    v = law.n_sites
    entries = draw(len(x), v, seed=SEED, purpose=purpose, start=step * v, chain_offset=offset,
                   dtype=x.dtype)  # fmt: skip
    return entries.reshape(x.shape)


def move(name, x, law, n_steps=1, first_step=0, chain_offset=0, **more):
    (size,) = (more.pop(key) for key in ("step_size", "width") if key in more)
    ops.phi4_run(
        name, x, law.native_parameters(x), size, seed=SEED, first_step=first_step, n_steps=n_steps,
        chain_offset=chain_offset, **more,
    )  # fmt: skip
    return x


def acceptance():
    return {k: torch.zeros(3, dtype=torch.float64) for k in ("accepted", "accepted_squares")}


def pairs(sums):
    return torch.stack((sums["accepted"], sums["accepted_squares"]), 1)


def tolerance(x):
    # A score adds up to nine terms of a few units, each rounded once or twice.
    return 60 * torch.finfo(x.dtype).eps * max(1.0, x.abs().max().item() ** 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_density_and_score_equal_torch(shape, dtype):
    law, x = law_of(shape), start(shape, dtype)
    action = law.torch_log_density(x)
    scale = (x.double() ** 4).flatten(1).sum(1).max().item() + law.n_sites
    assert (law.log_density(x) - action).abs().max() <= 8 * torch.finfo(dtype).eps * scale
    assert (law.score(x) - law.torch_score(x)).abs().max() <= tolerance(x)
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_density(at).sum(), at)
    assert (gradient - law.torch_score(x)).abs().max() <= tolerance(x)
    assert torch.equal(law.action(x), -law.log_density(x))


def test_the_sum_has_the_order_that_the_docs_state():
    law = Phi4((5, 70), kappa=0.1, lam=0.1)
    x = start((5, 70), torch.float32, 1)
    t = np.float32
    phi = x.numpy()[0]
    around = (np.roll(phi, 1, 1) + np.roll(phi, -1, 1)) + (np.roll(phi, 1, 0) + np.roll(phi, -1, 0))

    def fma(a, b, c):  # exact product, one rounding up to double rounding, absent for these numbers
        return t(np.float64(a) * np.float64(b) + np.float64(c))

    square = phi * phi
    site = fma(-phi, fma(around, t(0.1), t(0)), square * fma(square, t(0.1), t(0.8)))
    total = 0.0
    for row in site:
        chains = np.zeros(32, t)
        for i, term in enumerate(row):
            chains[i % 32] += term
        for stride in (16, 8, 4, 2, 1):
            chains[:stride] += chains[stride : 2 * stride]
        total += float(chains[0])
    assert law.log_density(x).item() == t(-total)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_langevin_equals_torch(shape, dtype):
    law, x = law_of(shape), start(shape, dtype)
    h, expected = 0.01, x.clone()
    for step in (4, 5, 6):
        xi = noise(law, x, "proposal", step, offset=7)
        expected = expected + h * law.torch_score(expected) + math.sqrt(2 * h) * xi
    got = move("langevin", x, law, 3, 4, 7, step_size=h)
    assert (got - expected).abs().max() <= tolerance(expected)


def decided(law, x, y, log_ratio, step):
    u = pf.random.uniform(len(x), 1, seed=SEED, purpose="accept", start=step, dtype=x.dtype)[:, 0]
    taken = u.log() <= log_ratio
    return torch.where(taken.reshape(-1, *[1] * (x.ndim - 1)), y, x), log_ratio.exp().clamp(max=1)


@pytest.mark.parametrize("shape", [(3, 3), (7,), (16, 40), (2, 3, 5)], ids=str)
def test_mala_and_hmc_equal_torch(shape):
    law = law_of(shape)
    for name in ("mala", "hmc"):
        x, sums = start(shape, torch.float64), acceptance()
        expected, rates = x.clone(), torch.zeros(3, 2, dtype=torch.float64)
        if name == "mala":
            h = 0.5 / law.n_sites**0.5
            for step in range(6):
                xi = noise(law, x, "proposal", step)
                y = expected + h * law.torch_score(expected) + math.sqrt(2 * h) * xi
                back = (expected - y - h * law.torch_score(y)) ** 2 / (4 * h)
                ratio = law.torch_log_density(y) - law.torch_log_density(expected)
                ratio = ratio + (xi**2 / 2 - back).flatten(1).sum(1)
                expected, rate = decided(law, expected, y, ratio, step)
                rates += torch.stack((rate, rate**2), 1)
            move("mala", x, law, 6, step_size=h, **sums)
        else:
            eps = 0.6 / law.n_sites**0.25
            for step in range(6):
                p = noise(law, x, "momentum", step)
                y, before = expected, law.torch_log_density(expected) - (p**2).flatten(1).sum(1) / 2
                for _ in range(4):
                    p = p + eps / 2 * law.torch_score(y)
                    y = y + eps * p
                    p = p + eps / 2 * law.torch_score(y)
                ratio = law.torch_log_density(y) - (p**2).flatten(1).sum(1) / 2 - before
                expected, rate = decided(law, expected, y, ratio, step)
                rates += torch.stack((rate, rate**2), 1)
            move("hmc", x, law, 6, step_size=eps, n_leapfrog=4, **sums)
        assert (x - expected).abs().max() <= 1e-10  # a few hundred roundings, which grow
        assert (pairs(sums) - rates).abs().max() <= 1e-10
        assert rates[:, 0].sum() < 18 or law.n_sites > 100  # some were refused


@pytest.mark.parametrize("shape", [(8,), (4, 6), (32, 34), (2, 4, 6)], ids=str)
def test_metropolis_equals_torch(shape):
    law, x = law_of(shape), start(shape, torch.float64)
    expected, width, parity = x.clone(), 0.9, torch.from_numpy(sum(np.indices(shape)) % 2)
    kappa, lam, field = (law.column(k, x) for k in ("kappa", "lam", "field"))

    def action(p, around):
        return p**2 * (lam * p**2 + 1 - 2 * lam) - p * (2 * kappa * around + field)

    for step in (1, 2):
        jump = width * (2 * noise(law, x, "proposal", step, pf.random.uniform) - 1)
        log_u = noise(law, x, "site", step, pf.random.uniform).log()
        for colour in (0, 1):
            y = expected + jump
            moved = torch.where(parity == colour, y, expected)
            # the action changes by the sum of the changes of sites that do not touch
            around = sum(expected.roll(s, a) for a in range(1, x.ndim) for s in (1, -1))
            fall = action(expected, around) - action(moved, around)
            expected = torch.where(log_u <= fall, moved, expected)
    Metropolis(width=width).advance(x, law, seed=SEED, first_step=1, n_steps=2, chain_offset=0)
    assert (x - expected).abs().max() <= 1e-12


RUNS = {
    "langevin": {"step_size": 0.02},
    "mala": {"step_size": 0.02},
    "hmc": {"step_size": 0.1, "n_leapfrog": 3},
    "metropolis": {"width": 0.7},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_splits_change_nothing(name, dtype):
    for shape in ((6, 10), (32, 64), (4, 2, 6)):
        law, more = law_of(shape, 5), RUNS[name]
        whole = move(name, start(shape, dtype, 5), law, 7, **more)
        timed = move(name, move(name, start(shape, dtype, 5), law, 3, **more), law, 4, 3, **more)
        assert torch.equal(timed, whole)
        for i in (0, 4):
            alone = Phi4(shape, kappa=law.kappa[i], lam=law.lam[i], field=0.1)
            x = start(shape, dtype, 5)[i : i + 1].contiguous()
            assert torch.equal(move(name, x, alone, 7, chain_offset=i, **more), whole[i : i + 1])
        steps = {k: torch.full((5,), v) if isinstance(v, float) else v for k, v in more.items()}
        same = {k: float(torch.tensor(v)) if isinstance(v, float) else v for k, v in more.items()}
        a = move(name, start(shape, dtype, 5), law, 3, **steps)
        assert torch.equal(a, move(name, start(shape, dtype, 5), law, 3, **same))


@pytest.mark.parametrize("name", RUNS)
def test_threads_change_nothing(name, restore_threads):
    for shape, n in (((500, 340), 1), ((64, 64), 9)):
        results = []
        for n_threads in (1, 2, 8):
            torch.set_num_threads(n_threads)
            law = Phi4(shape, kappa=0.2, lam=0.1)
            results.append(move(name, start(shape, torch.float32, n), law, 3, **RUNS[name]))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_share_the_one_row_of_a_dimension(name, dtype, restore_threads):
    # Stretches of it, whose terms are added in the order of the row; the last one ends anywhere.
    for n, size in ((1, 250_006), (3, 250_006 if name == "metropolis" else 200_033)):
        results = []
        for n_threads in (1, 2, 3, 8):
            torch.set_num_threads(n_threads)
            law, x, sums = law_of((size,), n), start((size,), dtype, n), acceptance()
            counts = {} if name == "langevin" else {k: v[:n] for k, v in sums.items()}
            move(name, x, law, 2, **RUNS[name], **counts)
            results.append((x, pairs(sums), law.log_density(x), law.score(x)))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("name", ["langevin", "mala", "hmc"])
def test_one_site_of_a_shared_row_refuses_the_step(name, restore_threads):
    torch.set_num_threads(3)
    for site in (0, 131_000, 250_000):
        law, before = Phi4((250_001,), kappa=0.2, lam=0.5), start((250_001,), torch.float32, 1)
        before[0, site] = 1e13  # whose score overflows
        count = torch.zeros(1, dtype=torch.int64)
        got = move(name, before.clone(), law, 2, n_nonfinite=count, **RUNS[name])
        assert count.item() == 2
        assert torch.equal(got, before)


def test_steps_that_leave_the_numbers_are_counted_and_not_taken():
    shape = (4, 6)
    law, x = Phi4(shape, kappa=0.2, lam=0.5), start(shape, torch.float32)
    x[1] *= 1e13  # whose score overflows
    before = x.clone()
    for name, more in RUNS.items():
        if name == "metropolis":
            continue
        count = torch.zeros(3, dtype=torch.int64)
        got = move(name, before.clone(), law, 5, n_nonfinite=count, **more)
        assert count.tolist() == [0, 5, 0], name
        assert torch.equal(got[1], before[1])
        others = move(name, before[2:].clone(), law, 5, chain_offset=2, **more)
        assert torch.equal(got[2:], others)


def test_the_form_with_a_mass():
    m2, g, source = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.3, 0.2, 0.0]), 0.3
    for shape in ((6,), (4, 5), (3, 2, 4)):
        law = Phi4.from_mass(shape, m2=m2, lam=g, field=source) if len(shape) != 1 else None
        if law is None:
            law = Phi4.from_mass(shape, m2=m2.abs(), lam=g, field=source)
        mass = (m2.abs() if len(shape) == 1 else m2).double().reshape(-1, *[1] * len(shape))
        x = start(shape, torch.float64)
        phi = x * law.unit_of_mass_form().reshape(-1, *[1] * len(shape))
        kinetic = sum((phi.roll(-1, a) - phi) ** 2 for a in range(1, x.ndim)) / 2
        quartic = g.double().reshape(mass.shape) * phi**4
        action = (kinetic + mass * phi**2 / 2 + quartic - source * phi).flatten(1).sum(1)
        assert torch.allclose(law.action(x), action, rtol=1e-12)


def test_frozen_bits():
    # The same on every CPU level and in the CUDA kernels; the noise contract's indexing of sites.
    digest = hashlib.sha256()
    for dtype in DTYPES:
        for shape in ((3, 3), (40,), (6, 70), (2, 4, 6), (2, 2, 2, 34)):
            law, x = law_of(shape), start(shape, dtype)
            sums = acceptance()
            for name, more in RUNS.items():
                if name != "metropolis" or all(n % 2 == 0 for n in shape):
                    decides = sums if name in ("mala", "hmc") else {}
                    move(name, x, law, 3, 2, 5, **more, **decides)
            for t in (x, pairs(sums), law.log_density(x), law.score(x)):
                digest.update(t.numpy().tobytes())
    assert digest.hexdigest()[:16] == "278f5c10d5958a62"


def test_words_of_the_reference_are_the_noise():
    u = pf.random.uniform(2, 9, seed=SEED, purpose="site", start=5, chain_offset=3)
    w = words(SEED, 10, 2, 5, 9, 3)
    assert np.array_equal(
        u.numpy(), ((2 * w.astype(np.float32).astype(float) + 1) / 2**33).astype(np.float32)
    )


def test_a_field_too_large_for_shared_memory():
    shape, h = (180, 190), 0.01
    law, x = law_of(shape), start(shape, torch.float64)
    xi = noise(law, x, "proposal", 0)
    expected = x + h * law.torch_score(x) + math.sqrt(2 * h) * xi
    assert (move("langevin", x.clone(), law, step_size=h) - expected).abs().max() <= 1e-12
    assert (law.score(x) - law.torch_score(x)).abs().max() <= 1e-12


@pytest.mark.filterwarnings("ignore:.*left the finite numbers")
@pytest.mark.parametrize("step_size", [0.1, 0.9])
def test_trajectories_with_jitter_are_those_of_a_torch_target(step_size):
    # A metric of ones, given as one, takes the path of torch targets, with the same noise.
    shape, n = (4, 6), 5
    law = pf.lattice.Phi4(shape, kappa=0.2, lam=0.3)
    x = pf.random.normal(n, 24, seed=1, dtype=torch.float64).reshape(n, *shape)
    native, by_torch = (
        pf.sample(law, pf.HMC(step_size, n_leapfrog=6, metric=m), x, n_steps=40, seed=2)
        for m in ("unit", torch.ones(24, dtype=torch.float64))
    )
    assert torch.equal(native.n_divergent, by_torch.n_divergent)
    assert bool((native.n_divergent > 5).all()) == (step_size > 0.5)
    torch.testing.assert_close(native.draws, by_torch.draws, rtol=0, atol=1e-9)
    torch.testing.assert_close(native.accept_rate, by_torch.accept_rate, rtol=0, atol=1e-9)


def test_a_warm_up_of_fields_stays_native_and_finds_a_step_for_each_coupling():
    law = pf.lattice.Phi4((6, 6), kappa=0.1, lam=torch.tensor([0.01, 0.3, 10.0]))
    x = 0.1 * pf.random.normal(3, 36, seed=3).reshape(3, 6, 6)
    for kernel in (pf.MALA(), pf.HMC(n_leapfrog=5), pf.lattice.Metropolis()):
        chains = pf.sample(law, kernel, x, warmup=200, n_steps=300, store="stats", seed=4)
        found = getattr(chains.kernel, "step_size", None)
        steps = chains.kernel.width if found is None else found
        assert steps.shape == (3,)
        assert steps.max() > 2 * steps.min()
        target = getattr(kernel, "target_accept", 0.5)
        assert ((chains.accept_rate - target).abs() < 0.17).all()
        if isinstance(kernel, pf.HMC):
            assert chains.kernel.has_unit_metric


def test_the_registered_density_has_a_gradient():
    law, x = law_of((4, 6)), start((4, 6), torch.float64)
    couplings = law.native_parameters(x).tensors()
    raw = torch.ops.pushforward
    y = x.clone().requires_grad_()
    weights = torch.arange(1.0, len(x) + 1, dtype=torch.float64)
    (weights * raw.phi4_log_density(y, *couplings)).sum().backward()
    expected = weights[:, None, None] * law.torch_score(x)
    torch.testing.assert_close(y.grad, expected, rtol=1e-12, atol=1e-12)
    assert not raw.phi4_score(y, *couplings).requires_grad
    for op in (raw.phi4_log_density, raw.phi4_score):
        torch.library.opcheck(op, (y, *couplings))
