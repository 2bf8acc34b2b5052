# SPDX-License-Identifier: Apache-2.0
"""Streaming sums of native runs: their definition, any cut of a run, steps that do not count."""

import math
import signal
import warnings

import pytest
import torch

import pushforward as pf
from conftest import totals_of
from pushforward import _ops, sums
from pushforward._ops.arguments import BatchMoments

N = 42  # steps; three groups of sixteen begin


def begun(x, batch):
    wide = [torch.zeros(x.shape, dtype=torch.float64) for _ in range(4)]
    return BatchMoments(x + 1, *wide, x.new_zeros(3 * x.numel() + len(x)), batch)


def run(kind, x, law, moments, cuts, **parameters):
    """Steps 0 to N in calls that end at ``cuts``; all states."""
    counts, states = _ops.Counts.zeros(len(x)), []
    for begin, end in zip((0, *cuts), (*cuts, N), strict=True):
        draws = x.new_empty((end - begin, *x.shape))
        _ops.run_chunk(
            kind, x, law.native(x), parameters, seed=1, first_step=begin, n_steps=end - begin,
            chain_offset=3, counts=counts.tensors(), steps_done=begin, draws=draws, moments=moments,
        )  # fmt: skip
        states.append(draws)
    return torch.cat(states), counts


def by_definition(moments, states, counted, batch):
    """All sums of the states, the open group's too, as they would be in float64."""
    off = torch.where(counted[..., None], states.double() - moments.shift.double(), 0)
    total = off.cumsum(0)
    ends = total[batch - 1 :: batch]
    grown = ends.diff(dim=0, prepend=torch.zeros_like(ends[:1])) if len(ends) else ends
    at_batch = ends[-1] if len(ends) else torch.zeros_like(total[0])
    return total[-1], off.square().sum(0), at_batch, grown.square().sum(0)


def all_sums(moments):
    return *totals_of(moments), moments.sum_at_batch, moments.batch_squares


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [3, 8, 100])
@pytest.mark.parametrize(("n_chains", "dim"), [(5, 1), (40, 2), (3, 37), (2, 300)])
@pytest.mark.parametrize("kind", ["mala", "langevin"])
def test_sums_are_those_of_the_states_however_a_run_is_cut(kind, n_chains, dim, batch, dtype):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    start = pf.random.normal(n_chains, dim, seed=2, dtype=dtype)
    parameters = {"step_size": 0.2 / dim**0.33, "beta": 1.0}
    whole = begun(start, batch)
    states, _ = run(kind, start.clone(), law, whole, (), **parameters)
    for cuts in ((16, 32), (1, 2, 9), (8, 24), (5,), (21, 40)):
        parts = begun(start, batch)
        run(kind, start.clone(), law, parts, cuts, **parameters)
        assert all(torch.equal(a, b) for a, b in zip(all_sums(whole), all_sums(parts), strict=True))
        assert torch.equal(whole.open_group, parts.open_group)
    counted = torch.ones(N, n_chains, dtype=torch.bool)
    rtol = 1e-12 if dtype == torch.float64 else 3e-6
    for found, value in zip(
        all_sums(whole), by_definition(whole, states, counted, batch), strict=True
    ):
        assert torch.allclose(found, value, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("cuts", [(), (3, 11)])
def test_steps_that_are_not_taken_add_nothing(cuts):
    law = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))
    start = pf.random.normal(40, 3, seed=2, dtype=torch.float64)
    step_size = torch.full((40,), 0.1, dtype=torch.float64)
    step_size[::7] = 1e300
    moments = begun(start, 5)
    states, counts = run(
        "langevin", start.clone(), law, moments, cuts, step_size=step_size, beta=1.0
    )
    assert (counts.n_nonfinite[::7] > 0).all()
    before = torch.cat((start[None], states[:-1]))
    counted = ~(states == before).all(2)
    assert torch.equal((~counted).sum(0), counts.n_nonfinite)
    for found, value in zip(
        all_sums(moments), by_definition(moments, states, counted, 5), strict=True
    ):
        assert torch.allclose(found, value, rtol=1e-12, atol=1e-12)


