# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a Markov chain: starts, densities and proposals that are not what they seem."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pushforward as pf
from conftest import ZOO

LAW = ZOO["gaussian-plane"]
TARGETS = {"native": LAW, "torch": pf.Energy(lambda x: -LAW.torch_log_density(x))}
STANDARD = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
ADJUSTED = [
    pf.RandomWalk(0.5),
    pf.MetropolisHastings(pf.mcmc.Autoregressive(0.5)),
    pf.Independence(STANDARD),
    pf.MALA(0.1),
    pf.HMC(0.1, 3),
    pf.NUTS(0.1, max_depth=4),
]
UNADJUSTED = [
    pf.Langevin(0.1),
    pf.AnnealedLangevin(0.1, [1.0, 2.0]),
    pf.UnderdampedLangevin(0.1, 1.0),
]


def name_of(kernel):
    return type(kernel).__name__


all_kernels = pytest.mark.parametrize("kernel", ADJUSTED + UNADJUSTED, ids=name_of)
adjusted = pytest.mark.parametrize("kernel", ADJUSTED, ids=name_of)
may_warn = pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")


@pytest.fixture(params=TARGETS)
def target(request):
    return TARGETS[request.param]


def start(n=37, seed=0):
    return LAW.sample(n, seed=seed)


# ---- the density ---------------------------------------------------------------------------------


