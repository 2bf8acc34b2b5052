# SPDX-License-Identifier: Apache-2.0
"""States that are dicts of tensors: the bits of the flat run, for every kernel and target."""

import types

import pytest
import torch

import pushforward as pf
from posteriors import posterior
from schools import SHAPES, by_hand, check_same, flattened, pieces, schools, schools_by_hand, start

KERNELS = {
    "langevin": (pf.Langevin(0.01), 0),
    "annealed": (pf.AnnealedLangevin(0.01, torch.linspace(0.5, 2.0, 60)), 0),
    "underdamped": (pf.UnderdampedLangevin(0.2, 1.0), 0),
    "random-walk": (pf.RandomWalk(), 40),
    "autoregressive": (pf.MetropolisHastings(pf.mcmc.Autoregressive(0.9, torch.ones(10))), 0),
    "mala": (pf.MALA(), 40),
    "hmc": (pf.HMC(n_leapfrog=3), 40),
    "nuts": (pf.NUTS(max_depth=4), 40),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("store", ["draws", "stats", "last"])
def test_a_dict_gives_the_bits_of_its_flat_state(name, store):
    kernel, warmup = KERNELS[name]
    call = {
        "warmup": warmup,
        "burn_in": 45 - warmup,
        "n_steps": 12,
        "thin": 2,
        "store": store,
        "covariance": store == "stats",
        "quantiles": store == "stats",
        "first_step": 3,
        "chain_offset": 7,
        "seed": 5,
    }
    x = start()
    before = {name: value.clone() for name, value in x.items()}
    named = pf.sample(schools, kernel, x, **call)
    flat = pf.sample(schools_by_hand, kernel, flattened(x), **call)
    check_same(named, flat)
    assert all(torch.equal(x[key], before[key]) for key in x)
    if store != "last":
        q = torch.tensor([[0.1, 0.5, 0.9]])
        for key, piece in pieces(flat.quantile(q), SHAPES).items():
            assert named.quantile(q)[key].shape == (1, 3, *SHAPES[key])
            assert torch.equal(named.quantile(q)[key], piece)
    again = {"n_steps": 5, "first_step": named.next_step, "seed": named.seed, "chain_offset": 7}
    check_same(
        pf.sample(schools, named.kernel, named.x, **again),
        pf.sample(schools_by_hand, flat.kernel, flat.x, **again),
    )


def test_a_run_goes_on_and_its_kernel_serves_another_start():
    whole = pf.sample(schools, pf.MALA(0.05), start(), n_steps=9, seed=2)
    first = pf.sample(schools, pf.MALA(0.05), start(), n_steps=4, seed=2)
    second = pf.sample(
        schools, first.kernel, first.x, n_steps=5, first_step=first.next_step, seed=first.seed
    )
    for key, draws in whole.draws.items():
        assert torch.equal(draws, torch.cat((first.draws[key], second.draws[key])))
    adapted = pf.sample(schools, pf.HMC(n_leapfrog=3), start(100), warmup=60, n_steps=1, seed=2)
    other = start(6, seed=9)
    check_same(
        pf.sample(schools, adapted.kernel, other, n_steps=4, seed=3),
        pf.sample(schools_by_hand, adapted.kernel, flattened(other), n_steps=4, seed=3),
    )


def test_the_law_is_that_of_the_posterior():
    """From exact draws, so that no bias of the start remains; ten quantities within 5.5 errors.

    Were the errors exact, one in 3e6 such tests would fail.
    """
    known = posterior("eight-schools-noncentered")
    x = by_hand(known.draw(300, 1))
    chains = pf.sample(schools, pf.HMC(0.3, n_leapfrog=6), x, n_steps=250, seed=1)
    mu, tau = chains.draws["mu"], chains.draws["log_tau"].exp()
    theta = mu[..., None] + tau[..., None] * chains.draws["theta"]
    quantities = torch.cat((theta, mu[..., None], tau[..., None]), -1)
    error = pf.diagnostics.mcse(quantities)
    away = quantities.mean((0, 1)) - known.reference_mean
    assert chains.draws["mu"].dtype == torch.float64
    assert (away.abs() < 5.5 * error).all()
    assert (error < 0.2).all()


# ---- what is asked of the law and the proposal ---------------------------------------------------


class Module(torch.nn.Module):
    def forward(self, x):
        return schools(x)


class Law:
    def log_density(self, x):
        assert isinstance(x, dict)
        assert {k: (len(x["mu"]), *s) for k, s in SHAPES.items()} == {
            k: tuple(v.shape) for k, v in x.items()
        }
        return schools(x)


@pytest.mark.parametrize(
    "law",
    [Module(), Law(), Law().log_density, pf.Energy(lambda x: -schools(x))],
    ids=["module", "object", "method", "energy"],
)
def test_every_kind_of_target(law):
    flat = pf.sample(schools_by_hand, pf.MALA(0.05), flattened(start()), n_steps=5, seed=1)
    check_same(pf.sample(law, pf.MALA(0.05), start(), n_steps=5, seed=1), flat)


def test_every_kind_of_mapping_and_memory():
    flat = pf.sample(schools_by_hand, pf.MALA(0.05), flattened(start()), n_steps=5, seed=1)
    x = {name: value.clone().requires_grad_() for name, value in start().items()}
    x["theta"] = torch.nn.Parameter(x["theta"].detach().T.contiguous()).T
    chains = pf.sample(schools, pf.MALA(0.05), types.MappingProxyType(x), n_steps=5, seed=1)
    check_same(chains, flat)
    assert not any(value.requires_grad for value in chains.x.values())
    with torch.inference_mode():
        check_same(pf.sample(schools, pf.MALA(0.05), start(), n_steps=5, seed=1), flat)


class Pair:
    """Normals a ``()`` and b ``(2,)`` with one precision matrix, and their conditional laws."""

    precision = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.5]])

    def __init__(self, named):
        self.named = named

    def _flat(self, x):
        return torch.cat((x["a"][:, None], x["b"]), 1) if self.named else x

    def log_density(self, x):
        x = self._flat(x)
        return -0.5 * ((x @ self.precision) * x).sum(1)

    def conditional(self, i, x):
        pull = self._flat(x) @ self.precision[i] - self._flat(x)[:, i] * self.precision[i, i]
        return torch.distributions.Normal(
            -pull / self.precision[i, i], self.precision[i, i] ** -0.5
        )