def test_sums_without_an_open_group_take_each_step_alone():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    start = pf.random.normal(33, 2, seed=2, dtype=torch.float64)
    each, grouped = begun(start, 4)._replace(open_group=None), begun(start, 4)
    states, _ = run("mala", start.clone(), law, each, (6,), step_size=0.5, beta=1.0)
    run("mala", start.clone(), law, grouped, (), step_size=0.5, beta=1.0)
    off = states - each.shift
    assert torch.allclose(each.sum, off.sum(0), rtol=1e-13)
    assert torch.allclose(totals_of(each)[0], totals_of(grouped)[0], rtol=1e-13)
    assert torch.allclose(totals_of(each)[1], totals_of(grouped)[1], rtol=1e-13)


FAR = {
    "in one step": (256.0, 0.1, pf.MALA(0.01)),
    "a power of two": (1.0, 3e-4, pf.MetropolisHastings(pf.mcmc.Autoregressive(0.0, 3e-4, 1.0))),
    "slowly": (3e4, 1.0, pf.Langevin(0.3)),
    "of a narrow law": (1e6, 0.5, pf.HMC(0.3, n_leapfrog=3)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FAR)
@pytest.mark.parametrize("n_steps", [2000, 2003])
def test_statistics_of_chains_that_started_far_out(case, n_steps):
    # In float32 the squares of such differences have no digit left of the law's variance.
    where, sd, kernel = FAR[case]
    law = pf.targets.Gaussian(torch.full((2,), where), scale=torch.full((2,), sd))
    x, call = torch.zeros(20, 2), {"n_steps": n_steps, "seed": 1}
    draws = pf.sample(law, kernel, x, **call).draws.double()
    chains = pf.sample(law, kernel, x, store="stats", **call)
    exact = pf.diagnostics.tally(draws, batch=chains.tallies.batch, shift=x)
    assert torch.allclose(chains.mean, draws.mean((0, 1)), rtol=1e-9)
    assert torch.allclose(chains.var, draws.flatten(0, 1).var(0), rtol=1e-5)
    for f in ("ess", "mcse"):
        of_sums, of_draws = (
            getattr(pf.diagnostics, f"streaming_{f}")(t) for t in (chains.tallies, exact)
        )
        assert torch.allclose(of_sums, of_draws, rtol=1e-4), f


@pytest.mark.parametrize("seed", [186, 282, 305])
def test_a_chain_that_moves_once_and_no_more(seed):
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.full((1,), 1e-3))
    call = {"n_steps": 64, "seed": seed}
    draws = pf.sample(law, pf.RandomWalk(1.0), torch.ones(1, 1), **call).draws
    assert len(draws.unique()) == 1
    chains = pf.sample(law, pf.RandomWalk(1.0), torch.ones(1, 1), store="stats", **call)
    assert 0 <= chains.var.item() < 1e-14
    assert chains.rhat.isnan().all()
    assert (chains.mcse.item(), chains.ess.item()) == (0, 64)


def test_squares_beyond_the_range_are_not_taken_for_constants():
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.full((1,), 3e19))
    start = law.sample(50, seed=0)
    chains = pf.sample(law, pf.RandomWalk(6e19), start, n_steps=100, seed=0, store="stats")
    assert chains.var.isinf().all()  # the squares of one group have passed the largest float32
    assert not chains.ess.isfinite().any()
    assert not chains.mcse.isfinite().any()


def test_an_interrupted_run_has_the_sums_of_a_shorter_one():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    x = pf.random.normal(9, 2, seed=1)
    call = {"store": "stats", "seed": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        long = pf.sample(law, pf.MALA(0.3), x, n_steps=10**7, callback=lambda *_: True, **call)
        short = pf.sample(law, pf.MALA(0.3), x, n_steps=long.n_steps, **call)
    assert long.interrupted
    assert torch.equal(long.mean, short.mean)
    assert torch.equal(long.var, short.var)


def test_totals_in_place_and_of_batches():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    start = pf.random.normal(33, 2, seed=2, dtype=torch.float64)
    moments = begun(start, 5)
    run("mala", start.clone(), law, moments, (), step_size=0.5, beta=1.0)
    expected = *totals_of(moments), totals_of(moments)[0] - moments.sum_at_batch
    found = moments.sum, moments.sum_of_squares, moments.sum_at_batch
    _ops.totals(start, moments, *found)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match="moments: expected seven parts"):
        _ops.totals(start, moments[:3], *found)


