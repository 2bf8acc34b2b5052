# SPDX-License-Identifier: Apache-2.0
"""Lattices in the driver: draws, statistics, splits, checkpoints, laws."""

import pytest
import torch

import pushforward as pf
from pushforward.storage import DrawStore

ISING = pf.lattice.Ising((8, 8), temperature=2.5)
PHI4 = pf.lattice.Phi4((8, 8), kappa=0.2, lam=0.02)
KERNELS = {
    "metropolis": (ISING, pf.lattice.Metropolis()),
    "heat bath": (ISING, pf.lattice.HeatBath()),
    "wolff": (ISING, pf.lattice.Wolff()),
    "swendsen-wang": (ISING, pf.lattice.SwendsenWang()),
    "phi4 metropolis": (PHI4, pf.lattice.Metropolis(width=1.0)),
    "phi4 langevin": (PHI4, pf.Langevin(0.02)),
    "phi4 mala": (PHI4, pf.MALA(0.05)),
    "phi4 hmc": (PHI4, pf.HMC(0.1, 5, jitter=0.0)),
    "phi4 hmc in torch": (PHI4, pf.HMC(0.1, 5)),
}


def start(law, n=5):
    if law is ISING:
        spins = pf.random.uniform(n, 64, seed=3).reshape(n, 8, 8) < 0.5
        return (2 * spins.to(torch.int8) - 1).to(torch.int8)
    return pf.random.normal(n, 64, seed=3).reshape(n, 8, 8)


@pytest.fixture(params=KERNELS)
def case(request):
    return KERNELS[request.param]


def test_draws_and_statistics(case):
    law, kernel = case
    chains = pf.sample(law, kernel, start(law), n_steps=30, thin=3, burn_in=2, seed=1)
    assert chains.draws.shape == (10, 5, 8, 8)
    assert chains.draws.dtype == start(law).dtype
    every = pf.sample(law, kernel, start(law), n_steps=32, seed=1)
    assert torch.equal(chains.draws, every.draws[2:][2::3])
    assert torch.equal(chains.log_density, every.log_density[2:][2::3])
    states = every.draws[2:].double()
    assert torch.allclose(chains.mean, states.mean((0, 1)), atol=1e-6)  # sums of eight in float32
    assert torch.allclose(chains.var, states.var((0, 1)), atol=1e-6)
    expected = torch.stack([law.log_density(d) for d in every.draws])
    assert torch.allclose(every.log_density.double(), expected.double(), rtol=1e-4, atol=1e-3)
    last = pf.sample(law, kernel, start(law), n_steps=32, store="last", seed=1)
    assert torch.equal(last.x, every.x)
    if chains.accept_rate is not None:
        assert ((chains.accept_rate > 0.2) & (chains.accept_rate <= 1)).all()
    assert chains.mcse.shape == (8, 8)


