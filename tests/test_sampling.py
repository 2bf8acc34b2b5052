# SPDX-License-Identifier: Apache-2.0
"""The driver: what it keeps, how it splits and resumes, how it stops."""

import math
import os

import numpy as np
import pytest
import torch

import pushforward as pf
from ring_runs import KERNEL, LAW, TARGETS, same, start


@pytest.mark.parametrize("thin", [1, 3, 7, 100])
@pytest.mark.parametrize("burn_in", [0, 5])
def test_draws_are_the_states_of_a_plain_loop(law, thin, burn_in):
    x = start()
    kept = []
    for k in range(burn_in + 20):
        x = pf.ops.langevin(x, _score(law, x), step_size=0.05, seed=3, step=k)
        done = k + 1 - burn_in
        if done > 0 and done % thin == 0:
            kept.append(x)
    chains = pf.sample(law, KERNEL, start(), n_steps=20, burn_in=burn_in, thin=thin, seed=3)
    assert chains.draws.shape == (20 // thin, 37, 2)
    assert chains.log_density.shape == (20 // thin, 37)
    assert torch.equal(chains.x, x)
    assert chains.next_step == burn_in + 20
    if kept:
        assert torch.equal(chains.draws, torch.stack(kept))
        flat = law.log_density(chains.draws.reshape(-1, 2)).reshape(-1, 37)
        assert torch.allclose(chains.log_density, flat, rtol=1e-6, atol=1e-5)


def _score(law, x):
    return law.score(x) if hasattr(law, "score") else LAW.torch_score(x)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_statistics_are_those_of_all_steps(law, dtype, rtol):
    # States are added in groups, whose sums are of their type.
    x = start().to(dtype)
    every = pf.sample(law, KERNEL, x, n_steps=50, burn_in=4, seed=3).draws.double()
    for store, thin in (("draws", 1), ("draws", 7), ("stats", 1)):
        chains = pf.sample(law, KERNEL, x, n_steps=50, burn_in=4, thin=thin, store=store, seed=3)
        flat = every.flatten(0, 1)
        assert torch.allclose(chains.mean, flat.mean(0), rtol=rtol, atol=rtol)
        assert torch.allclose(chains.var, flat.var(0), rtol=rtol, atol=rtol)


def test_statistics_far_from_zero_keep_their_digits():
    law = pf.targets.Gaussian(torch.tensor([1e6]), scale=[1e-3])
    x = law.sample(2000, seed=1, dtype=torch.float64)
    chains = pf.sample(law, pf.Langevin(1e-7), x, n_steps=200, store="stats", seed=1)
    # ULA's variance is 1e-6 / (1 - h / (2 * 1e-6)); 2000 chains a few relaxation times long
    assert chains.var.item() == pytest.approx(1e-6 / (1 - 0.05), rel=0.1)


def test_store_decides_what_is_kept(law):
    stats = pf.sample(law, KERNEL, start(), n_steps=5, store="stats", seed=1)
    last = pf.sample(law, KERNEL, start(), n_steps=5, store="last", seed=1)
    assert stats.draws is None
    assert stats.log_density is None
    assert stats.mean.shape == stats.var.shape == (2,)
    assert last.mean is None
    assert last.var is None
    assert torch.equal(stats.x, last.x)


def test_no_chains_and_no_steps(law):
    empty = pf.sample(law, KERNEL, torch.zeros(0, 2), n_steps=3, seed=1)
    assert empty.draws.shape == (3, 0, 2)
    none = pf.sample(law, KERNEL, start(), n_steps=0, seed=1)
    assert torch.equal(none.x, start())
    assert none.draws.shape == (0, 37, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_native_and_torch_targets_agree_to_rounding(dtype):
    x = start().to(dtype)
    a, b = (pf.sample(t, KERNEL, x, n_steps=30, seed=2) for t in TARGETS.values())
    # 30 contracting steps of a smooth target: errors of a rounding stay errors of a few
    assert torch.allclose(a.draws, b.draws, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-12)


def test_runs_go_on_bit_for_bit(law):
    whole = pf.sample(law, KERNEL, start(), n_steps=30, seed=3)
    first = pf.sample(law, KERNEL, start(), n_steps=13, seed=3)
    rest = pf.sample(law, KERNEL, first.x, n_steps=17, seed=first.seed, first_step=first.next_step)
    assert torch.equal(whole.draws, torch.cat((first.draws, rest.draws)))
    assert torch.equal(whole.x, rest.x)


@pytest.mark.parametrize("cut", [1, 16, 20])
def test_chains_split_over_calls_bit_for_bit(law, cut):
    step_size = torch.linspace(0.01, 0.05, 37)
    beta = torch.linspace(0.5, 2, 37)
    whole = pf.sample(law, pf.Langevin(step_size, beta), start(), n_steps=9, seed=3)
    parts = [
        pf.sample(
            law, pf.Langevin(step_size[rows], beta[rows]), start()[rows], n_steps=9, seed=3,
            chain_offset=rows.start,
        )
        for rows in (slice(0, cut), slice(cut, 37))
    ]  # fmt: skip
    assert torch.equal(whole.draws, torch.cat([p.draws for p in parts], 1))


def test_chunks_do_not_change_a_bit(law, monkeypatch):
    import pushforward.pacing as pacing

    whole = pf.sample(law, KERNEL, start(), n_steps=40, burn_in=3, thin=3, seed=3)
    monkeypatch.setattr(pacing, "SECONDS", 0.0)  # one step a chunk
    calls = []
    pieces = pf.sample(
        law, KERNEL, start(), n_steps=40, burn_in=3, thin=3, seed=3,
        callback=lambda step, x: calls.append(step),
    )  # fmt: skip
    assert calls == list(range(1, 44))
    assert same(whole, pieces)


@pytest.mark.parametrize(
    ("kernel", "store", "first"),
    [
        (pf.MALA(0.3), "stats", 496),
        (pf.MALA(0.3), "last", 1),
        (pf.NUTS(0.3, max_depth=20), "stats", 1),  # a step may take a million evaluations
    ],
)
def test_a_run_begins_with_groups_of_sums_where_they_are_quick(kernel, store, first, monkeypatch):
    import pushforward.pacing as pacing

    monkeypatch.setattr(pacing, "SECONDS", 10.0)  # enough for all of the first half on any machine
    ends = []
    target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    pf.sample(
        target, kernel, torch.zeros(9, 2), n_steps=1000, store=store, seed=3,
        callback=lambda step, x: ends.append(step),
    )  # fmt: skip
    assert ends[0] == first


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_do_not_change_a_bit(law, threads, restore_threads):
    x = start(5000)
    torch.set_num_threads(1)
    one = pf.sample(law, KERNEL, x, n_steps=20, seed=3)
    torch.set_num_threads(threads)
    assert same(one, pf.sample(law, KERNEL, x, n_steps=20, seed=3))


def test_works_off_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    def run(i):
        return pf.sample(LAW, KERNEL, start(3000), n_steps=50, seed=i).x

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(8)))
    for i, x in enumerate(together):
        assert torch.equal(x, run(i))


def test_works_in_a_forked_child():
    x = start(5000)
    expected = pf.sample(LAW, KERNEL, x, n_steps=50, seed=1).x  # the pool's threads exist now
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            got = pf.sample(LAW, KERNEL, x, n_steps=50, seed=1).x
            os.write(writer, got.numpy().tobytes()[:65536])
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        got = np.frombuffer(pipe.read(), dtype=np.float32)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(got, expected.numpy().ravel()[: len(got)])
    assert len(got) > 0


def test_the_start_is_not_changed_and_seeds_are_recorded(law):
    x = start()
    before = x.clone()
    torch.manual_seed(5)
    a = pf.sample(law, KERNEL, x, n_steps=3)
    torch.manual_seed(5)
    b = pf.sample(law, KERNEL, x, n_steps=3)
    c = pf.sample(law, KERNEL, x, n_steps=3, seed=a.seed)
    assert torch.equal(x, before)
    assert same(a, b)
    assert same(a, c)
    assert not torch.equal(a.x, pf.sample(law, KERNEL, x, n_steps=3).x)


# ---- chains that leave the finite numbers --------------------------------------------------------


def test_a_diverging_chain_poisons_no_other(law):
    x = start()
    step_size = torch.full((37,), 0.05)
    step_size[5] = 1e38
    with pytest.warns(RuntimeWarning, match="1 of 37 chains"):
        bad = pf.sample(law, pf.Langevin(step_size), x, n_steps=10, seed=1)
    good = pf.sample(law, KERNEL, x, n_steps=10, seed=1)
    others = torch.arange(37) != 5
    assert bad.n_nonfinite[5] > 0
    assert bad.n_nonfinite[others].sum() == 0
    assert bad.draws.isfinite().all()
    assert torch.equal(bad.draws[:, others], good.draws[:, others])


def test_constant_nan_finishes_and_is_left_out_of_the_statistics():
    def log_density(x):
        return -0.5 * (x**2).sum(1) * torch.tensor([1.0, 1.0, math.nan, 1.0])

    x = torch.ones(4, 3)
    with pytest.warns(RuntimeWarning, match="1 of 4 chains"):
        chains = pf.sample(log_density, pf.Langevin(0.1), x, n_steps=20, burn_in=5, seed=1)
    assert chains.n_nonfinite.tolist() == [0, 0, 25, 0]
    assert torch.equal(chains.draws[:, 2], torch.ones(20, 3))
    others = chains.draws[:, [0, 1, 3]].double().flatten(0, 1)
    assert torch.allclose(chains.mean, others.mean(0))
    assert torch.allclose(chains.var, others.var(0))


def test_all_chains_bad_gives_nan_statistics():
    with pytest.warns(RuntimeWarning, match="2 of 2"):
        chains = pf.sample(
            lambda x: (x * math.nan).sum(1), KERNEL, torch.ones(2, 1), n_steps=3, seed=1
        )
    assert chains.mean.isnan().all()
