# SPDX-License-Identifier: Apache-2.0
"""Laws to sample: native targets, which the fused kernels know, and anything written in torch."""

from pushforward.targets.base import NativeTarget
from pushforward.targets.gaussian import Gaussian
from pushforward.targets.mixture import GaussianMixture
from pushforward.targets.shapes import Banana, Funnel, Ring
from pushforward.targets.torch_targets import Energy, Target, as_target
from pushforward.targets.wells import DoubleWell

__all__ = [
    "Banana",
    "DoubleWell",
    "Energy",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "NativeTarget",
    "Ring",
    "Target",
    "as_target",
]
