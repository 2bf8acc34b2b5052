# SPDX-License-Identifier: Apache-2.0
"""Each op against its reference, at ragged sizes, in place, with gradients, compiled."""

import math

import numpy as np
import pytest
import torch
import torch._dynamo.testing

import pushforward as pf
from conftest import ZOO
from pushforward import _reference as reference
from registered_ops import every_kind_of_op, registered_calls, state

SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70]
EVENTS = [(), (1,), (2,), (3,), (5,), (4, 4), (67,), (3, 8, 8)]
# A float32 normal number differs from the float64 formula by at most 2e-6 (docs/numerics.md), the
# rest is a handful of roundings of numbers below 10.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def close(a, b):
    return a.shape == b.shape and bool(((a - b).abs() <= TOLERANCE[a.dtype]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_elementwise_ops_equal_their_reference(n, event, dtype):
    x, score = state(n, event, dtype, 1), state(n, event, dtype, 2)
    per_chain = torch.linspace(0.1, 0.9, n, dtype=dtype)
    for coefficient in (0.3, torch.tensor(0.3, dtype=dtype), per_chain):
        common = {"seed": 5, "chain_offset": 3}
        step = {"step_size": coefficient, "beta": 1.7, "step": 7, **common}
        assert close(pf.ops.langevin(x, score, **step), reference.langevin(x, score, **step))
        ou = {"mean_scale": coefficient, "std": 0.4, **common}
        assert close(pf.ops.diffuse(x, **ou), reference.diffuse(x, **ou))
        back = {"growth": 1.1, "drift_scale": coefficient, "noise_scale": 0.2, "step": 2, **common}
        assert close(
            pf.ops.reverse_step(x, score, **back), reference.reverse_step(x, score, **back)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_run_equals_its_reference(target, dtype):
    # Ten steps: rounding differences grow with the curvature of the target, hence 1e-3 and 1e-9.
    x = target.sample(37, seed=1, dtype=dtype)
    step = {"step_size": 0.01, "beta": 1.3, "n_steps": 10, "seed": 9, "first_step": 4}
    expected = reference.langevin_run(x, target, **step)
    got = pf.ops.langevin_run_(x.clone(), target, **step)
    assert torch.allclose(got, expected, rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("n", [1, 31, 33, 200])
def test_run_is_update_with_the_native_score_bit_for_bit(target, n, dtype):
    x = target.sample(n, seed=1, dtype=dtype)
    h = torch.linspace(0.001, 0.02, n, dtype=dtype)
    step = {"step_size": h, "beta": 0.7, "seed": 3, "chain_offset": 5}
    run = pf.ops.langevin_run_(x.clone(), target, n_steps=13, first_step=2, **step)
    for k in range(2, 15):
        pf.ops.langevin_(x, target.score(x), step=k, **step)
    assert torch.equal(run, x)


def test_in_place_twins():
    x, score = state(33, (5,), torch.float32, 1), state(33, (5,), torch.float32, 2)
    arguments = {"step_size": 0.1, "seed": 1, "step": 2}
    expected = pf.ops.langevin(x, score, **arguments)
    y = x.clone()
    assert pf.ops.langevin_(y, score, **arguments) is y
    assert torch.equal(y, expected)
    out = torch.empty_like(x)
    assert pf.ops.langevin(x, score, out=out, **arguments) is out
    assert torch.equal(out, expected)
    arguments = {"growth": 1.1, "drift_scale": 0.1, "noise_scale": 0.3, "seed": 1, "step": 2}
    expected = pf.ops.reverse_step(x, score, **arguments)
    assert torch.equal(pf.ops.reverse_step_(x.clone(), score, **arguments), expected)


def test_score_may_be_the_state_itself():
    x = state(9, (3,), torch.float32)
    expected = pf.ops.langevin(x, x.clone(), step_size=0.1, seed=0, step=0)
    assert torch.equal(pf.ops.langevin_(x, x, step_size=0.1, seed=0, step=0), expected)


def test_strided_inputs_work_and_strided_outputs_are_refused():
    wide = state(6, (8,), torch.float32)
    x, score = wide[:, ::2], wide.new_ones(1, 4).expand(6, 4)
    arguments = {"step_size": 0.1, "seed": 0, "step": 0}
    expected = pf.ops.langevin(x.contiguous(), score.contiguous(), **arguments)
    assert torch.equal(pf.ops.langevin(x, score, **arguments), expected)
    with pytest.raises(ValueError, match="x: expected a contiguous tensor"):
        pf.ops.langevin_(x, score, **arguments)
    with pytest.raises(ValueError, match="x: expected a contiguous tensor"):
        pf.ops.langevin_run_(x, ZOO["double-well"], step_size=0.1, n_steps=1, seed=0)
    memory = torch.zeros(9, 4)
    with pytest.raises(ValueError, match="overlapping"):
        pf.ops.langevin_(memory[:8], memory[1:], **arguments)


def test_lazy_negation_is_refused():
    x = torch.randn(3, 2, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    with pytest.raises(ValueError, match="x"):
        pf.ops.diffuse(x, mean_scale=1.0, std=1.0, seed=0)


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_do_not_change_a_bit(threads, restore_threads):
    def everything():
        out = [pf.random.normal(1001, 101, seed=1), pf.random.uniform(3, 100_000, seed=1)]
        for event in ((2,), (64,), (3, 32, 32)):
            x, score = state(300, event, torch.float32, 1), state(300, event, torch.float32, 2)
            out.append(pf.ops.langevin(x, score, step_size=0.1, seed=2, step=3))
            out.append(pf.ops.diffuse(x, mean_scale=0.4, std=0.2, seed=2))
        for law in ZOO.values():
            x = law.sample(3000, seed=1)
            out.append(pf.ops.langevin_run_(x, law, step_size=0.01, n_steps=7, seed=3))
            out.append(law.log_density(x))
        return out

    torch.set_num_threads(1)
    one = everything()
    torch.set_num_threads(threads)
    for a, b in zip(one, everything(), strict=True):
        assert torch.equal(a, b)


def test_flush_denormal_does_not_change_a_bit():
    x = torch.full((64, 64), 1e-39)
    arguments = {"growth": 0.5, "drift_scale": 0.0, "noise_scale": 0.0, "seed": 0, "step": 0}
    expected = pf.ops.reverse_step(x, x, **arguments)
    assert (expected > 0).all()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        flushed = pf.ops.reverse_step(x, x, **arguments)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(flushed.view(torch.int32), expected.view(torch.int32))


def test_commit_takes_finite_rows_only():
    x, proposed = torch.zeros(4, 3), torch.ones(4, 3)
    proposed[1, 2], proposed[2, 0], proposed[3, 1] = math.nan, math.inf, -math.inf
    refused = torch.zeros(4, dtype=torch.int64)
    shift, total = torch.full((4, 3), 0.5), torch.zeros(4, 3, dtype=torch.float64)
    squares = total.clone()
    pf.ops.commit_(x, proposed, refused, (shift, total, squares))
    assert refused.tolist() == [0, 1, 1, 1]
    assert x.sum(1).tolist() == [3.0, 0.0, 0.0, 0.0]
    assert total.sum(1).tolist() == [1.5, 0.0, 0.0, 0.0]
    assert squares.sum(1).tolist() == [0.75, 0.0, 0.0, 0.0]


# ---- torch integration ---------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(registered_calls())))
def test_opcheck(index):
    op, arguments = registered_calls()[index]
    torch.library.opcheck(op.default, arguments)


def test_opcheck_covers_every_registered_op():
    registered = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("pushforward::")
    }
    assert registered == {op.__name__ for op, _ in registered_calls()}


def test_opcheck_with_gradients():
    x, score = state(5, (3,), torch.float32, 1), state(5, (3,), torch.float32, 2)
    h = torch.full((5,), 0.1)
    x.requires_grad_(), score.requires_grad_()
    torch.library.opcheck(torch.ops.pushforward.langevin.default, (x, score, h, h, 1, 2, 3))
    torch.library.opcheck(torch.ops.pushforward.diffuse.default, (x, h, h, 1, 3))
    torch.library.opcheck(torch.ops.pushforward.reverse_step.default, (x, score, h, h, h, 1, 2, 3))
    kind, dim, k, tensors, scalars = ZOO["gaussian-diagonal"].native_arguments(torch.float32)
    law = (tensors, kind, dim, k, scalars)
    torch.library.opcheck(torch.ops.pushforward.evaluate.default, (x, *law))


@pytest.mark.parametrize(
    "h", [0.3, torch.linspace(0.1, 0.5, 4, dtype=torch.float64)], ids=["one", "each"]
)
def test_gradients(h):
    x = state(4, (3,), torch.float64, 1).requires_grad_()
    score = state(4, (3,), torch.float64, 2).requires_grad_()
    kw = {"seed": 1, "chain_offset": 2}
    check = torch.autograd.gradcheck
    assert check(lambda x, s: pf.ops.langevin(x, s, step_size=h, step=3, **kw), (x, score))
    assert check(lambda x: pf.ops.diffuse(x, mean_scale=h, std=0.2, **kw), (x,))
    assert check(
        lambda x, s: pf.ops.reverse_step(
            x, s, growth=h, drift_scale=h, noise_scale=0.1, step=3, **kw
        ),
        (x, score),
    )


def test_gradient_in_place_is_refused():
    x, score = torch.zeros(2, 2), torch.zeros(2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="require grad"):
        pf.ops.langevin_(x, score, step_size=0.1, seed=0, step=0)
    with pytest.raises(ValueError, match="require grad"):
        pf.ops.reverse_step_(score, x, growth=1.0, drift_scale=1.0, noise_scale=1.0, seed=0, step=0)
    with torch.no_grad():
        pf.ops.langevin_(x, score, step_size=0.1, seed=0, step=0)


def test_compiled_loop_equals_eager():
    x = state(17, (3,), torch.float32)
    compiled = torch.compile(every_kind_of_op, fullgraph=True, backend="aot_eager")
    for h, first in ((0.1, 0), (0.2, 3), (0.3, 5)):
        for a, b in zip(every_kind_of_op(x, h, first), compiled(x, h, first), strict=True):
            assert torch.equal(a, b)


def test_varying_numbers_compile_at_most_twice():
    counter = torch._dynamo.testing.CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def step(x, h, k):
        return pf.ops.langevin(x, -x, step_size=h, seed=1, step=k)

    x = state(5, (2,), torch.float32)
    for k in range(6):
        h = torch.tensor(0.1 * (k + 1))
        assert torch.equal(step(x, h, k), pf.ops.langevin(x, -x, step_size=h, seed=1, step=k))
    assert counter.frame_count <= 2


def test_seeds_and_sizes_may_vary_under_compile():
    counter = torch._dynamo.testing.CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def draw(n, seed):
        return pf.random.normal(n, 4, seed=seed)

    for n, seed in ((3, 0), (4, 7), (5, 9), (6, 2**62)):
        assert torch.equal(draw(n, seed), pf.random.normal(n, 4, seed=seed))
    assert counter.frame_count <= 3


@pytest.mark.slow
def test_inductor_equals_eager():
    @torch.compile(fullgraph=True)
    def step(x, h):
        return pf.ops.langevin(x, -x, step_size=h, seed=1, step=4)

    x, h = state(17, (3,), torch.float32), torch.tensor(0.1)
    assert torch.allclose(
        step(x, h), pf.ops.langevin(x, -x, step_size=h, seed=1, step=4), atol=1e-6
    )


def test_in_place_ops_tell_autograd():
    # torch refuses to differentiate through memory that was overwritten since; so must ours.
    law, counts = ZOO["gaussian-diagonal"], torch.zeros(4, dtype=torch.int64)
    for write in (
        lambda x: pf.ops.langevin_(x, -x, step_size=0.1, seed=0, step=0),
        lambda x: pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=0, out=x),
        lambda x: pf.ops.reverse_step_(
            x, -x, growth=1, drift_scale=1, noise_scale=1, seed=0, step=0
        ),
        lambda x: pf.ops.langevin_run_(x, law, step_size=0.1, n_steps=1, seed=0),
        lambda x: pf.ops.commit_(x, x + 1, counts),
        lambda x: pf.random.normal(4, 3, seed=0, out=x),
    ):
        x, weight = torch.ones(4, 3), torch.ones(3, requires_grad=True)
        loss = (x * weight).sum()
        write(x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_memory_that_wants_a_gradient_is_not_written_to():
    out = torch.zeros(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"^out: "):
        pf.ops.langevin(torch.ones(4, 3), out.detach(), step_size=0.1, seed=0, step=0, out=out)
    assert torch.equal(out, torch.zeros(4, 3))


def test_inference_mode():
    with torch.inference_mode():
        x = torch.zeros(3, 2)
        pf.ops.langevin_(x, -x, step_size=0.1, seed=0, step=0)
        chains = pf.sample(lambda x: -x.square().sum(1), pf.Langevin(0.1), x, n_steps=3, seed=0)
    assert chains.draws.shape == (3, 3, 2)


def test_coefficients_that_want_a_gradient_are_refused():
    x, h = torch.zeros(3, 2), torch.tensor(0.1, requires_grad=True)
    with pytest.raises(ValueError, match="step_size"):
        pf.ops.langevin(x, x, step_size=h, seed=0, step=0)
    with pytest.raises(ValueError, match="mean_scale"):
        pf.ops.diffuse(x, mean_scale=h, std=0.1, seed=0)
    with pytest.raises(ValueError, match="drift_scale"):
        pf.ops.reverse_step(x, x, growth=1.0, drift_scale=h, noise_scale=0.1, seed=0, step=0)


def test_targets_under_transforms_and_forward_mode():
    law = ZOO["mixture-isotropic"]
    x = law.sample(5, seed=1, dtype=torch.float64)
    direction = torch.ones_like(x)
    expected = (law.score(x) * direction).sum(1)
    _, tangent = torch.func.jvp(law.log_density, (x,), (direction,))
    assert torch.allclose(tangent, expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(law.log_density(dual)).tangent
    assert torch.allclose(tangent, expected)


def test_numpy_scalars_are_numbers_and_bools_are_not():
    x = torch.ones(3, 2)
    a = pf.ops.langevin(x, x, step_size=np.float64(0.1), seed=np.int64(1), step=np.int64(2))
    assert torch.equal(a, pf.ops.langevin(x, x, step_size=0.1, seed=1, step=2))
    for bad in ({"step_size": True}, {"beta": True}, {"seed": True}, {"step": True}):
        arguments = {"step_size": 0.1, "seed": 1, "step": 2, **bad}
        with pytest.raises(TypeError, match=next(iter(bad))):
            pf.ops.langevin(x, x, **arguments)
