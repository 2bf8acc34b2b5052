# SPDX-License-Identifier: Apache-2.0
"""Constrained parameters: the laws of the coordinates, by quadrature, beside a broken twin."""

import json
import math

import pytest
import torch
from torch.distributions import (
    Beta,
    Dirichlet,
    Gamma,
    LKJCholesky,
    LogNormal,
    Normal,
    Uniform,
    constraints,
    transforms,
)

import pushforward as pf
from pushforward.constrained import Constrained
from pushforward.fingerprints import fingerprint


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


# In u these densities are smooth and fall at least exponentially, so the trapezoidal rule over a
# range that reaches 1e-12 of the mass, in steps of a fraction of their width, is good to 1e-9.
LAWS = {
    "log-normal": (LogNormal(real(0.3), real(0.8)), constraints.positive),
    "gamma": (Gamma(real(2.5), real(1.3)), constraints.positive),
    "gamma-nonnegative": (Gamma(real(2.5), real(1.3)), constraints.nonnegative),
    "beta": (Beta(real(1.5), real(3.0)), constraints.unit_interval),
    "uniform": (Uniform(real(-1.0), real(3.0)), constraints.interval(-1.0, 3.0)),
    "normal": (Normal(real(1.0), real(2.0)), constraints.real),
    "shifted": (
        torch.distributions.TransformedDistribution(
            Gamma(real(2.0), real(1.0)), torch.distributions.AffineTransform(2.0, 1.0)
        ),
        constraints.greater_than(2.0),
    ),
    "mirrored": (
        torch.distributions.TransformedDistribution(
            Gamma(real(2.0), real(1.0)), torch.distributions.AffineTransform(2.0, -1.0)
        ),
        constraints.less_than(2.0),
    ),
}


def moments(log_density, constrain, reach=30.0, n=4001):
    """Integral of the density over one coordinate, and mean and variance of the value."""
    u = torch.linspace(-reach, reach, n, dtype=torch.float64)[:, None]
    weight = log_density(u).exp() * (2 * reach / (n - 1))
    value = constrain(u)[:, 0]
    mean = (weight * value).sum().item()
    return weight.sum().item(), mean, (weight * value**2).sum().item() - mean**2


@pytest.mark.parametrize("name", LAWS)
def test_the_law_of_one_coordinate(name):
    law, constraint = LAWS[name]
    target = Constrained(lambda v: law.log_prob(v[:, 0]), constraint, (1,))
    mass, mean, variance = moments(target.log_density, target.constrain)
    exact = law.base_dist if name in ("shifted", "mirrored") else law
    shift, sign = {"shifted": (2.0, 1.0), "mirrored": (2.0, -1.0)}.get(name, (0.0, 1.0))
    assert mass == pytest.approx(1.0, abs=1e-8)
    assert mean == pytest.approx(shift + sign * exact.mean.item(), abs=1e-7)
    assert variance == pytest.approx(exact.variance.item(), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "normal"])
def test_without_the_jacobian_the_law_is_another(name):
    # The broken twin: the density of the value taken for that of the coordinate.
    law, constraint = LAWS[name]
    target = Constrained(lambda v: law.log_prob(v[:, 0]), constraint, (1,))
    mass, mean, _ = moments(lambda u: law.log_prob(target.constrain(u)[:, 0]), target.constrain)
    _, right, _ = moments(target.log_density, target.constrain)
    assert max(abs(mass - 1), abs(mean / mass - right)) > 0.05


def grid(dim, reach, n):
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    return points, (2 * reach / (n - 1)) ** dim


def test_the_law_of_a_simplex():
    law = Dirichlet(real(1.5, 2.0, 3.5))
    target = Constrained(law, constraints.simplex, (3,))
    assert target.dim == 2
    u, cell = grid(2, 20.0, 401)
    weight = target.log_density(u).exp() * cell
    p = target.constrain(u)
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose((weight[:, None] * p).sum(0), law.mean, atol=1e-6)
    second = (weight[:, None] * p**2).sum(0) - law.mean**2
    assert torch.allclose(second, law.variance, atol=1e-6)
    twin = law.log_prob(p).exp() * cell
    assert abs(twin.sum().item() - 1) > 0.05


