# SPDX-License-Identifier: Apache-2.0
"""What kernels, proposals and a warm-up are given that cannot work, and what is said of it."""

import re
import warnings
from pathlib import Path

import pytest
import torch

import pushforward as pf
from pushforward.mcmc.adaptation import DualAveraging, states_needed, windows
from pushforward.mcmc.nuts import EARLY_DEEPEST

STANDARD = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
TARGETS = {"native": STANDARD, "torch": STANDARD.torch_log_density}
PAGE = Path(__file__).parents[1] / "docs" / "mcmc.md"


@pytest.fixture(params=TARGETS)
def target(request):
    return TARGETS[request.param]


# ---- a warm-up that is too short -----------------------------------------------------------------


def warm_up(kernel, n_chains, dim, warmup):
    law = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    return pf.sample(law, kernel, torch.zeros(n_chains, dim), warmup=warmup, n_steps=1, seed=0)


@pytest.mark.parametrize(
    ("kernel", "n_chains", "dim", "warmup", "counts"),
    [
        (pf.HMC(), 1, 50, 20, "250 .* dense metric of 50 .* got 7 in the last window of 7 steps"),
        (pf.HMC(), 1, 50, 50, "250 .* dense metric of 50 .* got 23 "),
        (pf.HMC(), 1, 50, 150, "250 .* dense metric of 50 .* got 25 "),
        (pf.HMC(), 10, 50, 50, "250 .* dense metric of 50 .* got 230 in the last window of 23 "),
        (pf.RandomWalk(), 1, 50, 150, "250 .* dense metric of 50 .* got 25 "),
        (pf.NUTS(max_depth=3), 1, 2, 20, "20 .* dense metric of 2 .* got 7 "),
        (pf.HMC(metric="diagonal"), 1, 50, 150, "50 .* diagonal metric of 50 .* got 25 "),
        (pf.HMC(), 1, 65, 150, "50 .* diagonal metric of 65 .* got 25 "),
    ],
)
def test_a_metric_of_too_few_states_is_warned_of(kernel, n_chains, dim, warmup, counts):
    with pytest.warns(RuntimeWarning, match=f"warmup: {warmup} steps .* at least {counts}") as said:
        warm_up(kernel, n_chains, dim, warmup)
    assert len(said) == 1
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("kernel", "n_chains", "dim", "warmup"),
    [
        (pf.HMC(), 1, 50, 500 + 450),
        (pf.HMC(), 4, 50, 300),
        (pf.HMC(), 100, 50, 20),
        (pf.NUTS(max_depth=3), 1, 2, 50),
        (pf.HMC(metric="diagonal"), 1, 50, 200),
        (pf.HMC(metric="unit"), 1, 50, 20),
        (pf.HMC(metric=torch.ones(50)), 1, 50, 20),
        (pf.MALA(), 1, 50, 20),
        (pf.UnderdampedLangevin(), 10, 50, 100),
        (pf.HMC(), 0, 50, 20),
    ],
)
def test_other_warm_ups_are_silent(kernel, n_chains, dim, warmup):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warm_up(kernel, n_chains, dim, warmup)


@pytest.mark.parametrize("dim", [1, 4, 5, 64, 1000])
def test_a_diagonal_metric_needs_no_more_states_than_a_dense_one(dim):
    dense, diagonal = (states_needed(dim, dense=dense) for dense in (True, False))
    assert 20 <= diagonal <= min(dense, 50)
    assert dense >= 5 * dim


def test_the_numbers_of_the_page_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert f"Until its first metric NUTS doubles at most {EARLY_DEEPEST} times" in text
    assert re.search("five a coordinate and at least 20 for a dense one, of which 50", text)
    assert (states_needed(1, dense=True), states_needed(100, dense=True)) == (20, 500)
    assert states_needed(100, dense=False) == 50
    assert "below 200 steps there is one window" in text
    assert len(windows(199)[1]) == 1
    assert len(windows(200)[1]) == 2


@pytest.mark.parametrize("n", [1, 3, 8, 100])
def test_the_late_acceptance_is_a_mean_of_what_was_seen(n):
    search = DualAveraging(torch.ones(2, dtype=torch.float64), 0.8)
    for _ in range(n):
        search.update(torch.tensor([0.0, 0.3], dtype=torch.float64))
    expected = torch.tensor([0.0, 0.3], dtype=torch.float64)
    torch.testing.assert_close(search.late_acceptance, expected)
    other = DualAveraging(torch.ones(2, dtype=torch.float64), 0.8)
    other.restore(search.numbers())
    assert torch.equal(other.late_acceptance, search.late_acceptance)


