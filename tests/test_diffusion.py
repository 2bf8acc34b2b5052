# SPDX-License-Identifier: Apache-2.0
"""Arguments of the diffusion package and its networks."""

import math

import pytest
import torch

import pushforward as pf

PROCESS = pf.diffusion.OrnsteinUhlenbeck()
X = torch.zeros(3, 2)


def score(x, t):
    return -x


def test_coefficients_for_floats_and_tensors():
    t = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)
    for kappa in (0.0, 0.7):
        process = pf.diffusion.OrnsteinUhlenbeck(kappa, 0.9)
        for value, expected in zip(process.std(t), t, strict=True):
            assert value.item() == pytest.approx(process.std(expected.item()), rel=1e-12)
        levels = process.std(t) / process.mean_scale(t)
        assert torch.allclose(process.time_at(levels), t, atol=1e-12)


def test_score_sees_the_time_as_a_0d_tensor_of_the_state():
    seen = []

    def record(x, t):
        seen.append((t.shape, t.dtype, t.item()))
        return -x

    pf.diffusion.reverse(record, PROCESS, X.double(), times=[2.0, 1.0, 0.0], seed=0)
    assert seen == [(torch.Size([]), torch.float64, 2.0), (torch.Size([]), torch.float64, 1.0)]


def test_seed_none_follows_manual_seed():
    torch.manual_seed(3)
    a = PROCESS.diffuse(X, 1.0)
    b = PROCESS.diffuse(X, 1.0)
    torch.manual_seed(3)
    assert torch.equal(a, PROCESS.diffuse(X, 1.0))
    assert not torch.equal(a, b)


def test_forward_and_reverse_share_no_noise():
    forward = PROCESS.noise(X, seed=1)
    out = pf.ops.reverse_step(X, X, growth=1.0, drift_scale=0.0, noise_scale=1.0, seed=1, step=0)
    assert not torch.allclose(forward, out)


def test_odd_sides_and_unet_scales():
    net = pf.nets.UNet(2, width=8, n_scales=3, depth=2)
    assert net(torch.zeros(1, 2, 8, 12), torch.zeros(1)).shape == (1, 2, 8, 12)
    with pytest.raises(ValueError, match="multiples of 4"):
        net(torch.zeros(1, 2, 6, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="x"):
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1))