def added(start, states, marks, batch, at_once):
    """Sums to which ``at_once`` states are added at a time, fewer where a group or a batch ends."""
    moments, begin, before = begun(start, batch), 0, start.clone()
    moments.open_group.fill_(math.nan)  # of no group yet
    while begin < len(states):
        ends = (begin + at_once, len(states), *(begin - begin % n + n for n in (16, batch)))
        end = min(ends)
        marked = () if marks is None else (before.clone(), marks[begin:end])
        _ops.add_states(start, list(states[begin:end]), moments, begin, *marked)
        for k in range(begin, end):
            taken = True if marks is None else (marks[k] & _ops.TAKEN).bool()[:, None]
            before = torch.where(torch.as_tensor(taken), states[k], before)
        begin = end
    return moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [3, 16, 100])
@pytest.mark.parametrize(("n_chains", "dim"), [(5, 1), (40, 2), (3, 37)])
def test_states_that_wait_give_the_sums_of_native_steps(n_chains, dim, batch, dtype):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    start = pf.random.normal(n_chains, dim, seed=2, dtype=dtype)
    native = begun(start, batch)
    states, _ = run("langevin", start.clone(), law, native, (), step_size=0.1, beta=1.0)
    each = torch.full((N, n_chains), _ops.TAKEN, dtype=torch.uint8)
    for at_once in (1, 5, 16):
        for marks in (None, each):
            found = added(start, states, marks, batch, at_once)
            assert all(
                torch.equal(a, b) for a, b in zip(all_sums(native), all_sums(found), strict=True)
            )
    some = pf.random.uniform(N, n_chains, seed=3) < 0.2
    expected = by_definition(native, states, ~some, batch)
    marks = (each + _ops.LEFT_OUT * some).to(torch.uint8)
    together = added(start, states, marks, batch, 16)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    for at_once in (1, 5, 16):
        found = all_sums(added(start, states, marks, batch, at_once))
        assert all(torch.equal(a, b) for a, b in zip(all_sums(together), found, strict=True))
        assert all(
            torch.allclose(a, b, rtol=rtol, atol=rtol) for a, b in zip(found, expected, strict=True)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [3, 16, 100])
@pytest.mark.parametrize(("n_chains", "dim"), [(5, 1), (40, 2), (3, 37), (7, 100), (2, 129)])
def test_steps_that_are_refused_add_the_state_before(n_chains, dim, batch, dtype):
    start = pf.random.normal(n_chains, dim, seed=2, dtype=dtype)
    proposed = pf.random.normal(N * n_chains, dim, seed=3, dtype=dtype).view(N, n_chains, dim)
    taken = pf.random.uniform(N, n_chains, seed=4) < torch.linspace(0, 1, n_chains)
    states, x = [], start
    for y, moves in zip(proposed, taken, strict=True):
        x = torch.where(moves[:, None], y, x)
        states.append(x)
    proposed[~taken] = math.nan  # which nothing may look at
    expected = added(start, torch.stack(states), None, batch, 16)
    for at_once in (1, 5, 16):
        found = added(start, proposed, taken.to(torch.uint8) * _ops.TAKEN, batch, at_once)
        assert all(
            torch.equal(a, b) for a, b in zip(all_sums(expected), all_sums(found), strict=True)
        )


def test_states_that_wait_are_checked():
    x = torch.zeros(3, 2)
    states, moments = list(torch.zeros(4, 3, 2)), begun(x, 5)
    marks = torch.ones(4, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"states: .*room for, got 4"):
        _ops.add_states(x, states, moments, 13)
    with pytest.raises(ValueError, match=r"states: "):
        _ops.add_states(x, [s[:2] for s in states], moments, 0)
    with pytest.raises(TypeError, match=r"states: "):
        _ops.add_states(x, [s.double() for s in states], moments, 0)
    with pytest.raises(ValueError, match=r"marks: "):
        _ops.add_states(x, states, moments, 0, x, marks[:3])
    with pytest.raises(TypeError, match=r"marks: expected uint8"):
        _ops.add_states(x, states, moments, 0, x, marks.float())
    with pytest.raises(ValueError, match=r"before: expected given together with marks"):
        _ops.add_states(x, states, moments, 0, x)
    with pytest.raises(ValueError, match=r"moments: expected an open group"):
        _ops.add_states(x, states, moments._replace(open_group=None), 0)


