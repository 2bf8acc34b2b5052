# SPDX-License-Identifier: Apache-2.0
"""The second half of a Metropolis-Hastings step, in other people's loops."""

import math

import pytest
import torch

import pushforward as pf
from pushforward import _ops
from pushforward import _reference as reference

SIZES = [0, 1, 7, 16, 31, 33, 70]
EVENTS = [(), (2,), (5,), (4, 4), (67,)]


def state(n, event, dtype, seed):
    dim = math.prod(event)
    return pf.random.normal(n, dim, seed=seed, dtype=dtype).reshape(n, *event)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_accept_equals_its_reference(n, event, dtype):
    x, y = state(n, event, dtype, 1), state(n, event, dtype, 2)
    value, next_value, asymmetry = state(3, (n,), dtype, 3)
    next_value[::7], next_value[1::7], next_value[2::7] = math.nan, math.inf, -math.inf
    beta = torch.linspace(0.5, 2, n, dtype=dtype)
    where = {"seed": 4, "step": 9, "chain_offset": 2}
    more = {"correction": asymmetry, "beta": beta, **where}
    expected = reference.accept(x, y, value, next_value, **more)
    counts = pf.ops.Counts.zeros(n)
    assert pf.ops.accept_(x, y, value, next_value, counts=counts, **more) is x
    assert torch.equal(x, expected[0])
    assert torch.equal(value, expected[1])
    assert torch.allclose(counts.accepted, expected[2].double(), atol=1e-6, rtol=0)
    assert torch.equal(counts.accepted_squares, counts.accepted**2)
    assert counts.n_nonfinite.tolist() == [int(k % 7 < 2) for k in range(n)]
    # Langevin proposals: the correction comes from both scores, which are replaced likewise
    score, next_score, h = -x, -y, 0.1
    there, back = y - x - h * score, x - y - h * next_score
    squares = (there**2 - back**2).reshape(n, math.prod(event)).sum(1)
    value, next_value = torch.zeros(n, dtype=dtype), asymmetry / 5
    more = {"beta": beta, **where}
    exact = reference.accept(x, y, value, next_value, correction=beta * squares / (4 * h), **more)
    pf.ops.accept_(
        x, y, value, next_value, score=score, proposed_score=next_score, step_size=h,
        counts=counts, **more,
    )  # fmt: skip
    assert torch.equal(x, exact[0])
    assert torch.equal(score, -x)


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_what_is_taken_is_marked_and_kept(n, event):
    start, y = state(n, event, torch.float32, 1), state(n, event, torch.float32, 2)
    value, next_value = state(2, (n,), torch.float32, 3)
    next_value[::7] = math.nan
    y[1::5] = math.inf

    def check(step, proposed):
        x, taken, kept = start.clone(), torch.full((n,), 9, dtype=torch.uint8), start + 7
        assert step(x, proposed, taken=taken, kept=kept) is x
        plain = start.clone()
        step(plain, proposed)
        assert torch.equal(x, plain)
        moved = _ops.rows(x != start).any(1)
        assert taken.tolist() == moved.tolist()
        assert torch.equal(kept[moved], proposed[moved])
        assert torch.equal(kept[~moved], start[~moved] + 7)
        return moved

    def accept(x, proposed, **more):
        return pf.ops.accept_(
            x, proposed, value.clone(), next_value, seed=4, step=9, counts=pf.ops.Counts.zeros(n),
            **more,
        )  # fmt: skip

    def commit(x, proposed, **more):
        return pf.ops.commit_(x, proposed, torch.zeros(n, dtype=torch.int64), **more)

    assert not check(accept, torch.where(y.isfinite(), y, 0.5))[::7].any()
    assert torch.equal(check(commit, y), torch.arange(n) % 5 != 1)