@all_kernels
def test_a_start_outside_the_support_names_the_chains(kernel):
    gamma = torch.distributions.Gamma(2.0, 1.0, validate_args=False)

    def density(x):
        return torch.where(x[:, 0] > 0, gamma.log_prob(x[:, 0].abs()) - x[:, 1] ** 2, -torch.inf)

    def raising(x):
        return torch.distributions.Gamma(2.0, 1.0, validate_args=True).log_prob(x[:, 0])

    x = torch.tensor([[1.0, 1.0], [-1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    for law, why in ((density, "$"), (raising, r" \(the target raised ValueError: Expected value")):
        with pytest.raises(ValueError, match=r"2 chains, the first being \[1, 3\]" + why):
            pf.sample(law, kernel, x, n_steps=5, seed=0)


@pytest.mark.parametrize("kernel", [k for k in UNADJUSTED if name_of(k) != "AnnealedLangevin"])
def test_a_native_start_of_density_zero_names_the_chains(kernel):
    x = torch.zeros(4, 2)
    x[2] = 1e20  # its square is beyond float32
    with pytest.raises(ValueError, match=r"1 chains, the first being \[2\]"):
        pf.sample(STANDARD, kernel, x, n_steps=5, seed=0)
    law, field = pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.1), torch.zeros(3, 4, 4)
    field[1] = 1e15
    for moves in (kernel, pf.lattice.Metropolis(width=1.0), pf.MALA(0.1)):
        with pytest.raises(ValueError, match=r"1 chains, the first being \[1\]"):
            pf.sample(law, moves, field, n_steps=5, seed=0)


@all_kernels
def test_constant_nan_finishes_and_is_counted(kernel):
    with pytest.warns(RuntimeWarning, match="37 of 37 chains left the finite numbers"):
        chains = pf.sample(lambda x: x.sum(1) * torch.nan, kernel, start(), n_steps=7, seed=0)
    assert torch.equal(chains.x, start())
    assert (chains.n_nonfinite == 7).all()
    if chains.accept_rate is not None:
        assert (chains.accept_rate == 0).all()


@pytest.mark.parametrize(
    "kernel", [k for k in ADJUSTED + UNADJUSTED if name_of(k) != "Independence"], ids=name_of
)
def test_states_of_any_shape_start(kernel):
    law = pf.targets.Gaussian(torch.zeros(1), scale=torch.ones(1))
    flat, column = (
        pf.sample(law, kernel, x, n_steps=5, seed=1).x for x in (torch.zeros(7), torch.zeros(7, 1))
    )
    assert torch.equal(flat, column[:, 0])


@may_warn
@all_kernels
def test_one_bad_chain_poisons_no_other(target, kernel):
    x = start()
    x[5] = 1e19  # its square is beyond float32, or nearly so
    good = pf.sample(target, kernel, start(), n_steps=9, seed=1)
    try:
        bad = pf.sample(target, kernel, x, n_steps=9, seed=1)
    except ValueError as error:  # log-density -infinity at the start
        assert "[5]" in str(error)
        return
    others = torch.arange(37) != 5
    assert torch.equal(good.x[others], bad.x[others])


@may_warn
@all_kernels
def test_rows_that_raise_are_refused_and_counted(kernel):
    # By a distribution's ValueError; as where the density is NaN.
    def density(x, validate=True):
        law = torch.distributions.Normal(0.0, torch.ones(()), validate_args=validate)
        scale = torch.distributions.Gamma(2.0, 1.0, validate_args=validate)
        if not validate:
            x = x * torch.where(x[:, 1:] > 0, 1.0, torch.nan)
        return law.log_prob(x[:, 0]) + scale.log_prob(x[:, 1])

    x = torch.full((50, 2), 0.3)
    call = {"n_steps": 60, "seed": 2}
    chains = pf.sample(density, kernel, x, **call)
    expected = pf.sample(lambda x: density(x, validate=False), kernel, x, **call)
    assert torch.equal(chains.draws, expected.draws)
    assert torch.equal(chains.n_nonfinite, expected.n_nonfinite)
    assert (chains.n_nonfinite <= 60).all()
    assert chains.n_nonfinite.sum() > 0
    if chains.accept_rate is not None:
        assert (chains.draws[..., 1] > 0).all()


@pytest.mark.parametrize("kernel", [pf.RandomWalk(0.5), pf.MALA(0.1), pf.NUTS(0.3, max_depth=4)])
@may_warn
def test_the_law_of_a_target_that_raises(kernel):
    def density(x):
        law = torch.distributions.Normal(0.0, torch.ones(()), validate_args=True)
        scale = torch.distributions.Gamma(2.0, 1.0, validate_args=True)
        return law.log_prob(x[:, 0]) + scale.log_prob(x[:, 1])

    chains = pf.sample(density, kernel, torch.ones(50, 2), n_steps=200, burn_in=20, seed=2)
    assert abs(chains.mean[1] - 2) < 0.2


@may_warn
def test_matrices_without_a_factor_are_refused():
    def matrix(x):
        m = torch.eye(2) + torch.diag_embed(x.expand(-1, 2) - 1)
        return torch.linalg.cholesky(m).diagonal(dim1=1, dim2=2).log().sum(1) - x[:, 0] ** 2

    chains = pf.sample(matrix, pf.RandomWalk(0.5), torch.ones(20, 1), n_steps=50, seed=2)
    assert (chains.draws > 0).all()
    assert chains.n_nonfinite.sum() > 0


@may_warn
@pytest.mark.parametrize("kernel", [pf.RandomWalk(1.0), pf.MALA(0.3), pf.Langevin(0.1)])
def test_rows_that_raise_beside_data_of_each_chain(kernel):
    # The edge of the support is another one in each chain, so that rows cannot change places.
    edges, calls = torch.linspace(-3.0, 3.0, 20), []

    def density(x, validate=True):
        calls.append(1)
        law = torch.distributions.Gamma(2.0, 1.0, validate_args=validate)
        distance = x[:, 0] - edges
        if not validate:
            distance = torch.where(distance >= 0, distance, torch.nan)
        return law.log_prob(distance)

    x, call = (edges + 0.5)[:, None], {"n_steps": 30, "seed": 2}
    chains = pf.sample(density, kernel, x, **call)
    n_calls = len(calls)
    expected = pf.sample(lambda x: density(x, validate=False), kernel, x, **call)
    assert torch.equal(chains.draws, expected.draws)
    assert torch.equal(chains.n_nonfinite, expected.n_nonfinite)
    assert chains.n_nonfinite.sum() > 0
    assert n_calls < 30 * 2 * 20


def test_rows_that_raise_are_found_by_halving():
    from pushforward.targets.torch_targets import evaluate

    calls, x = [], torch.ones(1024, 1)
    x[700] = -1.0

    def density(x):
        calls.append(1)
        return torch.distributions.Gamma(2.0, 1.0, validate_args=True).log_prob(x[:, 0])

    law = pf.targets.as_target(density)
    for good in (None, torch.ones(1024, 1)):
        calls.clear()
        value, score, raised = evaluate(law, x, good=good)
        assert len(calls) == 1 + 2 * 10
        assert raised.nonzero().tolist() == [[700]]
        assert value[700] == -torch.inf
        assert score[700].isnan()
        assert (value[:700] == -1).all()


@pytest.mark.parametrize("outside", [-torch.inf, torch.inf, torch.nan])
@pytest.mark.parametrize(
    "kernel",
    [pf.Langevin(0.1), pf.AnnealedLangevin(0.1, [1.0]), pf.UnderdampedLangevin(0.1, 1.0)],
    ids=name_of,
)
def test_no_step_is_taken_from_where_the_density_is_not_positive_and_finite(kernel, outside):
    # Its score is 0 there, so that autograd would let chains wander.
    def density(x):
        return torch.where(x[:, 0] > 0, -x[:, 0], outside)

    x = torch.ones(50, 1)
    with pytest.warns(RuntimeWarning, match="of 50 chains left the finite numbers"):
        chains = pf.sample(density, kernel, x, n_steps=100, seed=0)
    draws = torch.cat((x[None], chains.draws))[..., 0]
    held = draws[1:] == draws[:-1]
    assert torch.equal(held.sum(0), chains.n_nonfinite)
    assert held[draws[:-1] <= 0].all()
    assert chains.n_nonfinite.sum() > 0
    assert torch.allclose(chains.mean[0], draws[1:][~held].double().mean())
    if isinstance(kernel, pf.UnderdampedLangevin):
        assert (draws > 0).all()


def test_divergences_are_counted(target):
    chains = pf.sample(target, pf.HMC(50.0, 3), start().double(), n_steps=5, seed=1)
    assert (chains.n_divergent == 5).all()
    assert (chains.accept_rate < 1e-9).all()


# ---- proposals and parameters --------------------------------------------------------------------


class Blurred:
    """A proposal that torch draws."""

    def sample(self, x):
        return x + 0.5 * torch.randn_like(x)

    def log_prob(self, y, x):
        return torch.distributions.Normal(x, 0.5).log_prob(y).sum(1)


class GammaColumns:
    """Two independent gammas, whose conditionals have no inverse distribution function."""

    def log_density(self, x):
        return torch.distributions.Gamma(3.0, 1.0).log_prob(x).sum(1)

    def conditional(self, i, x):
        return torch.distributions.Gamma(torch.full((len(x),), 3.0), 1.0)


@pytest.mark.parametrize(
    ("law", "kernel"),
    [
        (LAW, pf.MetropolisHastings(Blurred())),
        (
            LAW,
            pf.Independence(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))),
        ),
        (LAW, pf.Independence(STANDARD)),
        (GammaColumns(), pf.mcmc.Gibbs()),
    ],
)
def test_chains_of_another_offset_are_other_chains(law, kernel):
    x = torch.full((20, 2), 0.5)
    first, second = (
        pf.sample(law, kernel, x, n_steps=9, seed=1, chain_offset=offset).x for offset in (0, 20)
    )
    assert not (first == second).any()
    assert torch.equal(first, pf.sample(law, kernel, x, n_steps=9, seed=1).x)


