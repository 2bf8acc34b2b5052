# SPDX-License-Identifier: Apache-2.0
"""Six posteriors of real data, their moments by quadrature and as others have published them.

Each is a log-density over an unconstrained vector; positive parameters enter by their logarithm,
with its Jacobian. ``reference_mean`` and ``reference_sd`` are those of ``quantities(x)``, the
parameters as they are usually quoted. They are exact to about eight digits: but for one or two
parameters each posterior is integrated in closed form, and what is left by the trapezoidal rule on
a line or a plane, which converges exponentially. ``published_mean`` is what long runs of other
programs gave, with the Monte Carlo error that they state.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn.functional import softplus

from mesquite import BUSHES


@dataclass(frozen=True, eq=False)
class Posterior:
    """A posterior.

    Attributes:
        names: of the quantities.
        dim: number of coordinates of ``x``.
        log_density: from ``(n_chains, dim)`` to ``(n_chains,)``, float32 or float64.
        quantities: from ``(n_chains, dim)`` to ``(n_chains, len(names))``.
        reference_mean: of the quantities, float64.
        reference_sd: likewise.
        draw: from (n, seed) to independent float64 draws ``(n, dim)``, exact but for the lattice
            of the quadrature on which one or two coordinates lie.
        published_mean: of the quantities, as others found it.
        published_error: standard error of ``published_mean``.
        source: of model, data and published numbers.

    """

    names: tuple[str, ...]
    dim: int
    log_density: Callable[[Tensor], Tensor]
    quantities: Callable[[Tensor], Tensor]
    reference_mean: Tensor
    reference_sd: Tensor
    draw: Callable[[int, int], Tensor]
    published_mean: Tensor
    published_error: Tensor
    source: str


def _weights(log_density):
    """Weights of the points of a regular lattice, which add to one."""
    weights = np.exp(log_density - log_density.max())
    edge = np.concatenate([np.take(weights, [0, -1], k).ravel() for k in range(weights.ndim)])
    assert edge.max() < 1e-9, "the lattice ends too early"
    return weights / weights.sum()


def _moments(weights, mean, variance):
    """Mean and sd of a mixture of components with the given (..., k) means and variances."""
    total = np.tensordot(weights, mean, weights.ndim)
    second = np.tensordot(weights, variance + (mean - total) ** 2, weights.ndim)
    return torch.from_numpy(total), torch.from_numpy(np.sqrt(second))


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# ---- eight schools -------------------------------------------------------------------------------

EFFECT = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERROR = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]


def _eight_schools_hyper(mu, log_tau):
    """Log-density of mu ~ N(0, 5) and tau ~ half-Cauchy(0, 5), with tau's Jacobian."""
    return -0.5 * (mu / 5) ** 2 - torch.log1p((log_tau.exp() / 5) ** 2) + log_tau


def _eight_schools_centered(x):
    effect, error = _tensor(EFFECT).to(x), _tensor(ERROR).to(x)
    theta, mu, log_tau = x[:, :8], x[:, 8], x[:, 9]
    spread = ((theta - mu[:, None]) / log_tau.exp()[:, None]).square().sum(1)
    misfit = ((effect - theta) / error).square().sum(1)
    return _eight_schools_hyper(mu, log_tau) - 0.5 * (spread + misfit) - 8 * log_tau


def _eight_schools_noncentered(x):
    effect, error = _tensor(EFFECT).to(x), _tensor(ERROR).to(x)
    z, mu, log_tau = x[:, :8], x[:, 8], x[:, 9]
    misfit = ((effect - mu[:, None] - log_tau.exp()[:, None] * z) / error).square().sum(1)
    return _eight_schools_hyper(mu, log_tau) - 0.5 * (z.square().sum(1) + misfit)


def _eight_schools_line():
    """On a line of log tau: its weights, tau, and the normal laws of mu and of theta given mu."""
    log_tau = np.linspace(-26, 9, 4001)
    tau2 = np.exp(2 * log_tau)[:, None]
    effect, variance = np.array(EFFECT), np.array(ERROR) ** 2
    precision = 1 / (variance + tau2)  # of each effect about mu
    mu_variance = 1 / (precision.sum(1) + 1 / 25)
    mu_mean = mu_variance * (precision * effect).sum(1)
    log_density = (
        0.5 * np.log(precision).sum(1)
        - 0.5 * (precision * effect**2).sum(1)
        + 0.5 * np.log(mu_variance)
        + 0.5 * mu_mean**2 / mu_variance
        - np.log1p(tau2[:, 0] / 25)
        + log_tau
    )
    shrink = variance / (variance + tau2)  # theta = effect + shrink (mu - effect) + noise
    return _weights(log_density), np.exp(log_tau), mu_mean, mu_variance, shrink, shrink * tau2


