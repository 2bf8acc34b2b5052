# SPDX-License-Identifier: Apache-2.0
"""Score diffusion (notes, section 6.2): noise data, learn to denoise, go back to data."""

from pushforward.diffusion.denoising import (
    PreconditionedDenoiser,
    denoising_loss,
    fit_denoiser,
    tweedie_score,
)
from pushforward.diffusion.process import OrnsteinUhlenbeck
from pushforward.diffusion.reverse import reverse

__all__ = [
    "OrnsteinUhlenbeck",
    "PreconditionedDenoiser",
    "denoising_loss",
    "fit_denoiser",
    "reverse",
    "tweedie_score",
]