@pytest.mark.parametrize(("size", "n"), [(2, 801), (3, 65)])
def test_the_law_of_a_correlation(size, n):
    law = LKJCholesky(size, real(2.5)[0])
    target = Constrained(law, constraints.corr_cholesky, (size, size))
    assert target.dim == size * (size - 1) // 2
    u, cell = grid(target.dim, 6.0, n)
    weight = target.log_density(u).exp() * cell
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-5)
    correlation = target.constrain(u)[:, 1, 0]
    # Each correlation is 2 Beta(a, a) - 1 with a = concentration - 1 + size / 2.
    variance = 1 / (2 * (2.5 - 1 + size / 2) + 1)
    assert (weight * correlation**2).sum().item() == pytest.approx(variance, abs=1e-5)


JOINT = {
    "mu": ((2,), constraints.real),
    "p": ((2, 3), constraints.simplex),
    "tau": constraints.positive,
    "rho": ((3, 3), constraints.corr_cholesky),
    "both": ((2,), constraints.cat([constraints.positive, constraints.unit_interval], -1, [1, 1])),
    "stacked": ((2,), constraints.stack([constraints.real, constraints.positive], -1)),
    "none": ((0,), constraints.positive),
    "vectors": ((2, 2), constraints.independent(constraints.interval(-1.0, 1.0), 1)),
}


def free(values):
    """The entries of one chain's values that can be chosen freely, as one vector."""
    below = torch.tril_indices(3, 3, -1)
    return torch.cat(
        [
            values["mu"][0],
            values["p"][0, :, :-1].reshape(-1),
            values["tau"],
            values["rho"][0][below[0], below[1]],
            values["both"][0],
            values["stacked"][0],
            values["vectors"][0].reshape(-1),
        ]
    )