def _eight_schools(centered):
    weights, tau, mu_mean, mu_variance, shrink, noise = _eight_schools_line()
    effect = np.array(EFFECT)
    theta = effect + shrink * (mu_mean[:, None] - effect)
    mean = np.column_stack((theta, mu_mean, tau))
    variance = np.column_stack((noise + shrink**2 * mu_variance[:, None], mu_variance, 0 * tau))

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        i = rng.choice(len(weights), n, p=weights)
        mu = mu_mean[i] + np.sqrt(mu_variance[i]) * rng.standard_normal(n)
        theta = effect + shrink[i] * (mu[:, None] - effect)
        theta += np.sqrt(noise[i]) * rng.standard_normal((n, 8))
        if not centered:
            theta = (theta - mu[:, None]) / tau[i, None]
        return torch.from_numpy(np.column_stack((theta, mu, np.log(tau[i]))))

    def quantities(x):
        mu, tau = x[:, 8:9], x[:, 9:].exp()
        theta = x[:, :8] if centered else mu + tau * x[:, :8]
        return torch.cat((theta, mu, tau), 1)

    reference = _moments(weights, mean, variance)
    return Posterior(
        names=(*(f"theta[{j}]" for j in range(1, 9)), "mu", "tau"),
        dim=10,
        log_density=_eight_schools_centered if centered else _eight_schools_noncentered,
        quantities=quantities,
        reference_mean=reference[0],
        reference_sd=reference[1],
        draw=draw,
        published_mean=_tensor(
            [6.1505, 4.9396, 3.9059, 4.7960, 3.6144, 4.0511, 6.3172, 4.8840, 4.4105, 3.6021]
        ),
        published_error=_tensor(
            [0.0557, 0.0462, 0.0542, 0.0475, 0.0461, 0.0485, 0.0499, 0.0543, 0.0330, 0.0319]
        ),
        source="D. B. Rubin (1981), Estimation in parallel randomized experiments; priors and "
        "means: posteriordb, eight_schools-eight_schools_noncentered, 10 000 draws",
    )


# ---- linear regression ---------------------------------------------------------------------------


def _regression(design, y, prior_mean, prior_sd, names, published, source):
    """y ~ N(design b, sigma), b ~ N(prior_mean, prior_sd), flat at sd inf, sigma > 0 uniform."""
    n, k = design.shape
    prior_precision = np.diag(np.broadcast_to(1 / np.square(prior_sd), k))
    prior_mean = np.broadcast_to(prior_mean, k)
    gram, moment, norm = design.T @ design, design.T @ y, y @ y
    residual = norm - moment @ np.linalg.solve(gram, moment)
    log_sigma = 0.5 * math.log(residual / n) + np.linspace(-14, 14, 2001) / math.sqrt(n)
    b_mean, b_covariance, log_density = [], [], []
    for u in log_sigma:
        precision = gram * math.exp(-2 * u) + prior_precision
        right = moment * math.exp(-2 * u) + prior_precision @ prior_mean
        mean = np.linalg.solve(precision, right)
        misfit = y - design @ mean
        prior = (mean - prior_mean) @ prior_precision @ (mean - prior_mean)
        # The marginal likelihood is likelihood times prior over posterior, at any b.
        log_density.append(
            -0.5 * (misfit @ misfit) * math.exp(-2 * u)
            - n * u
            - 0.5 * prior
            - 0.5 * np.linalg.slogdet(precision)[1]
            + u
        )
        b_mean.append(mean)
        b_covariance.append(np.linalg.inv(precision))
    weights = _weights(np.array(log_density))
    b_mean, b_covariance = np.array(b_mean), np.array(b_covariance)
    sigma = np.exp(log_sigma)
    variance = np.diagonal(b_covariance, axis1=1, axis2=2)
    reference = _moments(
        weights, np.column_stack((b_mean, sigma)), np.column_stack((variance, 0 * sigma))
    )
    constants = [_tensor(np.array(v)) for v in (design, y, prior_mean, prior_sd)]

    def log_density_of(x):
        design, y, center, scale = (v.to(x) for v in constants)
        b, u = x[:, :k], x[:, k]
        misfit = (y - b @ design.T).square().sum(1)
        return -0.5 * ((b - center) / scale).square().sum(1) - 0.5 * misfit * (-2 * u).exp() - (n - 1) * u  # fmt: skip

    def draw(size, seed):
        rng = np.random.default_rng(seed)
        i = rng.choice(len(weights), size, p=weights)
        factor = np.linalg.cholesky(b_covariance)[i]
        b = b_mean[i] + np.einsum("nij,nj->ni", factor, rng.standard_normal((size, k)))
        return torch.from_numpy(np.column_stack((b, log_sigma[i])))

    return Posterior(
        names=(*names, "sigma"),
        dim=k + 1,
        log_density=log_density_of,
        quantities=lambda x: torch.cat((x[:, :k], x[:, k:].exp()), 1),
        reference_mean=reference[0],
        reference_sd=reference[1],
        draw=draw,
        published_mean=_tensor(published[0]),
        published_error=_tensor(published[1]),
        source=source,
    )