class Nearby:
    """y is uniform between x / 2 and 3 x / 2, from where x may be out of reach."""

    def __init__(self, validate):
        self.validate = validate

    def law(self, x):
        return torch.distributions.Uniform(x[:, 0] / 2, 1.5 * x[:, 0], validate_args=self.validate)

    def sample(self, x):
        return self.law(x).sample()[:, None]

    def log_prob(self, y, x):
        return self.law(x).log_prob(y[:, 0])


def test_a_proposal_that_cannot_go_back_is_refused():
    gamma = torch.distributions.Gamma(3.0, 1.0, validate_args=False)
    kernels = [pf.MetropolisHastings(Nearby(validate)) for validate in (False, True)]
    call = {"n_steps": 400, "store": "stats", "seed": 0}
    start, density = gamma.sample((500, 1)), lambda x: gamma.log_prob(x[:, 0])
    chains = pf.sample(density, kernels[0], start, **call)
    assert abs(chains.mean - 3) < 5.5 * chains.mcse
    assert chains.n_nonfinite.sum() == 0
    raising, silent = (
        pf.sample(density, kernel, start[:20], n_steps=20, seed=0) for kernel in reversed(kernels)
    )
    assert torch.equal(raising.draws, silent.draws)
    assert torch.equal(raising.accept_rate, silent.accept_rate)


