# SPDX-License-Identifier: Apache-2.0
"""What the tests share: targets and their zoo, settings of hypothesis, restored threads."""

import math

import pytest
import torch
from hypothesis import HealthCheck, settings

import pushforward as pf
from pushforward import _ops

settings.register_profile(
    "default",
    deadline=None,  # the machines that run this are busy
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.fixture
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ring_of_modes(n_modes=8, radius=4.0, scale=0.5):
    angle = torch.arange(n_modes, dtype=torch.float64) * (2 * math.pi / n_modes)
    means = radius * torch.stack((angle.cos(), angle.sin()), 1)
    return pf.targets.GaussianMixture(means, scales=torch.full((n_modes,), scale))


_RING = ring_of_modes()
RING = {"native": _RING, "torch": pf.Energy(lambda x: -_RING.torch_log_density(x))}


@pytest.fixture(params=RING, ids=list(RING))
def law(request):
    return RING[request.param]


def totals_of(moments):
    """The streaming sums of all states, those of the open group too."""
    if moments.open_group is None:
        return moments.sum, moments.sum_of_squares
    out = torch.empty_like(moments.sum), torch.empty_like(moments.sum)
    return _ops.totals(torch.empty_like(moments.shift), moments, *out)


class AsTorch:
    """A native target whose runs go through autograd."""

    def __init__(self, law):
        self._law = law

    def log_density(self, x):
        return self._law.log_density(x)


def _spd(dim, seed):
    a = pf.random.normal(dim, dim, seed=seed, dtype=torch.float64) / math.sqrt(dim)
    return a @ a.T + torch.eye(dim)


def target_zoo():
    """One of each native target, with every layout of its parameters and odd dimensions."""
    t = pf.targets
    return {
        "gaussian-diagonal": t.Gaussian(torch.arange(3.0), scale=torch.tensor([1.0, 2.0, 0.5])),
        "gaussian-plane": t.Gaussian(torch.ones(2), scale=torch.tensor([1.0, 0.3])),
        "gaussian-dense": t.Gaussian(torch.arange(5.0), precision=_spd(5, 1)),
        "gaussian-dense-32": t.Gaussian(torch.zeros(32), covariance=_spd(32, 2)),
        "gaussian-dense-long": t.Gaussian(torch.arange(45.0) / 9, precision=_spd(45, 3)),
        "gaussian-diagonal-long": t.Gaussian(torch.zeros(70), scale=torch.linspace(0.5, 2, 70)),
        "mixture-isotropic": ring_of_modes(),
        "mixture-isotropic-odd": t.GaussianMixture(
            pf.random.normal(11, 3, seed=4) * 2, scales=torch.linspace(0.4, 1.4, 11)
        ),
        "mixture-diagonal": t.GaussianMixture(
            pf.random.normal(9, 4, seed=5) * 2,
            scales=pf.random.uniform(9, 4, seed=6) + 0.3,
            weights=torch.arange(1.0, 10.0),
        ),
        "mixture-dense": t.GaussianMixture(
            pf.random.normal(3, 3, seed=7) * 2,
            covariances=torch.stack([_spd(3, s) for s in (8, 9, 10)]),
        ),
        "double-well": t.DoubleWell(4, mu=-2.0, b=0.7),
        "double-well-deep": t.DoubleWell(1, mu=-6.0, b=0.8),
        "single-well": t.DoubleWell(2, mu=1.0, b=2.0),
        "banana": t.Banana(3, scale=1.5, curvature=0.4),
        "funnel": t.Funnel(6, scale=1.2),
        "ring": t.Ring(radius=2.0, scale=0.3),
    }


ZOO = target_zoo()


@pytest.fixture(params=ZOO, ids=list(ZOO))
def target(request):
    return ZOO[request.param]