# Mean summer temperature at Kilpisjärvi, 1952 to 2013, in degrees Celsius.
TEMPERATURE = [
    8.3, 10.9, 9.4, 8.1, 8.1, 7.7, 8.6, 9.1, 11.0, 10.1, 7.6, 8.8, 8.3, 7.2, 9.3, 8.8, 7.6, 10.5,
    11.0, 8.9, 11.3, 10.0, 10.1, 6.4, 8.2, 8.4, 9.5, 9.9, 10.6, 7.6, 7.7, 8.1, 8.4, 9.7, 9.5, 7.3,
    10.3, 9.6, 10.3, 9.8, 9.0, 9.1, 9.5, 8.7, 9.9, 10.5, 9.4, 9.0, 9.0, 9.7, 11.4, 10.7, 10.1,
    10.8, 10.4, 10.3, 8.8, 9.8, 8.8, 10.8, 8.6, 11.1,
]  # fmt: skip


def _kilpisjarvi():
    # The published data set counts years from 2000 years too early; alpha depends on it.
    year = np.arange(3952.0, 4014.0)
    y = np.array(TEMPERATURE)
    return _regression(
        np.column_stack((np.ones(62), year)),
        y,
        np.array([y.mean(), 0.0]),
        np.array([100.0, 1 / 30]),
        ("alpha", "beta"),
        ([-60.7123, 0.0175836, 1.131667], [0.3066, 0.0000770, 0.001062]),
        "A. Vehtari, BDA course, Stan demos; priors and means: posteriordb, "
        "kilpisjarvi_mod-kilpisjarvi, 10 000 draws",
    )


def _mesquite():
    bushes = np.array(BUSHES)
    return _regression(
        np.column_stack((np.ones(46), bushes[:, :-1])),
        bushes[:, -1],
        0.0,
        math.inf,
        tuple(f"beta[{j}]" for j in range(1, 8)),
        (
            [-727.0382, 187.0370, 373.6959, 355.6123, -101.6875, 132.0591, -365.3304, 277.7615],
            [1.5038, 1.1958, 1.2977, 2.2655, 1.9211, 0.3626, 1.0654, 0.3211],
        ),
        "A. Gelman and J. Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical "
        "Models, section 4.6; means: posteriordb, mesquite-mesquite, 10 000 draws",
    )


# ---- logistic regression -------------------------------------------------------------------------

DOSE = [1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839]
EXPOSED = [59.0, 60.0, 62.0, 56.0, 63.0, 59.0, 62.0, 60.0]
KILLED = [6.0, 13.0, 18.0, 28.0, 52.0, 53.0, 61.0, 60.0]


def _beetles_log_density(x):
    dose, exposed, killed = (_tensor(v).to(x) for v in (DOSE, EXPOSED, KILLED))
    logit = x[:, :1] + x[:, 1:] * (dose - dose.mean())
    return (killed * logit - exposed * softplus(logit)).sum(1) - 0.0005 * x.square().sum(1)