@pytest.mark.filterwarnings("ignore:.*left the finite numbers:RuntimeWarning")
@pytest.mark.parametrize(
    "kernel", [pf.NUTS(), pf.HMC(), pf.MALA(), pf.RandomWalk(), pf.UnderdampedLangevin()]
)
def test_a_warm_up_that_accepts_nothing_says_so(kernel):
    with pytest.warns(RuntimeWarning, match=r"the acceptance probability is 0\.00, expected about"):
        pf.sample(
            lambda x: x.sum(1) * torch.nan, kernel, torch.zeros(5, 2), warmup=30, n_steps=3, seed=0
        )


# ---- parameters ----------------------------------------------------------------------------------

SINGULAR = {
    "zero": torch.zeros(2, 2),
    "triangular": torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
    "full": torch.tensor([[1.0, 1 / 3], [3.0, 1.0]]),
    "double": torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64),
    "small": 1e-30 * torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64),
    "half": torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.bfloat16),
    "a row": torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
}
REGULAR = {
    "cholesky": torch.tensor([[1e-12, 0.0], [1.0, 1e-6]]),
    "upper": torch.tensor([[1.0, 1e8], [0.0, 1.0]]),
    "root": torch.tensor([[1.0, 0.5], [0.5, 1.0]]),
    "units": torch.diag(torch.tensor([1e-12, 1e12])) @ torch.tensor([[1.0, 0.5], [0.5, 1.0]]),
    "swapped": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
    "negative": -torch.eye(2),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_random_walk_moves_in_all_directions(name):
    with pytest.raises(ValueError, match=r"^scale: expected a factor .* full rank, got a singular"):
        pf.RandomWalk(SINGULAR[name])


@pytest.mark.parametrize("name", REGULAR)
def test_any_regular_factor_is_a_scale(name, target):
    chains = pf.sample(target, pf.RandomWalk(REGULAR[name]), torch.zeros(5, 2), n_steps=1, seed=0)
    assert chains.accept_rate is not None


def test_a_scale_is_finite_square_and_positive_in_the_type_of_the_state():
    for wrong in (torch.nan, torch.inf):
        for shape in ((2,), (2, 2)):
            with pytest.raises(ValueError, match=r"^scale: expected finite values"):
                pf.RandomWalk(torch.full(shape, wrong))
    with pytest.raises(ValueError, match=r"^scale: expected .* \(dim, dim\), got .* \(2, 3\)"):
        pf.RandomWalk(torch.ones(2, 3))
    x = torch.zeros(5, 2)
    tiny = torch.tensor([1.0, 1e-60], dtype=torch.float64)  # 0 in float32
    for scale, what in ((tiny, "positive"), (tiny.diag(), "full rank"), (1 / tiny, "finite")):
        pf.sample(STANDARD, pf.RandomWalk(scale), x.double(), n_steps=1, seed=0)
        with pytest.raises(ValueError, match=f"^scale: expected .*{what}"):
            pf.sample(STANDARD, pf.RandomWalk(scale), x, n_steps=1, seed=0)


@pytest.mark.parametrize("kernel", [pf.HMC, pf.NUTS])
@pytest.mark.parametrize("metric", ["dense", "diagonal"])
def test_a_metric_to_find_wants_a_warm_up(kernel, metric, target, tmp_path):
    call, x = {"seed": 0, "n_steps": 4}, STANDARD.sample(20, seed=1)
    with pytest.raises(ValueError, match=f"^metric: expected .* since warmup is 0.*got '{metric}'"):
        pf.sample(target, kernel(0.1, metric=metric), x, **call)
    for other in ("auto", "unit", torch.ones(2)):
        pf.sample(target, kernel(0.1, metric=other), x, **call)
    call |= {"warmup": 30, "every": 1}
    whole = pf.sample(target, kernel(metric=metric), x, **call, checkpoint=tmp_path / "whole")
    for after in range(5, 36, 10):  # before the metric is there, afterwards, and after the warm-up
        kept = {**call, "checkpoint": tmp_path / f"{after}"}
        pf.sample(
            target, kernel(metric=metric), x, **kept, callback=lambda step, _, n=after: step >= n
        )
        assert torch.equal(whole.draws, pf.sample(target, kernel(metric=metric), x, **kept).draws)
    pf.sample(target, whole.kernel, whole.x, n_steps=1)


@pytest.mark.filterwarnings("ignore:warmup. .* too few to adapt:RuntimeWarning")
@pytest.mark.parametrize(("n_chains", "warmup"), [(0, 30), (1, 1)])
def test_a_warm_up_that_sees_no_states_finds_no_metric(n_chains, warmup, target):
    x = torch.zeros(n_chains, 2)
    pf.sample(target, pf.HMC(0.1, metric="dense"), x, warmup=warmup, n_steps=2, seed=0)


def test_parameters_are_called_by_their_names():
    with pytest.raises(ValueError, match=r"^scale: expected one for RandomWalk, since warmup is 0"):
        pf.sample(STANDARD, pf.RandomWalk(), torch.zeros(5, 2), n_steps=3)
    for wrong in ("a", None, [1.0, "a"]):
        with pytest.raises(TypeError, match=r"^center: expected a number or a tensor"):
            pf.mcmc.Autoregressive(0.5, 1.0, wrong)
    for wrong in (torch.ones(2, 2), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(ValueError, match=r"^center: expected a real number or tensor"):
            pf.mcmc.Autoregressive(0.5, 1.0, wrong)
    for wrong in (torch.nan, torch.tensor([0.0, torch.inf])):
        with pytest.raises(ValueError, match=r"^center: expected finite values"):
            pf.mcmc.Autoregressive(0.5, 1.0, wrong)
    with pytest.raises(ValueError, match=r"^scale: expected .* shape \(dim,\), got .* \(2, 2\)"):
        pf.mcmc.Autoregressive(0.5, torch.ones(2, 2))


def test_a_center_may_be_a_sequence(target):
    x, draws = torch.zeros(5, 2), []
    for center in ([1, 2], torch.tensor([1.0, 2.0])):
        kernel = pf.MetropolisHastings(pf.mcmc.Autoregressive(0.5, 1.0, center))
        draws.append(pf.sample(target, kernel, x, n_steps=5, seed=0).draws)
    assert torch.equal(*draws)


# ---- proposals -----------------------------------------------------------------------------------


class Blurred:
    def sample(self, x):
        return x + 0.5 * torch.randn_like(x)

    def log_prob(self, y, x):
        return -2 * (y - x).square().sum(1)


class InPlace(Blurred):
    """The same, with no memory of its own."""

    def sample(self, x):
        return x.add_(0.5 * torch.randn_like(x))

    def log_prob(self, y, x):
        distance = y.sub_(x)
        x.zero_()
        return -2 * distance.square().sum(1)


class Wide:
    def sample(self, n):
        return 2 * torch.randn(n, 2)

    def log_prob(self, x):
        return -x.square().sum(1) / 8


class WideInPlace(Wide):
    def log_prob(self, x):
        return -x.square_().sum(1) / 8


@pytest.mark.parametrize(
    ("kernel", "plain", "in_place"),
    [(pf.MetropolisHastings, Blurred, InPlace), (pf.Independence, Wide, WideInPlace)],
    ids=["metropolis-hastings", "independence"],
)
def test_a_proposal_that_writes_into_its_arguments_moves_nothing(kernel, plain, in_place, target):
    x = torch.zeros(50, 2)
    expected, chains = (
        pf.sample(target, kernel(proposal()), x, n_steps=200, seed=0)
        for proposal in (plain, in_place)
    )
    assert torch.equal(expected.draws, chains.draws)
    assert torch.equal(expected.accept_rate, chains.accept_rate)
    assert 0.2 < chains.accept_rate.mean() < 0.9
    assert (chains.var - 1).abs().max() < 0.2


def test_a_proposal_that_belongs_to_another_kernel_is_told_so():
    independent = (torch.distributions.Normal(0.0, 1.0), STANDARD, Wide())
    for proposal in independent:
        pf.Independence(proposal)
        with pytest.raises(
            TypeError,
            match=r"^proposal: expected .* sample\(x\) and log_prob\(y, x\), got .*; Independence",
        ):
            pf.MetropolisHastings(proposal)
    pf.MetropolisHastings(Blurred())
    with pytest.raises(
        TypeError,
        match=r"^proposal: expected .* sample\(n\) and log_prob\(x\), got .*; MetropolisHastings",
    ):
        pf.Independence(Blurred())
    for neither in (object(), 3, Blurred):
        for kernel in (pf.MetropolisHastings, pf.Independence):
            with pytest.raises(TypeError, match=r"^proposal: expected .*, got \w+$"):
                kernel(neither)


def test_a_proposal_may_take_more_than_it_is_given():
    class Generous(Blurred):
        def sample(self, x, scale=0.5):
            return super().sample(x)

        def log_prob(self, *args, **kwargs):
            return super().log_prob(*args)

    for kernel in (pf.MetropolisHastings(Generous()), pf.MetropolisHastings(Blurred())):
        pf.sample(STANDARD, kernel, torch.zeros(5, 2), n_steps=2, seed=0)
