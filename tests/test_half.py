# SPDX-License-Identifier: Apache-2.0
"""Two-byte storage: the elementwise ops compute in float32 and round once to nearest even."""

import pytest
import torch

import pushforward as pf

HALVES = [torch.bfloat16, torch.float16]
STEP = {"step_size": 0.3, "beta": 1.7, "seed": 5, "step": 7}


def states(dtype, n=33, dim=7):
    x, score = (pf.random.normal(n, dim, seed=s).to(dtype) for s in (1, 2))
    return x, score


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("dim", [1, 3, 4, 64])
def test_ops_round_the_float32_result(dtype, dim):
    x, score = states(dtype, dim=dim)
    wide = (x.float(), score.float())
    h = torch.linspace(0.1, 0.9, len(x))
    for step_size in (0.3, h):
        step = STEP | {"step_size": step_size}
        got = pf.ops.langevin(x, score, **step)
        assert got.dtype == dtype
        assert torch.equal(got, pf.ops.langevin(*wide, **step).to(dtype))
    ou = {"mean_scale": 0.5, "std": 0.4, "seed": 3}
    assert torch.equal(pf.ops.diffuse(x, **ou), pf.ops.diffuse(wide[0], **ou).to(dtype))
    back = {"growth": 1.1, "drift_scale": 0.3, "noise_scale": 0.2, "seed": 4, "step": 2}
    assert torch.equal(
        pf.ops.reverse_step(x, score, **back), pf.ops.reverse_step(*wide, **back).to(dtype)
    )
    y = x.clone()
    assert pf.ops.langevin_(y, score, **STEP) is y
    assert torch.equal(y, pf.ops.langevin(x, score, **STEP))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_noise_is_the_float32_noise_rounded(dtype):
    for draw in (pf.random.normal, pf.random.uniform):
        got = draw(5, 77, seed=3, start=2, dtype=dtype)
        assert torch.equal(got, draw(5, 77, seed=3, start=2).to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_of_the_type_survives(dtype):
    """Widening is exact: a step of no length gives each of the 65536 patterns back."""
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(256, 256)
    still = {"growth": 1, "drift_scale": 0, "noise_scale": 0, "seed": 0, "step": 0}
    got = pf.ops.reverse_step(x, torch.zeros_like(x), **still)
    same = (got == x) | (got.isnan() & x.isnan())
    # inf * 0 from the noise term is NaN by the rules of float32
    assert bool((same | x.isinf()).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_is_torchs_over_the_whole_range(dtype):
    """Ties, overflow, subnormals: the conversion of a float32 equals torch's for many patterns."""
    patterns = torch.arange(-(2**31), 2**31, 40009, dtype=torch.int64).to(torch.int32)
    ties = (torch.arange(65536, dtype=torch.int32) << 16) | 0x8000
    fine = (torch.arange(65536, dtype=torch.int32) << 16) | 0x1000
    values = torch.cat((patterns, ties, fine)).view(torch.float32)
    values = values[values.isfinite()]
    x = torch.zeros(len(values), 1, dtype=dtype)
    got = pf.ops.diffuse(x, mean_scale=1.0, std=0.0, seed=0)
    assert torch.equal(got, x)
    # mean_scale carries the float32 number: 1 * value, rounded on the way out
    one = torch.ones(len(values), 1, dtype=dtype)
    got = pf.ops.diffuse(one, mean_scale=values, std=0.0, seed=0)
    expected = values.to(dtype)[:, None]
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_and_compile(dtype):
    x, score = states(dtype)
    x.requires_grad_()
    pf.ops.langevin(x, score, **STEP).float().sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    compiled = torch.compile(
        lambda x, s: pf.ops.langevin(x, s, **STEP), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x.detach(), score), pf.ops.langevin(x.detach(), score, **STEP))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_runs_refuse_them(dtype):
    x, score = states(dtype, dim=2)
    target = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    with pytest.raises(TypeError, match=r"x: expected float32 or float64"):
        pf.ops.langevin_run_(x, target, step_size=0.1, n_steps=1, seed=0)
    with pytest.raises(TypeError, match=r"score: expected \w+, the type of x"):
        pf.ops.langevin(x, score.float(), **STEP)
    with pytest.raises(TypeError, match=r"step_size: expected float32"):
        pf.ops.langevin(x, score, **STEP | {"step_size": torch.tensor(0.1, dtype=dtype)})