def test_unet_gradients_reach_every_parameter():
    torch.manual_seed(0)
    net = pf.nets.UNet(1, width=8)
    for p in net.parameters():  # the last convolutions start at zero and would block the others
        torch.nn.init.normal_(p, std=0.1)
    net(torch.randn(2, 1, 8, 8), torch.randn(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda d: d.OrnsteinUhlenbeck(kappa=-1.0), ValueError, "kappa"),
        (lambda d: d.OrnsteinUhlenbeck(diffusion=0.0), ValueError, "diffusion"),
        (lambda d: d.OrnsteinUhlenbeck(kappa="1"), TypeError, "kappa"),
        (lambda d: d.OrnsteinUhlenbeck(kappa=math.nan), ValueError, "kappa"),
        (lambda d: PROCESS.diffuse(X, -1.0, seed=0), ValueError, "t"),
        (lambda d: PROCESS.diffuse(X, torch.tensor([-1.0, 0.0, 0.0]), seed=0), ValueError, "t"),
        (lambda d: PROCESS.diffuse(X, torch.ones(2), seed=0), ValueError, "t"),
        (lambda d: PROCESS.diffuse(X, "1", seed=0), TypeError, "t"),
        (lambda d: PROCESS.diffuse(X.int(), 1.0, seed=0), TypeError, "x"),
        (lambda d: PROCESS.diffuse([0.0], 1.0, seed=0), TypeError, "x"),
        (lambda d: PROCESS.diffuse(torch.tensor(0.0), 1.0, seed=0), ValueError, "x"),
        (lambda d: PROCESS.diffuse(X, 1.0, seed=-1), ValueError, "seed"),
        (lambda d: PROCESS.diffuse(X, 1.0, seed=0, chain_offset=-1), ValueError, "chain_offset"),
        (lambda d: PROCESS.noise(3, seed=0), TypeError, "like"),
        (lambda d: d.reverse(score, PROCESS, X, times=[1.0]), ValueError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=[1.0, 1.0]), ValueError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=[0.0, 1.0]), ValueError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=[1.0, -0.1]), ValueError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=[math.inf, 0.0]), ValueError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=3), TypeError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=torch.ones(2, 2)), TypeError, "times"),
        (lambda d: d.reverse(score, PROCESS, X, times=[1, 0], alpha=-0.1), ValueError, "alpha"),
        (lambda d: d.reverse(score, PROCESS, X, times=[1, 0], alpha="1"), TypeError, "alpha"),
        (lambda d: d.reverse(score, 1.0, X, times=[1, 0]), TypeError, "process"),
        (lambda d: d.reverse(score, PROCESS, [1.0], times=[1, 0]), TypeError, "x_T"),
        (lambda d: d.reverse(score, PROCESS, X.half(), times=[1, 0]), TypeError, "float32"),
        (lambda d: d.reverse(lambda x, t: x[0], PROCESS, X, times=[1, 0]), ValueError, "score"),
        (lambda d: d.reverse(lambda x, t: 1.0, PROCESS, X, times=[1, 0]), TypeError, "score"),
        (lambda d: d.reverse(lambda x, t: x.double(), PROCESS, X, times=[1, 0]), ValueError, "score"),
        (lambda d: d.denoising_loss(score, PROCESS, X, 1.0, weight=torch.ones(3, 1)), ValueError, "weight"),
        (lambda d: d.denoising_loss(score, PROCESS, X, torch.ones(3, 1)), ValueError, "t"),
        (lambda d: d.reverse(score, PROCESS, X * math.nan, times=[1, 0]), ValueError, "x_T"),
        (lambda d: PROCESS.time_at(0.5), TypeError, "noise_level"),
        (lambda d: d.denoising_loss(lambda x, t: x[:1], PROCESS, X, 1.0, seed=0), ValueError, "denoiser"),
        (lambda d: d.PreconditionedDenoiser(score, PROCESS, 0.0), ValueError, "data_std"),
        (lambda d: pf.nets.UNet(0), ValueError, "channels"),
        (lambda d: pf.nets.UNet(1, n_scales=0), ValueError, "n_scales"),
        (lambda d: pf.nets.MLP(0), ValueError, "dim"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, error, word):
    with pytest.raises(error, match=word):
        call(pf.diffusion)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_steps": -1}, "n_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"noise_levels": (1.0, 0.5)}, "noise_levels"),
        ({"ema": 1.0}, "ema"),
        ({"data": torch.zeros(0, 2)}, "data"),
        ({"seed": -1}, "seed"),
    ],
)
def test_fit_denoiser_names_bad_arguments(change, word):
    denoiser = pf.diffusion.PreconditionedDenoiser(pf.nets.MLP(2), PROCESS, data_std=1.0)
    arguments = {"data": torch.zeros(5, 2), "n_steps": 1, **change}
    with pytest.raises(ValueError, match=word):
        pf.diffusion.fit_denoiser(denoiser, arguments.pop("data"), **arguments)


def test_reverse_reports_chains_that_leave_the_finite_numbers():
    def broken(x, t):
        return torch.where(torch.arange(3)[:, None] == 1, math.inf, -x)

    with pytest.warns(RuntimeWarning, match="1 of 3 chains"):
        out = pf.diffusion.reverse(broken, PROCESS, X, times=[1.0, 0.5, 0.0], seed=0)
    assert out[[0, 2]].isfinite().all()


def test_networks_train_and_sample_with_the_same_times():
    net = pf.nets.MLP(2)
    pf.diffusion.denoising_loss(net, PROCESS, X, 0.5, seed=0).backward()
    score = pf.diffusion.tweedie_score(net, PROCESS)
    assert pf.diffusion.reverse(score, PROCESS, X, times=[1.0, 0.5], seed=0).shape == X.shape


def test_fit_denoiser_keeps_buffers():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.net = torch.nn.BatchNorm1d(2), pf.nets.MLP(2)

        def forward(self, x, level):
            return self.net(self.norm(x + 5), level)

    denoiser = pf.diffusion.PreconditionedDenoiser(Net(), PROCESS, data_std=1.0)
    fitted = pf.diffusion.fit_denoiser(denoiser, torch.randn(50, 2), n_steps=5, seed=0)
    assert torch.equal(fitted.network.norm.running_mean, denoiser.network.norm.running_mean)
    assert (fitted.network.norm.running_mean != 0).all()


def test_states_without_an_event():
    x = torch.zeros(4)
    assert PROCESS.diffuse(x, 0.5, seed=0).shape == (4,)
    assert pf.diffusion.denoising_loss(lambda x, t: x, PROCESS, x, 0.5, seed=0).ndim == 0
    assert pf.diffusion.reverse(score, PROCESS, x, times=[1.0, 0.0], seed=0).shape == (4,)