def _beetles():
    """Quadrature of the log-density itself, over a plane around the mode."""
    center, scale = np.array([0.75, 34.3]), np.array([0.138, 2.9])
    axes = [c + s * np.linspace(-8, 8, 321) for c, s in zip(center, scale, strict=True)]
    plane = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    log_density = _beetles_log_density(torch.from_numpy(plane.reshape(-1, 2))).numpy()
    weights = _weights(log_density.reshape(321, 321))

    def quantities(x):
        return torch.stack((x[:, 0] - x[:, 1] * _tensor(DOSE).to(x).mean(), x[:, 1]), 1)

    def draw(n, seed):
        i = np.random.default_rng(seed).choice(321**2, n, p=weights.ravel())
        return torch.from_numpy(plane.reshape(-1, 2)[i])

    mean = quantities(torch.from_numpy(plane.reshape(-1, 2))).numpy().reshape(321, 321, 2)
    reference = _moments(weights, mean, 0 * mean)
    return Posterior(
        names=("alpha", "beta"),
        dim=2,
        log_density=_beetles_log_density,
        quantities=quantities,
        reference_mean=reference[0],
        reference_sd=reference[1],
        draw=draw,
        published_mean=_tensor([-60.78, 34.3]),
        # Not stated; sd / sqrt(1000), as ten thousand draws of a Gibbs sampler may be worth.
        published_error=_tensor([5.168, 2.904]) / math.sqrt(1000),
        source="C. I. Bliss (1935), The calculation of the dosage-mortality curve; priors and "
        "means: OpenBUGS examples, volume 2, Beetles, logit link",
    )


# ---- Poisson counts with a hierarchy of rates ----------------------------------------------------

FAILURES = [5.0, 1.0, 5.0, 14.0, 3.0, 19.0, 1.0, 1.0, 4.0, 22.0]
HOURS = [94.3, 15.7, 62.9, 126.0, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5]


def _pumps_log_density(x):
    failures, hours = _tensor(FAILURES).to(x), _tensor(HOURS).to(x)
    log_theta, log_alpha, log_beta = x[:, :10], x[:, 10], x[:, 11]
    alpha, beta = log_alpha.exp(), log_beta.exp()
    counts = (failures + alpha[:, None]) * log_theta - (hours + beta[:, None]) * log_theta.exp()
    hyper = 10 * (alpha * log_beta - torch.lgamma(alpha)) - alpha - beta
    return counts.sum(1) + hyper + log_alpha + 0.1 * log_beta


def _pumps():
    failures, hours = np.array(FAILURES), np.array(HOURS)
    log_alpha, log_beta = np.linspace(-6, 3, 451), np.linspace(-20, 4, 801)
    alpha = np.exp(log_alpha)[:, None, None]
    beta = np.exp(log_beta)[None, :, None]
    shape, rate = alpha + failures, beta + hours
    pumps = special.gammaln(shape) - special.gammaln(alpha) + alpha * np.log(beta)
    pumps = (pumps - shape * np.log(rate)).sum(-1)
    prior = np.log(alpha) - alpha + 0.1 * np.log(beta) - beta
    weights = _weights(pumps + prior[..., 0])
    ones = np.ones((*weights.shape, 1))
    mean = np.concatenate((shape / rate, alpha * ones, beta * ones), -1)
    variance = np.concatenate((shape / rate**2, 0 * ones, 0 * ones), -1)
    reference = _moments(weights, mean, variance)

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        i, j = np.divmod(rng.choice(weights.size, n, p=weights.ravel()), weights.shape[1])
        theta = rng.gamma(shape[i, 0]) / rate[0, j]
        hyper = np.column_stack((log_alpha[i], log_beta[j]))
        return torch.from_numpy(np.column_stack((np.log(theta), hyper)))

    return Posterior(
        names=(*(f"theta[{j}]" for j in range(1, 11)), "alpha", "beta"),
        dim=12,
        log_density=_pumps_log_density,
        quantities=torch.exp,
        reference_mean=reference[0],
        reference_sd=reference[1],
        draw=draw,
        published_mean=_tensor(
            [0.0597276, 0.0997635, 0.0889841, 0.116179, 0.603654, 0.608916,
             0.894307, 0.884304, 1.56235, 1.98785, 0.679247, 0.893892]
        ),
        published_error=_tensor(
            [0.000357, 0.001132, 0.000511, 0.000383, 0.006123, 0.001557,
             0.030110, 0.025229, 0.023808, 0.010220, 0.007083, 0.018255]
        ),
        source="E. I. George, U. E. Makov and A. F. M. Smith (1993), Conjugate likelihood "
        "distributions; priors: OpenBUGS examples, volume 1, Pumps; means: Mamba.jl's manual",
    )  # fmt: skip


BUILDERS = {
    "eight-schools-centered": lambda: _eight_schools(centered=True),
    "eight-schools-noncentered": lambda: _eight_schools(centered=False),
    "kilpisjarvi": _kilpisjarvi,
    "mesquite": _mesquite,
    "beetles": _beetles,
    "pumps": _pumps,
}
NAMES = tuple(BUILDERS)


@functools.cache
def posterior(name):
    """Return the posterior called ``name``, one of :data:`NAMES`."""
    return BUILDERS[name]()
