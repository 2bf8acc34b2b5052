# SPDX-License-Identifier: Apache-2.0
"""Native targets: the kernel, the torch formula, the exact draws and the exact moments agree."""

import copy
import math

import pytest
import torch
from scipy import integrate

import pushforward as pf
from conftest import ZOO

# Largest error of a float32 sum of the terms these densities have, over 1 + |value|; float64
# likewise. Cancellation in |mean - x| is included because the points lie among the means.
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 31, 32, 33, 100])
def test_kernel_equals_torch_formula(target, dtype, n):
    x = 1.5 * pf.random.normal(n, target.dim, seed=1, dtype=dtype)
    for native, formula in (
        (target.log_density(x), target.torch_log_density(x)),
        (target.score(x), target.torch_score(x)),
    ):
        assert native.shape == formula.shape
        assert native.dtype == dtype
        error = (native - formula).abs() / (1 + formula.abs())
        assert (error < TOLERANCE[dtype]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("n", [1, 15, 32, 33, 70])
def test_rows_of_any_length_come_and_go_whole(n, dtype):
    for dim in range(1, 70):
        law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
        memory = torch.full((n + 2, dim), 9.0, dtype=dtype)
        x = memory[1:-1].copy_(pf.random.normal(n, dim, seed=dim, dtype=dtype))
        assert torch.equal(law.score(x), -x)
        draws = pf.sample(law, pf.MALA(0.1), x, n_steps=3, seed=0).draws
        assert torch.equal(draws[-1], pf.sample(law, pf.MALA(0.1), x, n_steps=3, seed=0).x)
        before = x.clone()
        pf.ops.markov_run_(
            x, law, "mala", step_size=0.1, n_steps=3, seed=0, counts=pf.ops.Counts.zeros(n)
        )  # fmt: skip
        assert not torch.equal(x, before)
        assert (memory[[0, -1]] == 9).all()  # what lies beside is left alone


def test_gradient_goes_through_log_density(target):
    x = pf.random.normal(5, target.dim, seed=2, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x).sum(), x)
    assert torch.allclose(gradient, target.score(x.detach()), rtol=1e-9, atol=1e-9)


def test_score_is_differentiable(target):
    x = pf.random.normal(3, target.dim, seed=3, dtype=torch.float64).requires_grad_()
    (second,) = torch.autograd.grad(target.score(x).sum(), x)
    h = 1e-6
    shifted = (target.score(x.detach() + h).sum(1) - target.score(x.detach() - h).sum(1)) / (2 * h)
    assert torch.allclose(second.sum(1), shifted, rtol=1e-4, atol=1e-4)  # central differences