def test_gibbs_sweeps_over_all_numbers():
    x = {"a": torch.zeros(200), "b": torch.zeros(200, 2)}
    call = {"n_steps": 60, "burn_in": 5, "seed": 1}
    named = pf.sample(Pair(named=True), pf.mcmc.Gibbs(), x, **call)
    flat = pf.sample(Pair(named=False), pf.mcmc.Gibbs(), flattened(x), **call)
    check_same(named, flat, {"a": (), "b": (2,)})
    assert torch.allclose(named.cov, Pair.precision.inverse().double(), atol=0.1)
    assert named.coordinates == ("a", "b[0]", "b[1]")


class Walk:
    """A walk of one scale a parameter, which spoils what it is given."""

    def sample(self, x):
        moved = {name: value + 0.2 * torch.randn(value.shape) for name, value in x.items()}
        for value in x.values():
            value.fill_(torch.nan)
        return dict(reversed(moved.items()))  # by name, whatever the order

    def log_prob(self, y, x):
        found = -(flattened(y) - flattened(x)).square().sum(1) / 0.08
        x["mu"].zero_()
        return found


class WalkByHand:
    def sample(self, x):
        parts = (x[:, :8], x[:, 8:9], x[:, 9:])
        return torch.cat([part + 0.2 * torch.randn(part.shape) for part in parts], 1)

    def log_prob(self, y, x):
        return -(y - x).square().sum(1) / 0.08


class Normals:
    def sample(self, n):
        return {name: 2 * torch.randn(n, *shape) for name, shape in SHAPES.items()}

    def log_prob(self, x):
        return -flattened(x).square().sum(1) / 8


class NormalsByHand:
    def sample(self, n):
        return flattened(Normals().sample(n))

    def log_prob(self, x):
        return -x.square().sum(1) / 8


WIDE = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(10), 2.0), 1)
NATIVE = pf.targets.Gaussian(torch.zeros(10), scale=torch.full((10,), 2.0))


@pytest.mark.parametrize(
    ("named", "flat"),
    [
        (pf.MetropolisHastings(Walk()), pf.MetropolisHastings(WalkByHand())),
        (pf.Independence(Normals()), pf.Independence(NormalsByHand())),
        (pf.Independence(WIDE), pf.Independence(WIDE)),  # laws of the flat state
        (pf.Independence(NATIVE), pf.Independence(NATIVE)),
    ],
    ids=["walk", "own", "distribution", "native"],
)
def test_proposals_see_dicts(named, flat):
    call = {"n_steps": 20, "seed": 4}
    ours = pf.sample(schools, named, start(), **call)
    check_same(ours, pf.sample(schools_by_hand, flat, flattened(start()), **call))
    assert 0 < ours.accept_rate.mean() < 1


class Other:
    def __init__(self, drawn):
        self.drawn = drawn

    def sample(self, n):
        return self.drawn

    log_prob = NormalsByHand.log_prob


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        (None, "got NoneType"),
        (torch.zeros(4, 10), "got Tensor"),
        (start(4) | {"mu": torch.zeros(4, 1)}, r"got theta \(4, 8\), mu \(4, 1\), log_tau \(4,\)"),
        (start(4) | {"mu": 0.0}, "mu float"),
        (start(4) | {"tau": torch.zeros(4)}, r"tau \(4,\)"),
        ({"mu": torch.zeros(4)}, r"got mu \(4,\)$"),
        (start(3), r"got theta \(3, 8\)"),
    ],
)
def test_draws_of_other_names_or_shapes(drawn, told):
    expected = r"proposal: expected a dict with shapes theta \(4, 8\), mu \(4,\), log_tau \(4,\), "
    with pytest.raises(ValueError, match=expected + ".*" + told):
        pf.sample(schools, pf.Independence(Other(drawn)), start(4), n_steps=1, seed=1)