def test_sums_in_a_call_are_the_sums_of_steps(case):
    # With draws the driver looks up after every step; without, a call takes all there are.
    law, kernel = case
    call = {"n_steps": 41, "burn_in": 2, "seed": 1}
    each = pf.sample(law, kernel, start(law), thin=1, **call).tallies
    once = pf.sample(law, kernel, start(law), store="stats", **call).tallies
    for name, value in vars(each).items():
        other = getattr(once, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize(
    ("law", "width"),
    [
        (PHI4, torch.tensor([0.3, 1.0, 2.0])),
        (pf.lattice.Ising((8, 8), temperature=torch.tensor([9.0, 2.5, 1.5])), None),
        (pf.lattice.Ising((16, 18), temperature=torch.tensor([9.0, 2.5, 1.5])), None),
    ],
    ids=["phi4", "ising in groups", "ising in strings"],
)
def test_site_moves_count_the_sites_that_moved(law, width):
    kernel = pf.lattice.Metropolis(width=width)
    x = pf.random.normal(3, law.n_sites, seed=3).reshape(3, *law.shape)
    x = x if law is PHI4 else x.sign().to(torch.int8)
    chains = pf.sample(law, kernel, x, n_steps=20, seed=1)
    streamed = pf.sample(law, kernel, x, n_steps=20, seed=1, store="stats")
    assert torch.equal(chains.accept_rate, streamed.accept_rate)
    assert torch.equal(chains.accept_var, streamed.accept_var)
    before = torch.cat((x[None], chains.draws[:-1]))
    share = (chains.draws != before).double().mean((2, 3))
    assert torch.allclose(chains.accept_rate, share.mean(0), atol=1e-12)
    assert torch.allclose(chains.accept_var, share.var(0), atol=1e-12)
    assert (chains.accept_rate.diff() < 0).all()


@pytest.mark.parametrize("width", [None, 30.0, torch.tensor([1e-3, 1.0, 30.0])])
def test_a_warm_up_finds_the_width_of_site_moves(width, tmp_path):
    kernel = pf.lattice.Metropolis(width=width)
    call = {"warmup": 120, "n_steps": 30, "seed": 2}
    whole = pf.sample(PHI4, kernel, start(PHI4, 3), **call)
    assert isinstance(whole.kernel, pf.lattice.Metropolis)
    assert abs(whole.accept_rate.mean() - 0.5) < 0.05

    def stop(step, x):
        if step in (30, 100, 130):
            raise InterruptedError

    kept = {"checkpoint": tmp_path / "run", "every": 10}
    for _ in range(3):
        with pytest.raises(InterruptedError):
            pf.sample(PHI4, kernel, start(PHI4, 3), callback=stop, **kept, **call)
    resumed = pf.sample(PHI4, kernel, start(PHI4, 3), **kept, **call)
    assert torch.equal(whole.draws, resumed.draws)
    assert torch.equal(whole.accept_rate, resumed.accept_rate)
    assert type(resumed.kernel.width) is float
    assert whole.kernel.width == resumed.kernel.width
    with pytest.raises(ValueError, match="width: expected the width of a site's moves"):
        pf.sample(PHI4, pf.lattice.Metropolis(), start(PHI4, 3), n_steps=1)
    with pytest.raises(ValueError, match="warmup: expected 0"):
        pf.sample(ISING, pf.lattice.Metropolis(), start(ISING), n_steps=1, warmup=30)


@pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")
def test_steps_that_are_not_taken_are_not_counted():
    x = start(PHI4, 4)
    x[1] *= 30  # from there the first steps lead ever further out
    chains = pf.sample(PHI4, pf.Langevin(0.05), x, n_steps=12, seed=3)
    assert chains.n_nonfinite[1] > 0
    assert (chains.n_nonfinite[[0, 2, 3]] == 0).all()
    before = torch.cat((x[None], chains.draws[:-1]))
    taken = (chains.draws != before).any(3).any(2)
    assert torch.equal((~taken).sum(0), chains.n_nonfinite)
    mean = chains.draws[taken].double().mean(0)
    assert torch.allclose(chains.mean, mean, rtol=1e-6)


def test_runs_are_cut_and_split_bit_for_bit(case):
    law, kernel = case
    whole = pf.sample(law, kernel, start(law), n_steps=9, seed=2)
    first = pf.sample(law, kernel, start(law), n_steps=4, seed=2)
    rest = pf.sample(law, first.kernel, first.x, n_steps=5, seed=2, first_step=first.next_step)
    assert torch.equal(whole.draws, torch.cat((first.draws, rest.draws)))
    parts = [
        pf.sample(law, kernel, start(law)[a:b], n_steps=9, seed=2, chain_offset=a)
        for a, b in ((0, 2), (2, 5))
    ]
    assert torch.equal(whole.draws, torch.cat([p.draws for p in parts], 1))


def test_checkpoints(case, tmp_path):
    law, kernel = case
    call = {"n_steps": 12, "seed": 4}
    whole = pf.sample(law, kernel, start(law), **call)

    class Stop(Exception):
        pass

    def callback(step, x):
        if step >= 5:
            raise Stop

    more = {"checkpoint": tmp_path / "run", "every": 2}
    fresh = type(law).__new__(type(law))  # one that has not been used yet, as in another process
    fresh.__setstate__(law.__getstate__())
    with pytest.raises(Stop):
        pf.sample(fresh, kernel, start(law), callback=callback, **call, **more)
    resumed = pf.sample(fresh, kernel, start(law), **call, **more)
    assert torch.equal(whole.draws, resumed.draws)
    assert torch.equal(whole.mean, resumed.mean)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
def test_draws_of_spins_on_disk(dtype, tmp_path):
    pytest.importorskip("zarr")
    law, x = pf.lattice.Ising((4, 6), temperature=2.5), torch.ones(3, 4, 6, dtype=dtype)
    call = {"n_steps": 50, "thin": 3, "seed": 1}
    memory = pf.sample(law, pf.lattice.Metropolis(), x, **call)
    path = tmp_path / "draws.zarr"

    def interrupt(step, x):
        if step >= 20:
            raise InterruptedError

    kept = {"store": path, "checkpoint": tmp_path / "run", "every": 7}
    with pytest.raises(InterruptedError):
        pf.sample(law, pf.lattice.Metropolis(), x, callback=interrupt, **kept, **call)
    pf.sample(law, pf.lattice.Metropolis(), x, **kept, **call)
    store = DrawStore.open(path)
    draws, log_density = store.read()
    assert store.dtype == draws.dtype == dtype
    assert torch.equal(draws, memory.draws)
    assert torch.equal(log_density, memory.log_density)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [pf.lattice.Metropolis(), pf.lattice.Wolff()], ids=repr)
