# SPDX-License-Identifier: Apache-2.0
"""The six posteriors of posteriors.py: density, quadrature and published means tell the same story.

Bound of 5.5 standard errors: a false alarm in 3e7 for one comparison, below 1e-5 for the two
hundred here; seeds are fixed.
"""

import pytest
import torch

from posteriors import NAMES, posterior

SIGMAS = 5.5


def z_scores(samples):
    """Mean over its standard error, of each column of independent samples."""
    return samples.mean(0) / samples.std(0) * len(samples) ** 0.5


def stein(law, x, jacobian=0.0):
    """The z-scores of E[s] = 0 and E[(x - c) s] = -1, which the law's own score s satisfies."""
    x = x.requires_grad_()
    density = law.log_density(x) - jacobian * x[:, -1]
    (score,) = torch.autograd.grad(density.sum(), x)
    x = x.detach()
    return torch.cat((z_scores(score), z_scores((x - x.mean(0)) * score + 1)))


@pytest.mark.parametrize("name", NAMES)
def test_published_means(name):
    law = posterior(name)
    error = (law.reference_mean - law.published_mean) / law.published_error
    assert (error.abs() < SIGMAS).all()


def test_published_second_moments():
    # posteriordb's means of squares of the centred model and of Kilpisjärvi, with their errors.
    law = posterior("eight-schools-centered")
    second = law.reference_mean**2 + law.reference_sd**2
    published = torch.tensor([69.36345, 45.9787, 43.13923, 45.76135, 34.35767, 39.4135, 64.93269, 52.12845, 30.40302, 23.20407]).double()  # fmt: skip
    error = torch.tensor([1.1692, 0.6346, 0.6539, 0.6194, 0.4550, 0.5390, 0.9216, 0.9025, 0.3351, 0.4849]).double()  # fmt: skip
    assert ((second - published).abs() < SIGMAS * error).all()
    law = posterior("kilpisjarvi")
    second = law.reference_mean**2 + law.reference_sd**2
    published = torch.tensor([4583.7725, 0.000365792, 1.2922938]).double()
    error = torch.tensor([39.1026, 2.80815e-06, 0.0024715]).double()
    assert ((second - published).abs() < SIGMAS * error).all()


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_reference_moments(name):
    law = posterior(name)
    draws = law.quantities(law.draw(50_000, 1))
    assert draws.shape == (50_000, len(law.names))
    centred = (draws - law.reference_mean) / law.reference_sd
    assert (z_scores(centred).abs() < SIGMAS).all()
    assert (z_scores(centred**2 - 1).abs() < SIGMAS).all()


# The score of the centred parametrisation, (theta - mu) / tau**2, has no variance: see below.
@pytest.mark.parametrize("name", [n for n in NAMES if n != "eight-schools-centered"])
def test_log_density_is_that_of_the_draws(name):
    law = posterior(name)
    assert (stein(law, law.draw(50_000, 2)).abs() < SIGMAS).all()


@pytest.mark.parametrize("name", ["eight-schools-noncentered", "kilpisjarvi", "mesquite", "pumps"])
def test_a_forgotten_jacobian_fails_the_same_test(name):
    law = posterior(name)
    assert (stein(law, law.draw(50_000, 2), jacobian=1.0).abs() > 1.2 * SIGMAS).any()


def test_the_parametrisations_of_eight_schools_agree():
    centered, noncentered = (posterior(n) for n in NAMES[:2])
    x = noncentered.draw(100, 3)
    y = torch.cat((noncentered.quantities(x)[:, :9], x[:, 9:]), 1)
    assert torch.allclose(centered.quantities(y), noncentered.quantities(x))
    difference = noncentered.log_density(x) - centered.log_density(y)
    # d theta / d z = tau for each school
    assert torch.allclose(difference, 8 * x[:, 9], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_log_density_takes_both_precisions_and_any_number_of_chains(name):
    law = posterior(name)
    x = law.draw(5, 4)
    assert x.shape == (5, law.dim)
    assert law.log_density(x).shape == (5,)
    assert law.log_density(x[:0]).shape == (0,)
    single = law.log_density(x.float())
    assert single.dtype == torch.float32
    # The cancelling sums of thousands of float32 terms leave about four digits.
    assert torch.allclose(single.double(), law.log_density(x), rtol=1e-3, atol=1e-2)