def test_the_jacobian_of_many_parameters():
    target = Constrained(lambda v: v["mu"].sum(1) * 0, JOINT)
    assert target.names == tuple(JOINT)
    assert target.dim == 2 + 4 + 1 + 3 + 2 + 2 + 0 + 4
    u = pf.random.normal(7, target.dim, seed=1, dtype=torch.float64)
    found = target.log_density(u)
    for i in range(7):
        jacobian = torch.autograd.functional.jacobian(
            lambda row: free(target.constrain(row[None])), u[i]
        )
        assert found[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back(dtype):
    target = Constrained(lambda v: v["tau"], JOINT)
    u = pf.random.normal(50, target.dim, seed=1, dtype=dtype)
    values = target.constrain(u)
    for name, given in JOINT.items():
        shape, constraint = given if isinstance(given, tuple) else ((), given)
        assert values[name].shape == (50, *shape) == (50, *target.shapes[name])
        assert values[name].dtype == dtype
        assert constraint.check(values[name]).all(), name
    back = target.unconstrain(values)
    # The simplex and the correlation lose digits by subtraction from 1, a factor of 100 or so.
    assert torch.allclose(back, u, atol=1e-4 if dtype == torch.float32 else 1e-12)


def test_coordinates_of_a_chain_depend_on_no_other_chain():
    target = Constrained(lambda v: v["p"].log().sum((1, 2)) - v["tau"], JOINT)
    u = pf.random.normal(9, target.dim, seed=1)
    assert torch.equal(target.log_density(u)[3:5], target.log_density(u[3:5]))
    assert target.log_density(u[:0]).shape == (0,)


def test_a_single_constraint_without_a_shape_takes_any():
    target = Constrained(lambda v: -v.flatten(1).sum(1), constraints.positive)
    for event in [(1,), (3,), (2, 2)]:
        u = pf.random.normal(4, math.prod(event), seed=1).reshape(4, *event)
        assert torch.allclose(target.constrain(u), u.exp())
        assert torch.allclose(target.log_density(u), (u - u.exp()).flatten(1).sum(1))
        assert torch.allclose(target.unconstrain(u.exp()), u, atol=1e-6)
    with pytest.raises(ValueError, match="shape: expected one, to know dim"):
        _ = target.dim
    assert Constrained(lambda v: v[:, 0], constraints.simplex).constrain(u[:, 0]).shape == (4, 3)


def test_a_bijection_in_the_place_of_a_constraint():
    exp, shifted = transforms.ExpTransform(), transforms.AffineTransform(2.0, 3.0)
    law = Gamma(real(2.5), real(1.3))
    both = [
        Constrained(lambda v: law.log_prob(v).sum(1), given, (1,))
        for given in (constraints.positive, exp)
    ]
    u = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    assert torch.equal(both[0].log_density(u), both[1].log_density(u))
    assert fingerprint(both[0]) != fingerprint(
        Constrained(lambda v: law.log_prob(v).sum(1), transforms.ComposeTransform([exp]), (1,))
    )
    above = transforms.ComposeTransform([exp, shifted])  # values above 2
    density = Gamma(real(2.5), real(1.3))
    moved = Constrained(lambda v: density.log_prob(v[:, 0] - 2), above, (1,))
    total, mean, var = moments(moved.log_density, moved.constrain)
    assert total == pytest.approx(1, abs=1e-9)
    assert mean == pytest.approx(2 + 2.5 / 1.3, abs=1e-8)
    assert var == pytest.approx(2.5 / 1.3**2, abs=1e-8)
    assert torch.allclose(moved.unconstrain(moved.constrain(u)), u)
    with pytest.raises(ValueError, match=r"^values: expected values inside the range of"):
        moved.unconstrain(real(1.5)[:, None])
    named = Constrained(lambda v: -v["a"] - v["b"].sum(1), {"a": exp, "b": ((2,), above)})
    assert named.dim == 3
    assert bool((named.constrain(torch.zeros(4, 3))["b"] == 5).all())


def test_the_driver_samples_it():
    rate, p = Gamma(2.5, 1.3), Dirichlet(torch.ones(3))
    target = Constrained(
        lambda v: rate.log_prob(v["rate"]) + p.log_prob(v["p"]),
        {"rate": constraints.positive, "p": ((3,), constraints.simplex)},
    )
    chains = pf.sample(
        target, pf.Langevin(0.05), torch.zeros(4000, 3), n_steps=300, store="last", seed=1
    )
    values = target.constrain(chains.x)
    # 5.5 standard errors of the means of 4000 chains are 0.11 and 0.02, a false alarm in 3e7; the
    # rest is for the bias of the step. Without Jacobian the rate would be Gamma(1.5), 0.77 away.
    assert abs(values["rate"].mean().item() - 2.5 / 1.3) < 0.15
    assert torch.allclose(values["p"].mean(0), torch.full((3,), 1 / 3), atol=0.03)
    assert torch.allclose(values["p"].sum(1), torch.ones(4000))


def test_its_fingerprint_knows_law_and_constraints():
    def one(value=1.0, high=2.0):
        return Constrained(lambda v: value * v[:, 0], constraints.interval(0.0, high), (1,))

    texts = [json.dumps(fingerprint(one(*args))) for args in [(), (2.0,), (1.0, 3.0)]]
    used = one()
    used.log_density(used.unconstrain(torch.ones(2, 1)))
    assert len(set(texts)) == 3
    assert json.dumps(fingerprint(used)) == texts[0]


# ---- refusals ------------------------------------------------------------------------------------


def fine(v):
    return v.flatten(1).sum(1)


class Cubes(transforms.Transform):
    """A bijection that says nothing of its Jacobian."""

    domain = codomain = constraints.real
    bijective = True

    def _call(self, x):
        return x**3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, constraints.positive), TypeError, "log_density: expected"),
        ((fine, None), TypeError, "values: expected a constraint or a transform of torch"),
        ((fine, transforms.AbsTransform(), (2,)), ValueError, "values: expected a bijective"),
        ((fine, transforms.PowerTransform(2.0), (2,)), ValueError, "of all real numbers"),
        ((fine, transforms.LowerCholeskyTransform(), (2, 2)), ValueError, "of all real numbers"),
        ((fine, transforms.Transform(), (2,)), ValueError, "values: expected a bijective"),
        ((fine, {"a": Cubes()}), ValueError, "a: expected a bijection whose log-Jacobian torch"),
        ((fine, constraints.interval), TypeError, "values: expected a constraint"),
        ((fine, constraints.boolean), ValueError, "values: expected a constraint with a bijection"),
        ((fine, constraints.nonnegative_integer), ValueError, "with a bijection"),
        ((fine, constraints.positive_definite, (2, 2)), ValueError, "with a bijection"),
        ((fine, constraints.lower_cholesky, (2, 2)), ValueError, "with a bijection"),
        ((fine, constraints.dependent), ValueError, "with a bijection"),
        ((fine, {"a": ((), constraints.boolean)}), ValueError, "a: expected a constraint with"),
        ((fine, {}), ValueError, "constraint: expected at least one parameter"),
        ((fine, {1: constraints.real}), TypeError, "constraint: expected names, got 1"),
        ((fine, {"a": (3, constraints.real)}), TypeError, "a: expected a shape, got int"),
        ((fine, {"a": ((-1,), constraints.real)}), ValueError, "a: expected an int >= 0"),
        ((fine, {"a": ((), constraints.simplex)}), ValueError, "a: expected a shape that"),
        ((fine, {"a": ((0,), constraints.simplex)}), ValueError, "a: expected a shape that"),
        (
            (fine, {"a": ((3, 2), constraints.corr_cholesky)}),
            ValueError,
            "a: expected a shape that",
        ),
        ((fine, {"a": ((), constraints.real_vector)}), ValueError, "a: expected a shape that"),
        ((fine, {"a": constraints.real}, (1,)), TypeError, "shape: expected none beside a dict"),
    ],
)
def test_bad_constraints(arguments, error, words):
    with pytest.raises(error, match=words):
        Constrained(*arguments)