def test_a_log_prob_that_always_raises_is_not_silent():
    class Broken(Blurred):
        def log_prob(self, y, x):
            raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        pf.sample(LAW, pf.MetropolisHastings(Broken()), start(), n_steps=1)


@pytest.mark.parametrize(
    ("law", "kernel"),
    [
        (LAW, pf.MetropolisHastings(Blurred())),
        (
            LAW,
            pf.Independence(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))),
        ),
        (GammaColumns(), pf.mcmc.Gibbs()),
    ],
    ids=["proposal", "independence", "gibbs"],
)
def test_the_callers_generators_are_left_alone(law, kernel, monkeypatch):
    def forbidden(seed):
        raise AssertionError("torch.manual_seed seeds every device")

    monkeypatch.setattr(torch, "manual_seed", forbidden)
    before = torch.get_rng_state()
    pf.sample(law, kernel, torch.full((20, 2), 0.5), n_steps=3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_proposals_are_named():
    class Shape:
        def sample(self, x):
            return x[:, :1]

        def log_prob(self, y, x):
            return torch.zeros(len(y))

    class Values(Shape):
        def sample(self, x):
            return x + 1

        def log_prob(self, y, x):
            return torch.zeros(len(y), 2)

    with pytest.raises(ValueError, match=r"proposal: expected draws of shape \(37, 2\)"):
        pf.sample(LAW, pf.MetropolisHastings(Shape()), start(), n_steps=1)
    with pytest.raises(ValueError, match=r"proposal: expected log_prob of shape \(37,\)"):
        pf.sample(LAW, pf.MetropolisHastings(Values()), start(), n_steps=1)
    uniform = torch.distributions.Independent(
        torch.distributions.Uniform(torch.zeros(2), torch.ones(2), validate_args=False), 1
    )
    with pytest.raises(ValueError, match="support that covers the states"):
        pf.sample(LAW, pf.Independence(uniform), start(), n_steps=1)
    raising = torch.distributions.Independent(
        torch.distributions.Uniform(torch.zeros(2), torch.ones(2), validate_args=True), 1
    )
    with pytest.raises(ValueError, match="support that covers the states"):
        pf.sample(LAW, pf.Independence(raising), start(), n_steps=1)
    for wrong in (object(), 3, pf.mcmc.LogNormal(1.0)):
        with pytest.raises(TypeError, match="proposal"):
            pf.Independence(wrong)
    with pytest.raises(TypeError, match="proposal"):
        pf.MetropolisHastings(LAW)
    with pytest.raises(ValueError, match="positive states"):
        pf.sample(LAW, pf.MetropolisHastings(pf.mcmc.LogNormal(0.5)), -start().abs(), n_steps=1)


WRONG = st.sampled_from([0, -1.0, math.nan, math.inf, "a", None, True, [1], torch.ones(2, 2, 2)])


@given(value=WRONG)
def test_parameters_are_checked(value):
    for make in (
        lambda: pf.MALA(value, beta=value),
        lambda: pf.UnderdampedLangevin(value, value),
        lambda: pf.RandomWalk(value, beta=value),
        lambda: pf.HMC(0.1, value),
        lambda: pf.HMC(0.1, 1, metric=value),
        lambda: pf.AnnealedLangevin(0.1, value if value != [1] else [math.nan]),
        lambda: pf.mcmc.LogNormal(value),
        lambda: pf.mcmc.Autoregressive(value if not isinstance(value, (int, float)) else 2.0),
    ):
        with pytest.raises((ValueError, TypeError)):
            pf.sample(LAW, make(), start(), n_steps=1)