def test_where_marks_and_copies_go_is_checked():
    x, value, counts = torch.zeros(4, 2), torch.zeros(4), pf.ops.Counts.zeros(4)
    y = x + 1
    wrong = [
        ("kept", torch.zeros(4, 3), ValueError),
        ("kept", torch.zeros(4, 2).double(), TypeError),
        ("kept", torch.zeros(2, 4).mT, ValueError),
        ("kept", x, ValueError),
        ("kept", y, ValueError),
        ("taken", torch.zeros(3, dtype=torch.uint8), ValueError),
        ("taken", torch.zeros(4, dtype=torch.bool), TypeError),
        ("taken", torch.zeros(4, dtype=torch.int8), TypeError),
        ("taken", counts.n_nonfinite.view(torch.uint8)[:4], ValueError),
        ("taken", torch.zeros(4), TypeError),
        ("taken", x.view(torch.uint8)[0, :4], ValueError),
        ("taken", y.view(torch.uint8)[0, :4], ValueError),
    ]
    for name, tensor, kind in wrong:
        with pytest.raises(kind, match=f"{name}|overlapping"):
            pf.ops.accept_(x, y, value, value + 1, seed=0, step=0, counts=counts, **{name: tensor})
        with pytest.raises(kind, match=f"{name}|overlapping"):
            pf.ops.commit_(x, y, counts.n_nonfinite, **{name: tensor})
    shift, sums = torch.zeros(4, 2), torch.zeros(2, 4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="overlapping"):
        pf.ops.commit_(x, y, counts.n_nonfinite, (shift, *sums), kept=shift)
    kept = torch.zeros(4, 2, requires_grad=True)
    with pytest.raises(ValueError, match="require grad"):
        pf.ops.commit_(x, y, counts.n_nonfinite, kept=kept)
    with pytest.raises(ValueError, match="require grad"):
        pf.ops.accept_(x, y, value, value + 1, seed=0, step=0, counts=counts, kept=kept)
    assert not x.any()
    assert not counts.accepted.any()


def test_accept_refuses_shared_memory():
    x, value, counts = torch.zeros(4), torch.zeros(4), pf.ops.Counts.zeros(4)
    with pytest.raises(ValueError, match="overlapping"):
        pf.ops.accept_(x, value, x, value, seed=0, step=0, counts=counts)
    with pytest.raises(TypeError, match="counts: expected Counts"):
        pf.ops.accept_(x, value + 1, value, value, seed=0, step=0, counts=None)
    with pytest.raises(ValueError, match="score: expected the score at x"):
        pf.ops.accept_(x, value + 1, value, value, seed=0, step=0, counts=counts, step_size=0.1)


def test_a_chain_by_hand_follows_its_law():
    # A random walk on exp(-|x|) written with torch and this op: E |x| = 1, E x^2 = 2.
    n, width = 4000, 2.5
    x, counts = torch.zeros(n, 1), pf.ops.Counts.zeros(n)
    value = -x.abs()[:, 0]
    for step in range(60):
        y = x + width * pf.random.normal(n, 1, seed=1, purpose="user", start=step)
        pf.ops.accept_(x, y, value, -y.abs()[:, 0], seed=1, step=step, counts=counts)
    assert torch.equal(value, -x.abs()[:, 0])
    # Var |x| = 1 and Var x^2 = 20; five standard errors
    assert abs(x.abs().mean().item() - 1) < 5 * (1 / n) ** 0.5
    assert abs((x**2).mean().item() - 2) < 5 * (20 / n) ** 0.5
    assert 0.3 < counts.accepted.mean().item() / 60 < 0.7


def test_what_is_ignored_is_refused():
    x, y = torch.zeros(4, 2), torch.ones(4, 2)
    value, counts = torch.zeros(4), pf.ops.Counts.zeros(4)
    call = {"seed": 0, "step": 0, "counts": counts}
    with pytest.raises(ValueError, match="correction: expected None where step_size is given"):
        pf.ops.accept_(
            x, y, value, value + 1, score=-x, proposed_score=-y, step_size=0.1, correction=value,
            **call,
        )  # fmt: skip
    with pytest.raises(ValueError, match="proposed_score: expected None where score is None"):
        pf.ops.accept_(x, y, value, value + 1, proposed_score=y, **call)