@pytest.mark.parametrize(
    ("u", "error", "words"),
    [
        (torch.zeros(4, 3), ValueError, r"u: expected shape \(n_chains, 2\), got \(4, 3\)"),
        (torch.zeros(2), ValueError, r"u: expected shape \(n_chains, 2\)"),
        (torch.zeros(4, 2).int(), (TypeError, ValueError), "u: expected"),
        ([[0.0, 0.0]], TypeError, "u: expected"),
    ],
)
def test_bad_coordinates(u, error, words):
    target = Constrained(fine, constraints.simplex, (3,))
    with pytest.raises(error, match=words):
        target.log_density(u)
    with pytest.raises(error, match=words):
        target.constrain(u)


def test_bad_values():
    target = Constrained(
        lambda v: v["a"], {"a": constraints.positive, "p": ((3,), constraints.simplex)}
    )
    good = {"a": torch.ones(2), "p": torch.full((2, 3), 1 / 3)}
    assert target.unconstrain(good).shape == (2, 3)
    for bad, error, words in [
        (torch.ones(2, 3), TypeError, "values: expected a dict, got Tensor"),
        ({"a": good["a"]}, ValueError, r"values: expected \['a', 'p'\], got \['a'\]"),
        ({**good, "b": good["a"]}, ValueError, "values: expected"),
        ({**good, "a": torch.ones(3)}, ValueError, "one number of chains, got 3 of a, 2 of p"),
        ({**good, "a": torch.ones(2, 1)}, ValueError, r"a: expected shape \(n_chains, \)"),
        ({**good, "a": -good["a"]}, ValueError, "a: expected values in"),
        ({**good, "a": good["a"] * math.nan}, ValueError, "a: expected values in"),
        ({**good, "a": good["a"] * math.inf}, ValueError, "a: expected values inside"),
        ({**good, "p": good["p"] * 2}, ValueError, "p: expected values in Simplex"),
        ({**good, "a": 1.0}, TypeError, "a: expected"),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            target.unconstrain(bad)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (lambda v: v, ValueError, r"log_density: expected it to return shape \(4,\), got \(4, 2\)"),
        (lambda v: v.sum(), ValueError, r"got \(\)"),
        (lambda v: 1.0, TypeError, "log_density: expected it to return a tensor"),
    ],
)
def test_bad_laws(returned, error, words):
    with pytest.raises(error, match=words):
        Constrained(returned, constraints.positive, (2,)).log_density(torch.zeros(4, 2))


def test_it_is_immutable():
    target = Constrained(fine, constraints.positive, (2,))
    with pytest.raises(AttributeError, match="immutable"):
        target._law = None
    assert "positive" in repr(target).lower() or "greater" in repr(target).lower()