def test_spins_of_every_type_are_the_same_spins(kernel, dtype):
    law, call = pf.lattice.Ising((4, 6), temperature=2.5), {"n_steps": 40, "thin": 2, "seed": 8}
    x = torch.ones(3, 4, 6, dtype=torch.int8)
    bytes_, typed = (pf.sample(law, kernel, y, **call) for y in (x, x.to(dtype)))
    stats = pf.sample(law, kernel, x.to(dtype), store="stats", **call)
    assert typed.draws.dtype == typed.x.dtype == stats.x.dtype == dtype
    assert torch.equal(typed.draws, bytes_.draws.to(dtype))
    assert torch.equal(typed.x, bytes_.x.to(dtype))
    for name in ("mean", "var", "mcse"):
        assert torch.allclose(getattr(typed, name).double(), getattr(bytes_, name), rtol=1e-6)
        assert getattr(stats, name).dtype == torch.float64
    if dtype.itemsize == 2:  # sums of spins do not fit these
        assert torch.equal(typed.log_density, bytes_.log_density)
        big = pf.lattice.Ising((256, 256), temperature=1.0)
        assert big.energy(torch.ones(1, 256, 256, dtype=dtype)) == -(2**17)
    first = pf.sample(law, kernel, x.to(dtype), n_steps=16, seed=8)
    rest = pf.sample(law, kernel, first.x, n_steps=24, seed=8, first_step=first.next_step)
    assert torch.equal(rest.x, typed.x)


@pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")  # far tails of x^4
def test_phi4_in_the_driver_has_the_exact_moments():
    # The 3 x 3 torus in the hopping form, by transfer matrix.
    law, n = pf.lattice.Phi4((3, 3), kappa=0.2, lam=0.02), 4000
    for kernel in (
        pf.MALA(),
        pf.HMC(n_leapfrog=6),
        pf.HMC(n_leapfrog=6, metric="unit", jitter=0.0),
    ):
        chains = pf.sample(
            law, kernel, torch.zeros(n, 3, 3), warmup=150, burn_in=100, n_steps=1, seed=5
        )
        squares = chains.x.double().square().mean((1, 2))
        assert abs(squares.mean() - 0.65842) < 5.5 * squares.std() / n**0.5


@pytest.mark.filterwarnings("ignore:observables. .* of M,:RuntimeWarning")  # T < T_c
def test_observables_of_a_run():
    law = pf.lattice.Ising((4, 4), temperature=2.0)
    x = torch.ones(50, 4, 4, dtype=torch.int8)
    chains = pf.sample(law, pf.lattice.HeatBath(), x, n_steps=2000, burn_in=50, seed=6)
    table = pf.lattice.observables(chains, law)
    value, error = table.energy
    assert abs(float(value) - -1.75538029) < 5.5 * float(error)
    assert 0 < float(error) < 0.01


@pytest.mark.parametrize(
    "kernel",
    [
        pf.RandomWalk(0.5), pf.MALA(0.1), pf.HMC(0.1), pf.NUTS(0.1), pf.Langevin(0.1),
        pf.UnderdampedLangevin(0.1, 1.0),
        pf.Independence(torch.distributions.Normal(torch.zeros(8, 8), torch.ones(8, 8))),
    ],
    ids=lambda kernel: type(kernel).__name__,
)  # fmt: skip
def test_kernels_of_real_numbers_are_refused_for_spins(kernel):
    for dtype in (torch.float32, torch.int8):
        with pytest.raises(ValueError, match=r"kernel: expected lattice\.Metropolis, .*for Ising"):
            pf.sample(ISING, kernel, start(ISING).to(dtype), n_steps=1)


def test_wrong_kernels_and_states_are_named():
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match="x: expected int8, float16, bfloat16, float32 or"):
            pf.sample(ISING, pf.lattice.HeatBath(), start(ISING).to(dtype), n_steps=1)
    with pytest.raises(ValueError, match=r"x: expected spins \+1 and -1, got -?0.5"):
        pf.sample(ISING, pf.lattice.HeatBath(), start(ISING).half() / 2, n_steps=1)
    with pytest.raises(TypeError, match="target: expected Ising"):
        pf.sample(PHI4, pf.lattice.Wolff(), start(PHI4), n_steps=1)
    with pytest.raises(TypeError, match="x: expected float32 or float64"):
        pf.sample(PHI4, pf.MALA(0.1), start(ISING), n_steps=1)
    with pytest.raises(ValueError, match=r"x: "):
        pf.sample(ISING, pf.lattice.HeatBath(), start(ISING) * 2, n_steps=1)
    odd = pf.lattice.Ising((5, 5), temperature=1.0)
    with pytest.raises(ValueError, match="even"):
        pf.sample(odd, pf.lattice.Metropolis(), torch.ones(2, 5, 5), n_steps=1)
    with pytest.raises(ValueError, match="warmup"):
        pf.sample(ISING, pf.lattice.HeatBath(), start(ISING), warmup=30, n_steps=1)