@pytest.mark.parametrize("shared", ["score", "proposed_score", "shift", "sum", "counts"])
def test_what_is_written_lies_apart(shared):
    wide = torch.zeros(3, 4, 1, dtype=torch.float64)
    x, y, value = wide[0], wide[1], torch.zeros(4, dtype=torch.float64)
    score, proposed_score = torch.zeros(4, 1).double(), torch.ones(4, 1).double()
    sums = [x.clone(), wide[2], x.clone()]
    counts = pf.ops.Counts.zeros(4)
    if shared == "score":
        score = value[:, None]
    elif shared == "proposed_score":
        proposed_score = x
    elif shared == "shift":
        sums[0] = x
    elif shared == "sum":
        sums[2] = sums[1]
    else:
        counts = pf.ops.Counts(
            counts.n_nonfinite, counts.n_divergent, counts.accepted, counts.accepted
        )
    with pytest.raises(ValueError, match="overlapping"):
        pf.ops.accept_(
            x, y, value, value + 1, seed=0, step=0, counts=counts, moments=tuple(sums),
            score=score, proposed_score=proposed_score, step_size=0.1,
        )  # fmt: skip


def test_twins_may_be_one():
    # A proposal from the state's own value and score, as in a kernel that has not evaluated yet.
    x, value, score = torch.zeros(4, 1), torch.zeros(4), torch.ones(4, 1)
    counts = pf.ops.Counts.zeros(4)
    pf.ops.accept_(
        x, x + 1, value, value, seed=0, step=0, counts=counts, score=score, proposed_score=score
    )
    assert torch.equal(x, torch.ones(4, 1))


def test_autograd_is_told():
    weight = torch.ones(2, 1, requires_grad=True)
    x, y, counts = torch.zeros(3, 2), torch.ones(3, 2), pf.ops.Counts.zeros(3)
    loss = (x @ weight).sum()
    pf.ops.accept_(x, y, torch.zeros(3), (y @ weight)[:, 0], seed=0, step=0, counts=counts)
    assert torch.equal(x, y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_all_that_is_written_has_another_version():
    counts, bad, n = pf.ops.Counts.zeros(3), torch.zeros(3, dtype=torch.int64), 3
    x, value, doubles = torch.zeros(n, 2), torch.zeros(n), torch.zeros(n, 2).double()
    sums = (x.clone(), doubles.clone(), doubles.clone())
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    run = {"step_size": 0.1, "n_steps": 1, "seed": 0}
    writes = {
        "accept_": (lambda: pf.ops.accept_(x, x + 1, value, value + 1, seed=0, step=0, counts=counts, moments=sums), (x, value, *counts.tensors(), *sums[1:])),
        "commit_": (lambda: pf.ops.commit_(x, x + 1, bad, sums), (x, bad, *sums[1:])),
        "langevin_run_": (lambda: pf.ops.langevin_run_(x, law, n_nonfinite=bad, **run), (x, bad)),
        "markov_run_": (lambda: pf.ops.markov_run_(x, law, "mala", counts=counts, **run), (x, *counts.tensors())),
    }  # fmt: skip
    for name, (write, written) in writes.items():
        before = [t._version for t in written]
        write()
        assert all(t._version > v for t, v in zip(written, before, strict=True)), name
    assert sums[0]._version == 0  # the shift is read


def test_counts_are_counts():
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    with pytest.raises(TypeError, match="counts"):
        pf.ops.markov_run_(
            torch.zeros(3, 2), law, "mala", step_size=0.1, n_steps=1, seed=0, counts=()
        )


def test_incomplete_sums_are_refused():
    x, counts = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    sums = torch.zeros(3, 2).double()
    with pytest.raises(ValueError, match="moments"):
        torch.ops.pushforward.commit_(x, x + 1, counts, None, None, None, sums, sums.clone())
