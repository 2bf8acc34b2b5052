# SPDX-License-Identifier: Apache-2.0
"""From denoising to the score (notes, section 6.2.3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pushforward import _ops, random
from pushforward._ops.arguments import column
from pushforward.diffusion.process import OrnsteinUhlenbeck
from pushforward.progress import progress_bar

Denoiser = Callable[[Tensor, Tensor], Tensor]


def denoising_loss(
    denoiser: Denoiser,
    process: OrnsteinUhlenbeck,
    x0: Tensor,
    t: Tensor | float,
    *,
    weight: Tensor | None = None,
    seed: int | torch.Generator | None = None,
    chain_offset: int = 0,
) -> Tensor:
    r"""Return the loss whose minimum is the optimal denoiser (eq 141).

    .. math:: \frac1n \sum_i w_i\,\| \hat x(x_{t_i}, t_i) - x_{0,i} \|^2

    The noise in ``x_t`` is made from the seed and not stored.

    Args:
        denoiser: ``denoiser(x_t, t) -> like x_t``, an estimate of ``x_0``; ``t`` has shape
            ``(n_chains,)``.
        process: the forward process.
        x0: clean data, ``(n_chains, *event)``.
        t: times, a float, a 0-d tensor or shape ``(n_chains,)``.
        weight: one factor a chain, shape ``(n_chains,)``; 1 by default.
        seed: see :func:`pushforward.random.resolve_seed`.
        chain_offset: global index of the first chain.

    Returns:
        A 0-d tensor, differentiable in the denoiser's parameters.

    Raises:
        ValueError: a shape is wrong.

    Example:
        >>> import pushforward as pf, torch
        >>> process, x0 = pf.diffusion.OrnsteinUhlenbeck(), torch.zeros(4, 2)
        >>> float(pf.diffusion.denoising_loss(lambda x, t: 0 * x, process, x0, 0.5, seed=0))
        0.0

    """
    _ops.check_tensor(x0, "x0")
    n = len(x0) if x0.ndim else 0
    times = torch.as_tensor(t, dtype=torch.float64)
    for name, value in (("t", times), ("weight", weight)):
        if value is not None and value.shape not in (torch.Size(()), torch.Size((n,))):
            raise ValueError(f"{name}: expected shape () or ({n},), got {tuple(value.shape)}")
    times = times.expand(n)
    noisy = process.diffuse(x0, times, seed=seed, chain_offset=chain_offset)
    estimate = denoiser(noisy, times.to(x0.dtype))
    if not isinstance(estimate, Tensor) or estimate.shape != x0.shape:
        got = tuple(estimate.shape) if isinstance(estimate, Tensor) else type(estimate).__name__
        raise ValueError(f"denoiser: expected a tensor of shape {tuple(x0.shape)}, got {got}")
    square = (estimate - x0).reshape(n, x0[:1].numel()).square().sum(1)
    return (square if weight is None else square * weight.to(square)).mean()


def tweedie_score(
    denoiser: Denoiser, process: OrnsteinUhlenbeck
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Return the score that belongs to a denoiser (eq 142, Tweedie's formula).

    .. math:: \nabla\log p_t(x) = \frac{a_t\,\hat x(x, t) - x}{\mathrm{std}_t^2},
        \qquad a_t = e^{-\kappa t}

    Args:
        denoiser: ``denoiser(x, t) -> E[x_0 | x_t = x]``, called as in :func:`denoising_loss`
            with ``t`` of shape ``(n_chains,)``.
        process: the forward process.

    Returns:
        ``score(x, t)`` for :func:`reverse`; ``t > 0``.

    Example:
        >>> import pushforward as pf, torch
        >>> process = pf.diffusion.OrnsteinUhlenbeck()
        >>> score = pf.diffusion.tweedie_score(lambda x, t: torch.zeros_like(x), process)
        >>> x = torch.ones(1, 2)  # all data at zero: x_t is N(0, std^2)
        >>> torch.allclose(score(x, torch.tensor(0.5)), -x / process.std(0.5) ** 2)
        True

    """

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t)
        exact = t.double()
        scale = column(process.mean_scale(exact).to(x), x)
        variance = column((process.std(exact) ** 2).to(x), x)
        return (scale * denoiser(x, t.expand(len(x))) - x) / variance

    return score