# ---- the op ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_op_gives_the_same_bits_alone_and_together(target, dtype):
    x = target.sample(33, seed=4, dtype=dtype)
    value, score = pf.ops.log_density_and_score(x, target)
    assert torch.equal(pf.ops.log_density(x, target), value)
    assert torch.equal(pf.ops.score(x, target), score)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_op_is_its_score(target, dtype):
    x = target.sample(33, seed=4, dtype=dtype).requires_grad_()
    weight = torch.linspace(-2, 3, 33, dtype=dtype)
    value, score = pf.ops.log_density_and_score(x, target)
    assert not score.requires_grad
    assert not pf.ops.score(x, target).requires_grad
    for of in (value, pf.ops.log_density(x, target)):
        (got,) = torch.autograd.grad(of @ weight, x)
        assert torch.equal(got, weight[:, None] * score)
    if dtype == torch.float64:  # scores of up to 100 in the zoo
        (formula,) = torch.autograd.grad(target.torch_log_density(x) @ weight, x)
        assert torch.allclose(got, formula, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian-dense", "mixture-isotropic", "banana", "ring"])
def test_the_op_under_gradcheck(name):
    x = ZOO[name].sample(3, seed=5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pf.ops.log_density(x, ZOO[name]), (x,))


def test_what_the_op_cannot_differentiate_is_refused():
    law = ZOO["mixture-isotropic"]
    x = law.sample(3, seed=5).requires_grad_()
    (gradient,) = torch.autograd.grad(pf.ops.log_density(x, law).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        (gradient + x**3).sum().backward()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises(ValueError, match="x: expected a tensor without a tangent"):
            pf.ops.log_density(dual, law)
    kind, dim, k, tensors, scalars = law.native_arguments(x.dtype)
    wanted = [tensors[0].clone().requires_grad_(), *tensors[1:]]
    with pytest.raises(ValueError, match="parameters: expected tensors without gradient"):
        torch.ops.pushforward.evaluate(x, wanted, kind, dim, k, scalars)


def test_the_gradient_of_the_op_compiles():
    law = ZOO["mixture-isotropic"]
    x = law.sample(9, seed=5).requires_grad_()

    def loss(x):
        return (2 * pf.ops.log_density(x, law)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(loss(x), x)
    assert torch.equal(torch.autograd.grad(compiled(x), x)[0], expected)
    both = torch.compile(
        lambda x: pf.ops.log_density_and_score(x, law), fullgraph=True, backend="aot_eager"
    )
    assert [t.requires_grad for t in both(x)] == [True, False]


# ---- draws and moments ---------------------------------------------------------------------------


def test_exact_draws_have_the_exact_moments(target):
    # z-scores of first and second moments in whitened coordinates; 5.5 sigma twice dim times is a
    # false alarm in 1e6 for the whole zoo. The funnel's second moments have no fourth moment to
    # speak of, so its neck is tested here and its width below.
    n = 200_000
    x = target.sample(n, seed=11, dtype=torch.float64)
    keep = slice(0, 1) if isinstance(target, pf.targets.Funnel) else slice(None)
    covariance = target.covariance[keep, keep]
    factor = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(factor, (x - target.mean)[:, keep].T, upper=False).T
    first = z.mean(0) * math.sqrt(n)
    square = z**2
    second = (square.mean(0) - 1) * math.sqrt(n) / square.std(0)
    assert first.abs().max() < 5.5
    assert second.abs().max() < 5.5


def test_funnel_width_given_neck():
    law = pf.targets.Funnel(6, scale=1.2)
    x = law.sample(100_000, seed=12, dtype=torch.float64)
    z = x[:, 1:] * torch.exp(-x[:, :1] / 2)  # standard normal whatever the neck
    assert (z.mean() * math.sqrt(z.numel())).abs() < 5.5
    assert ((z**2).mean() - 1).abs() < 5.5 * math.sqrt(2 / z.numel())


def test_exact_draws_follow_the_density(target):
    # E[grad log pi] = 0 and E[x . grad log pi] = -dim for every smooth density: Stein's identity
    # ties the draws to the score without any moment formula.
    n = 200_000
    x = target.sample(n, seed=13, dtype=torch.float64)
    score = target.score(x)
    for value, expected in ((score, 0.0), (x * score, -1.0)):
        error = (value.mean(0) - expected) * math.sqrt(n) / value.std(0)
        assert error.abs().max() < 5.5


@pytest.mark.parametrize(
    "law",
    [
        pf.targets.DoubleWell(1, mu=-6.0, b=0.8),
        pf.targets.DoubleWell(1, mu=1.0, b=2.0),
        pf.targets.DoubleWell(1, mu=0.0, b=0.1),
    ],
)
def test_log_z_and_variance_of_wells(law):
    def density(x, power=0):
        point = torch.tensor([[x]], dtype=torch.float64)
        return x**power * math.exp(law.log_density(point).item())

    z, _ = integrate.quad(density, -15, 15, limit=400, epsabs=0, epsrel=1e-11)
    second, _ = integrate.quad(density, -15, 15, args=(2,), limit=400, epsabs=0, epsrel=1e-11)
    assert law.log_z == pytest.approx(math.log(z), rel=1e-9)
    assert law.covariance.item() == pytest.approx(second / z, rel=1e-9)


@pytest.mark.parametrize(
    "law",
    [
        pf.targets.Ring(2.0, 0.3),
        pf.targets.Ring(0.5, 1.0),
        pf.targets.Gaussian(torch.zeros(2), covariance=torch.tensor([[2.0, 0.9], [0.9, 1.0]])),
        pf.targets.Banana(2, scale=0.8, curvature=0.5),
        pf.targets.Funnel(2, scale=0.4),
        ZOO["mixture-isotropic"],
    ],
    ids=lambda law: type(law).__name__,
)
def test_log_z_in_the_plane(law):
    # Trapezoidal rule over a box that holds all but 1e-9 of the mass.
    side = torch.linspace(-14, 14, 2801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    total = torch.logsumexp(law.log_density(grid), 0) + 2 * math.log(side[1] - side[0])
    assert law.log_z == pytest.approx(total.item(), abs=1e-6)
    weight = torch.exp(law.log_density(grid) - law.log_density(grid).logsumexp(0))
    assert torch.allclose(weight @ grid, law.mean, atol=1e-6)
    second = (grid * weight[:, None]).T @ grid - torch.outer(law.mean, law.mean)
    assert torch.allclose(second, law.covariance, rtol=1e-4, atol=1e-6)


def test_draws_split_anywhere(target):
    whole = target.sample(50, seed=3)
    parts = [target.sample(17, seed=3), target.sample(33, seed=3, chain_offset=17)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, target.sample(50, seed=4))


def test_targets_are_immutable_and_copy(target):
    with pytest.raises(AttributeError):
        target.dim = 3
    twin = copy.deepcopy(target)
    x = torch.zeros(2, target.dim)
    assert torch.equal(twin.log_density(x), target.log_density(x))


def test_parameters_are_copied():
    mean = torch.zeros(2)
    law = pf.targets.Gaussian(mean, scale=torch.ones(2))
    mean += 1
    assert law.mean.tolist() == [0.0, 0.0]


def test_numbers_in_lists_keep_their_digits():
    law = pf.targets.Gaussian([0.1], scale=[0.3])
    assert law.mean.item() == 0.1
    assert law.covariance.item() == pytest.approx(0.09, rel=1e-15)


def test_what_a_target_hands_out_is_a_copy():
    law = ZOO["mixture-isotropic"]
    before = law.log_density(torch.zeros(1, 2, dtype=torch.float64))
    for tensor in (law.mean, law.means, law.weights, law.covariance):
        tensor += 3
    after = law.torch_log_density(torch.zeros(1, 2, dtype=torch.float64))
    assert torch.allclose(before, after, rtol=1e-12)
    with pytest.raises(AttributeError):
        ZOO["ring"].radius = 10.0
    h = torch.full((2,), 0.1)
    kernel = pf.Langevin(h)
    h *= 100
    assert kernel.step_size.tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("mu", "b"), [(-1e4, 0.01), (-1.0, 1e-8), (-1e9, 1.0), (1e6, 1e-3), (0.0, 1e-12), (0.0, 1e12)]
)
def test_extreme_wells(mu, b):
    # Laplace's formula around the wells, exact to relative order b / mu^2; the quartic alone has
    # <x^2> = 2 Gamma(3/4) / Gamma(1/4) / sqrt(b).
    law = pf.targets.DoubleWell(1, mu, b)
    if mu < 0:
        variance, log_z = -mu / b, mu * mu / (4 * b) + 0.5 * math.log(math.pi / -mu) + math.log(2)
    elif mu > 0:
        variance, log_z = 1 / mu, 0.5 * math.log(2 * math.pi / mu)
    else:
        variance = 2 * math.gamma(0.75) / math.gamma(0.25) / math.sqrt(b)
        log_z = math.log(math.gamma(0.25) / math.sqrt(2) / b**0.25)
    assert law.covariance.item() == pytest.approx(variance, rel=1e-6)
    assert law.log_z == pytest.approx(log_z, rel=1e-12, abs=1e-6)
    x = law.sample(20_000, seed=1, dtype=torch.float64)
    z = (x.square().mean().item() - variance) / (x.square().std().item() / math.sqrt(len(x)))
    assert abs(z) < 5.5 or x.square().std() < 1e-3 * variance


def test_parameters_that_overflow_the_state_are_refused():
    law = pf.targets.Gaussian(torch.zeros(1), scale=[1e-25])
    with pytest.raises(ValueError, match="overflow"):
        law.log_density(torch.zeros(1, 1))
    assert law.log_density(torch.zeros(1, 1, dtype=torch.float64)).isfinite().all()


def test_wide_states_need_no_dense_matrices():
    law = pf.targets.GaussianMixture(torch.zeros(2, 5000), scales=torch.ones(2))
    assert law.sample(2000, seed=1).shape == (2000, 5000)
    assert pf.targets.Gaussian(torch.zeros(50_000), scale=torch.ones(50_000)).dim == 50_000


def test_weights_are_normalised():
    law = pf.targets.GaussianMixture(torch.zeros(2, 1), scales=torch.ones(2), weights=[1.0, 3.0])
    assert law.weights.tolist() == [0.25, 0.75]


def test_one_scale_may_stand_for_all():
    x, means = torch.randn(5, 2), torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])
    each = torch.full((3,), 0.3, dtype=torch.float64)
    one, each = (pf.targets.GaussianMixture(means, scales=s) for s in (0.3, each))
    assert torch.equal(one.log_density(x), each.log_density(x))


def test_far_points_keep_a_score():
    law = ZOO["mixture-isotropic"]
    x = torch.tensor([[1e3, 0.0], [1e15, 1e15]])
    assert law.score(x).isfinite().all()


@pytest.mark.parametrize(
    ("make", "error", "word"),
    [
        (lambda t: t.Gaussian(torch.zeros(2)), TypeError, "exactly one"),
        (lambda t: t.Gaussian(torch.zeros(2), scale=[1.0, 1.0], precision=[1.0, 1.0]), TypeError, "one"),
        (lambda t: t.Gaussian(torch.zeros(2), scale=torch.ones(3)), ValueError, "scale"),
        (lambda t: t.Gaussian(torch.zeros(2), scale=[1.0, -1.0]), ValueError, "positive"),
        (lambda t: t.Gaussian(torch.zeros(2), precision=[[1.0, 2.0], [2.0, 1.0]]), ValueError, "definite"),
        (lambda t: t.Gaussian(torch.zeros(2), precision=[[1.0, 0.5], [0.0, 1.0]]), ValueError, "symmetric"),
        (lambda t: t.Gaussian([0.0, math.nan], scale=[1.0, 1.0]), ValueError, "finite"),
        (lambda t: t.Gaussian("zero", scale=[1.0]), TypeError, "mean"),
        (lambda t: t.Gaussian(torch.zeros(0), scale=torch.zeros(0)), ValueError, "mean"),
        (lambda t: t.GaussianMixture(torch.zeros(2, 2)), TypeError, "one of"),
        (lambda t: t.GaussianMixture(torch.zeros(2), scales=torch.ones(2)), ValueError, "means"),
        (lambda t: t.GaussianMixture(torch.zeros(2, 2), scales=torch.zeros(2)), ValueError, "scales"),
        (lambda t: t.GaussianMixture(torch.zeros(2, 2), scales=-0.5), ValueError, "scales"),
        (lambda t: t.GaussianMixture(torch.zeros(2, 2), scales=torch.ones(2), weights=[1.0, 0.0]), ValueError, "weights"),
        (lambda t: t.GaussianMixture(torch.zeros(2, 2), covariances=torch.zeros(2, 2, 2)), ValueError, "definite"),
        (lambda t: t.DoubleWell(0, -1.0, 1.0), ValueError, "dim"),
        (lambda t: t.DoubleWell(1, -1.0, 0.0), ValueError, "b"),
        (lambda t: t.DoubleWell(1, "x", 1.0), TypeError, "mu"),
        (lambda t: t.Banana(1), ValueError, "dim"),
        (lambda t: t.Funnel(2, scale=0.0), ValueError, "scale"),
        (lambda t: t.Ring(radius=-1.0), ValueError, "radius"),
        (lambda t: t.Energy(3), TypeError, "fn"),
        (lambda t: t.Energy(torch.sum, beta="2"), TypeError, "beta"),
        (lambda t: t.Energy(torch.sum, beta=True), TypeError, "beta"),
        (lambda t: t.Energy(torch.sum, beta=0.0), ValueError, "beta"),
        (lambda t: t.Energy(torch.sum, beta=math.nan), ValueError, "beta"),
        (lambda t: t.Energy(torch.sum, beta=1e-50), ValueError, "beta"),
        (lambda t: t.Energy(torch.sum, beta=10**400), ValueError, "beta"),
        (lambda t: t.as_target(3), TypeError, "target"),
        (lambda t: t.Ring().log_density(torch.zeros(3)), ValueError, "x"),
        (lambda t: t.Ring().score(torch.zeros(3, 3)), ValueError, "x"),
        (lambda t: t.Ring().log_density([[0.0, 0.0]]), TypeError, "x"),
        (lambda t: t.Ring().sample(-1), ValueError, "n"),
        (lambda t: t.Ring().sample(2, seed=-1), ValueError, "seed"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, error, word):
    with pytest.raises(error, match=word):
        make(pf.targets)


def test_a_target_that_writes_into_its_argument_is_refused():
    def law(x):
        x.clamp_(min=0)
        return -x.sum(1)

    with pytest.raises(ValueError, match=r"^target: .* writes to x in place"):
        pf.sample(law, pf.RandomWalk(1.0), torch.ones(5, 2), n_steps=10, seed=1)


def test_a_complex_log_density_is_refused():
    for kernel in (pf.RandomWalk(1.0), pf.MALA(0.1)):
        with pytest.raises(TypeError, match=r"^target: expected a real log-density, got .*complex"):
            pf.sample(lambda x: -x.sum(1) + 1j, kernel, torch.ones(5, 2), n_steps=10, seed=1)