@pytest.mark.parametrize("dim", [3, 40])  # of few coordinates states are copied
@pytest.mark.parametrize("kernel", [pf.RandomWalk(0.3), pf.MALA(0.3), pf.Langevin(0.3)])
def test_how_many_states_wait_changes_no_bit(kernel, dim, monkeypatch):
    # Where the log-density is no number Langevin takes no step, and such steps do not count.
    def law(x):
        return torch.where(x[:, 0] > 1.5, torch.nan, -0.5 * x.square().sum(1))

    def results():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            chains = pf.sample(
                law, kernel, torch.zeros(70, dim), n_steps=150, seed=4, store="stats"
            )
        return [
            chains.mean,
            chains.var,
            chains.rhat,
            chains.mcse,
            *chains.tallies.__dict__.values(),
        ]

    many = results()
    monkeypatch.setattr(sums, "_MOST_WAITING", 0)
    one = results()
    same = [
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(many, one, strict=True)
    ]
    assert all(same)


@pytest.mark.parametrize("kernel", [pf.Langevin(0.2), pf.MALA(0.2)])
@pytest.mark.parametrize("stop_after", [40, 48, 100])
@pytest.mark.parametrize("devices", [(set(), {"cpu"}), ({"cpu"}, set())])
@pytest.mark.parametrize("dim", [2, 40])
def test_sums_go_on_on_another_type_of_device(
    kernel, dim, stop_after, devices, monkeypatch, tmp_path
):
    # On a GPU states of a torch target do not wait for the sums.
    start = pf.random.normal(70, dim, seed=0)

    def law(x):
        return -0.5 * x.square().sum(1)

    def run(**more):
        return pf.sample(
            law, kernel, start, n_steps=150, seed=3, store="stats", progress=False, **more
        )

    expected = run()
    where = {"checkpoint": tmp_path / "run", "every": stop_after}
    monkeypatch.setattr(sums, "WAIT_ON", devices[0])
    run(**where, callback=lambda step, x: step >= stop_after)
    monkeypatch.setattr(sums, "WAIT_ON", devices[1])
    found = run(**where)
    assert torch.equal(found.x, expected.x)
    for name in ("mean", "var", "mcse", "rhat"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("kernel", [pf.RandomWalk(0.1), pf.MALA(0.1), pf.Langevin(0.1)])
@pytest.mark.parametrize("stop_after", [1, 37, 48])
def test_what_waits_is_in_a_checkpoint(kernel, stop_after, tmp_path):
    start = pf.random.normal(70, 40, seed=0)

    def law(x):
        return -0.5 * x.square().sum(1)

    def run(**more):
        return pf.sample(law, kernel, start, n_steps=100, seed=3, store="stats", **more)

    expected, where = run(), {"checkpoint": tmp_path / "run", "every": stop_after}
    run(**where, callback=lambda step, x: step >= stop_after)
    found = run(**where)
    assert torch.equal(found.x, expected.x)
    for name in ("mean", "var", "mcse", "rhat"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("dim", [2, 40])
def test_a_second_interrupt_adds_no_state_twice(dim, monkeypatch, tmp_path):
    def law(x):
        return -0.5 * x.square().sum(1)

    def run(n_steps, **more):
        start = pf.random.normal(70, dim, seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return pf.sample(
                law, pf.MALA(0.1), start, n_steps=n_steps, seed=3, store="stats", **more
            )

    add = _ops.add_states

    def pressed_twice(*arguments):
        add(*arguments)
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_ops, "add_states", pressed_twice)
        found = run(1000, checkpoint=tmp_path / "run", every=5)
    assert found.interrupted
    assert 0 < found.n_steps < 1000
    expected = run(found.n_steps)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.var, expected.var)


@pytest.mark.parametrize("kernel", [pf.RandomWalk(0.5), pf.MALA(0.1), pf.Langevin(0.1)])
def test_no_state_keeps_the_memory_of_those_that_wait(kernel):
    seen = []

    def law(x):
        return -0.5 * x.square().sum(1)

    x = pf.random.normal(5, 3, seed=1)
    given = x.clone()
    chains = pf.sample(
        law, kernel, x, n_steps=37, store="stats", seed=0, callback=lambda _, at: seen.append(at)
    )
    last = pf.sample(law, kernel, x, n_steps=37, store="last", seed=0)
    assert torch.equal(chains.x, last.x)
    assert torch.equal(x, given)
    for state in (chains.x, *seen):
        assert state.untyped_storage().nbytes() == x.numel() * x.element_size()