class PreconditionedDenoiser(nn.Module):
    r"""A denoiser around a network whose input and target have unit variance at every noise level.

    With ``v = x_t / a_t = x_0 + sigma_t xi`` (eq 140) and data of standard deviation ``s``,

    .. math:: \hat x = \frac{s^2}{\sigma_t^2 + s^2}\,v + \frac{\sigma_t s}{\sqrt{\sigma_t^2 + s^2}}
        \,F\!\left(\frac{v}{\sqrt{\sigma_t^2 + s^2}}, \tfrac14 \ln\sigma_t\right).

    Reference: T. Karras, M. Aittala, T. Aila, S. Laine (2022), Elucidating the design space of
    diffusion-based generative models, section 5.

    Args:
        network: ``F(x, level)`` with ``x`` ``(n, *event)`` and ``level`` ``(n,)``.
        process: the forward process.
        data_std: ``s``, positive.

    Raises:
        ValueError: ``data_std`` is not positive.

    Example:
        >>> import pushforward as pf, torch
        >>> net = lambda x, level: torch.zeros_like(x)
        >>> process = pf.diffusion.OrnsteinUhlenbeck()
        >>> denoiser = pf.diffusion.PreconditionedDenoiser(net, process, data_std=1.0)
        >>> denoiser(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[0.3679, 0.3679]])

    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        process: OrnsteinUhlenbeck,
        data_std: float,
    ) -> None:
        super().__init__()
        if not (math.isfinite(data_std) and data_std > 0):
            raise ValueError(f"data_std: expected a positive finite number, got {data_std}")
        self.network = network
        self.process = process
        self.data_std = float(data_std)

    def noise_level(self, t: Tensor) -> Tensor:
        """Return ``sigma_t`` of eq 140, float64."""
        exact = torch.as_tensor(t, dtype=torch.float64)
        return self.process.std(exact) / self.process.mean_scale(exact)

    def weight(self, t: Tensor) -> Tensor:
        """Return the weight under which every noise level counts alike in the loss."""
        variance, square = self.data_std**2, self.noise_level(t) ** 2
        return (square + variance) / (square * variance)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of ``x_0``, for ``x`` ``(n, *event)`` and ``t`` () or ``(n,)``."""
        level = self.noise_level(t).expand(len(x))
        total = level**2 + self.data_std**2
        skip = self.data_std**2 / total
        out = level * self.data_std / total.sqrt()
        clean_scale = 1 / self.process.mean_scale(torch.as_tensor(t, dtype=torch.float64)).expand(
            len(x)
        )
        estimate = self.network(
            x * column((clean_scale / total.sqrt()).to(x), x), (0.25 * level.log()).to(x)
        )
        return column((skip * clean_scale).to(x), x) * x + column(out.to(x), x) * estimate


def fit_denoiser(
    denoiser: PreconditionedDenoiser,
    data: Tensor,
    *,
    n_steps: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    noise_levels: tuple[float, float] = (0.02, 20.0),
    ema: float = 0.999,
    progress: bool | None = None,
    callback: Callable[[int, float], Any] | None = None,
    seed: int | torch.Generator | None = None,
) -> PreconditionedDenoiser:
    """Fit a denoiser to data by :func:`denoising_loss` with Adam, and return its moving average.

    Noise levels are log-uniform; minibatches, levels and noise are functions of the seed. The
    network's initial weights are the caller's.

    Args:
        denoiser: trained in place.
        data: ``(n, *event)``, scaled so that ``denoiser.data_std`` is its standard deviation.
        n_steps: number of minibatches.
        batch_size: their size.
        learning_rate: of Adam at its peak; it rises over the first 5 % and falls as a cosine.
        noise_levels: least and greatest ``sigma_t``, in the data's units.
        ema: decay of the moving average of the weights.
        progress: as in :func:`pushforward.sample`.
        callback: called as ``callback(step, loss)``.
        seed: see :func:`pushforward.random.resolve_seed`.

    Returns:
        A copy of the denoiser with averaged weights, in eval mode.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> import pushforward as pf, torch
        >>> process, net = pf.diffusion.OrnsteinUhlenbeck(), pf.nets.MLP(2)
        >>> denoiser = pf.diffusion.PreconditionedDenoiser(net, process, data_std=1.0)
        >>> fitted = pf.diffusion.fit_denoiser(denoiser, torch.randn(100, 2), n_steps=2, seed=0)
        >>> fitted.training
        False

    """
    n_steps, batch_size = _ops.count(n_steps, "n_steps"), _ops.count(batch_size, "batch_size", 1)
    if not isinstance(data, Tensor) or data.ndim < 2 or len(data) == 0:
        raise ValueError("data: expected a tensor of shape (n, *event), n > 0")
    low, high = noise_levels
    if not 0 < low < high < math.inf:
        raise ValueError(f"noise_levels: expected 0 < least < greatest, got {noise_levels}")
    if not 0 <= ema < 1:
        raise ValueError(f"ema: expected 0 <= ema < 1, got {ema}")
    seed = random.resolve_seed(seed)
    average = copy.deepcopy(denoiser)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    rise = max(1, n_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min((k + 1) / rise, 0.5 * (1 + math.cos(math.pi * k / max(n_steps, 1)))),
    )
    denoiser.train()
    with progress_bar(progress, total=n_steps, unit="batch") as bar:
        for step in range(n_steps):
            pick, place = (
                random.uniform(
                    1,
                    batch_size,
                    seed=seed,
                    purpose=p,
                    start=step * batch_size,
                    dtype=torch.float64,
                )[0]
                for p in ("data", "time")
            )
            rows = (pick * len(data)).long().clamp(max=len(data) - 1)
            t = denoiser.process.time_at(low * (high / low) ** place)
            loss = (
                denoising_loss(
                    denoiser,
                    denoiser.process,
                    data[rows],
                    t,
                    weight=denoiser.weight(t),
                    seed=random.fold_in(seed, step),
                )
                / data[0].numel()
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            decay = min(ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(average.parameters()), list(denoiser.parameters()), 1 - decay
                )
            if callback is not None:
                callback(step, loss.item())
            bar.update(1)
    for kept, trained in zip(average.buffers(), denoiser.buffers(), strict=True):
        kept.copy_(trained)
    return average.eval()
