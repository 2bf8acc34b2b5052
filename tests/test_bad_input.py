# SPDX-License-Identifier: Apache-2.0
"""More than a thousand malformed calls in one process: a clear error or a right answer, no crash."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pushforward as pf
from conftest import ZOO

ERRORS = (TypeError, ValueError)

sizes = st.integers(0, 5)
dtypes = st.sampled_from(
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.bool,
        torch.complex64,
    ]
)


@st.composite
def tensors(draw):
    """Tensors of any type, shape and layout, with any values in them."""
    shape = draw(st.lists(sizes, max_size=4))
    x = torch.zeros(shape, dtype=draw(dtypes))
    if x.is_floating_point() and x.numel():
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(
            st.sampled_from([1.0, -1.0, math.nan, math.inf, -math.inf, 1e38, 1e-40])
        )
    how = draw(
        st.sampled_from(["plain", "expand", "stride", "transpose", "grad", "sparse", "meta"])
    )
    if how == "expand" and x.ndim and shape[0]:
        return x[:1].expand(draw(sizes), *shape[1:])
    if how == "stride" and x.ndim:
        return x.repeat_interleave(2, dim=-1)[..., ::2]
    if how == "transpose" and x.ndim > 1:
        return x.transpose(0, -1)
    if how == "grad" and x.is_floating_point():
        return x.requires_grad_()
    if how == "sparse" and x.ndim == 2:
        return x.to_sparse()
    return x.to("meta") if how == "meta" else x


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=3),
    st.just([]),
    st.just([0.1]),
    st.just(object()),
    tensors(),
)


def mostly(good, bad=anything):
    """The good value more often than not, so that calls go deep before they fail."""
    return st.one_of(good, good, bad)


state = mostly(
    st.builds(
        lambda n, d, t: torch.zeros(n, d, dtype=t),
        sizes,
        sizes,
        st.sampled_from([torch.float32, torch.float64]),
    )
)
coefficient = mostly(st.one_of(st.floats(-1, 2), st.builds(lambda n: torch.full((n,), 0.1), sizes)))
index = mostly(st.integers(0, 2**63 + 1))
small = mostly(st.integers(-1, 4))
law = mostly(st.sampled_from(list(ZOO.values())))


def survives(call):
    """Run ``call``: either it raises one of our errors with a message, or it succeeds."""
    try:
        return call()
    except ERRORS as error:
        assert str(error)
        assert "Traceback" not in str(error)
        return None


META, SPARSE = torch.zeros(4, 3, device="meta"), torch.zeros(4, 3).to_sparse()


@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seed": True}, TypeError), ({"seed": 1.5}, TypeError), ({"seed": None}, TypeError),
        ({"step": "a"}, TypeError), ({"step": 2**63}, ValueError), ({"seed": -1}, ValueError),
        ({"chain_offset": -1}, ValueError), ({"score": [1.0]}, TypeError),
        ({"score": META}, ValueError), ({"score": SPARSE}, ValueError), ({"x": SPARSE}, ValueError),
        ({"step_size": META[:, 0]}, ValueError), ({"beta": META[:, 0]}, ValueError),
    ],
)  # fmt: skip
def test_what_is_wrong_is_wrong_with_gradients_too(change, error, wants_gradient):
    x = torch.zeros(4, 3)
    good = {"x": x, "score": x, "step_size": 0.1, "beta": 1.0, "seed": 1, "step": 0}
    call = {**good, **change}
    call["x"] = call["x"].clone().requires_grad_(wants_gradient)
    (name,) = change
    with pytest.raises(error, match=rf"^{name}: expected [^\n]*$"):
        pf.ops.langevin(**call)
    call["growth"] = call["drift_scale"] = call["noise_scale"] = call.pop("step_size")
    del call["beta"]
    if name not in ("step_size", "beta"):
        with pytest.raises(error, match=rf"^{name}: expected [^\n]*$"):
            pf.ops.reverse_step(**call)


@settings(max_examples=400)
@given(x=state, score=state, h=coefficient, beta=coefficient, seed=index, step=index, offset=index)
def test_langevin(x, score, h, beta, seed, step, offset):
    before = x.clone() if isinstance(x, torch.Tensor) and not x.is_meta else None
    out = survives(
        lambda: pf.ops.langevin(
            x, score, step_size=h, beta=beta, seed=seed, step=step, chain_offset=offset
        )
    )
    if out is not None:
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert score.shape == x.shape
    if before is not None and not before.is_sparse:
        assert torch.equal(torch.nan_to_num(before.detach()), torch.nan_to_num(x.detach()))
    survives(
        lambda: pf.ops.langevin_(
            x, score, step_size=h, beta=beta, seed=seed, step=step, chain_offset=offset
        )
    )


@settings(max_examples=200)
@given(
    x=state,
    target=law,
    h=coefficient,
    n=small,
    seed=index,
    first=index,
    offset=index,
    bad=mostly(st.none()),
)
def test_langevin_run(x, target, h, n, seed, first, offset, bad):
    survives(
        lambda: pf.ops.langevin_run_(
            x, target, step_size=h, n_steps=n, seed=seed, first_step=first, chain_offset=offset,
            n_nonfinite=bad,
        )
    )  # fmt: skip
    survives(lambda: pf.ops.log_density_and_score(x, target))


@settings(max_examples=300)
@given(
    x=state,
    score=state,
    a=coefficient,
    b=coefficient,
    c=coefficient,
    seed=index,
    step=index,
    offset=index,
)
def test_diffusion_ops(x, score, a, b, c, seed, step, offset):
    survives(lambda: pf.ops.diffuse(x, mean_scale=a, std=b, seed=seed, chain_offset=offset))
    kw = {"growth": a, "drift_scale": b, "noise_scale": c, "seed": seed, "step": step}
    survives(lambda: pf.ops.reverse_step(x, score, chain_offset=offset, **kw))
    survives(lambda: pf.ops.reverse_step_(x, score, chain_offset=offset, **kw))


@settings(max_examples=200)
@given(
    x=state,
    proposed=state,
    counts=tensors(),
    m=mostly(st.none(), st.tuples(tensors(), tensors(), tensors())),
)
def test_commit(x, proposed, counts, m):
    survives(lambda: pf.ops.commit_(x, proposed, counts, m))


@settings(max_examples=200)
@given(
    n_chains=small, n=small, seed=index, purpose=mostly(st.sampled_from(sorted(pf.random.PURPOSES))),
    start=index, offset=index, dtype=mostly(dtypes), out=mostly(st.none()),
)  # fmt: skip
def test_noise(n_chains, n, seed, purpose, start, offset, dtype, out):
    for draw in (pf.random.normal, pf.random.uniform):
        survives(
            lambda draw=draw: draw(
                n_chains, n, seed=seed, purpose=purpose, start=start, chain_offset=offset,
                dtype=dtype, out=out,
            )
        )  # fmt: skip


@settings(max_examples=200)
@given(
    target=law, kernel=mostly(st.just(pf.Langevin(0.1))), x=state, n=small, burn=small, thin=small,
    store=mostly(st.sampled_from(["draws", "stats", "last"])), first=index, offset=index, seed=index,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*left the finite numbers")
def test_sample(target, kernel, x, n, burn, thin, store, first, offset, seed):
    chains = survives(
        lambda: pf.sample(
            target, kernel, x, n_steps=n, burn_in=burn, thin=thin, store=store, first_step=first,
            chain_offset=offset, seed=seed,
        )
    )  # fmt: skip
    if chains is not None:
        assert chains.x.shape == x.shape
        assert chains.x.isfinite().all()


@settings(max_examples=100)
@given(
    kappa=anything, sigma=anything, t=anything, x=state, times=anything, alpha=anything, seed=index
)
def test_process(kappa, sigma, t, x, times, alpha, seed):
    survives(lambda: pf.diffusion.OrnsteinUhlenbeck(kappa, sigma))
    process = pf.diffusion.OrnsteinUhlenbeck()
    survives(lambda: process.diffuse(x, t, seed=seed))
    survives(
        lambda: pf.diffusion.reverse(
            lambda x, t: -x, process, x, times=times, alpha=alpha, seed=seed
        )
    )


@settings(max_examples=150)
@given(mean=anything, scale=anything, other=anything, k=anything)
def test_targets(mean, scale, other, k):
    t = pf.targets
    for make in (
        lambda: t.Gaussian(mean, scale=scale),
        lambda: t.Gaussian(mean, precision=scale),
        lambda: t.GaussianMixture(mean, scales=scale, weights=other),
        lambda: t.GaussianMixture(mean, covariances=scale),
        lambda: t.DoubleWell(k, mean, scale),
        lambda: t.Banana(k, scale=scale, curvature=other),
        lambda: t.Funnel(k, scale=scale),
        lambda: t.Ring(mean, scale),
    ):
        survives(make)


def test_sizes_whose_product_overflows():
    with pytest.raises(ValueError, match="2\\*\\*63"):
        pf.random.normal(2**40, 2**40, seed=0)
    with pytest.raises(ValueError, match="n_chains"):
        pf.random.normal(2**64, 1, seed=0)
    with pytest.raises(ValueError, match="start"):
        pf.random.normal(1, 2, seed=0, start=2**63 - 2)
    with pytest.raises(ValueError, match="chain_offset"):
        pf.random.normal(2, 1, seed=0, chain_offset=2**56 - 1)
    x = torch.zeros(1, 1000)
    with pytest.raises(ValueError, match="step"):
        pf.ops.langevin_(x, x, step_size=0.1, seed=0, step=2**60)
