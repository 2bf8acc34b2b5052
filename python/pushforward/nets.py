# SPDX-License-Identifier: Apache-2.0
"""The small networks that the examples need. Each takes a state and one noise level a row."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pushforward import _ops

__all__ = ["MLP", "UNet"]


class _LevelEmbedding(nn.Module):
    """Sines and cosines of the noise level, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(100.0), width // 2))
        )
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        angle = level[:, None] * self.frequencies
        return self.layers(torch.cat((angle.sin(), angle.cos()), 1))


class MLP(nn.Module):
    """A perceptron on ``(n, dim)`` states, conditioned on a noise level.

    Args:
        dim: number of coordinates.
        width: of the hidden layers, even.
        depth: how many of them.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.nets.MLP(2)(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])

    """

    def __init__(self, dim: int, *, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        dim, width, depth = (
            _ops.count(dim, "dim", 1),
            _ops.count(width, "width", 2),
            _ops.count(depth, "depth", 1),
        )
        width += width % 2
        self.level = _LevelEmbedding(width)
        sizes = [dim + width] + [width] * depth
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return a tensor like ``x`` ``(n, dim)``, for ``level`` ``(n,)``."""
        return self.layers(torch.cat((x, self.level(level)), 1))


class _ResidualBlock(nn.Module):
    """Two convolutions around a shortcut, shifted and scaled by the noise level."""

    def __init__(self, inward: int, outward: int, level_width: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(inward), inward)
        self.conv_in = nn.Conv2d(inward, outward, 3, padding=1)
        self.modulation = nn.Linear(level_width, 2 * outward)
        self.norm_out = nn.GroupNorm(_groups(outward), outward)
        self.conv_out = nn.Conv2d(outward, outward, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        self.shortcut = nn.Identity() if inward == outward else nn.Conv2d(inward, outward, 1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level)[:, :, None, None].chunk(2, 1)
        y = self.conv_in(functional.silu(self.norm_in(x)))
        y = self.conv_out(functional.silu(self.norm_out(y) * (1 + scale) + shift))
        return self.shortcut(x) + y


def _groups(channels: int) -> int:
    return math.gcd(8, channels)


class UNet(nn.Module):
    """A small U-Net on images, conditioned on a noise level (notes, figure 11).

    Args:
        channels: of the images.
        width: channels of the finest scale; each coarser scale doubles them.
        n_scales: number of scales; image sides must be multiples of ``2**(n_scales - 1)``.
        depth: residual blocks a scale, on the way down and on the way up.

    Raises:
        TypeError: an argument is not an int.
        ValueError: an argument is less than 1.

    Reference: O. Ronneberger, P. Fischer, T. Brox (2015), U-Net: convolutional networks for
    biomedical image segmentation, MICCAI.

    Example:
        >>> import pushforward as pf, torch
        >>> pf.nets.UNet(1, width=16)(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 1, 8, 8])

    """

    def __init__(
        self, channels: int = 1, *, width: int = 32, n_scales: int = 2, depth: int = 1
    ) -> None:
        super().__init__()
        channels, width = _ops.count(channels, "channels", 1), _ops.count(width, "width", 1)
        self.n_scales, depth = _ops.count(n_scales, "n_scales", 1), _ops.count(depth, "depth", 1)
        self.channels = channels
        level_width = 4 * width
        self.level = _LevelEmbedding(level_width)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        widths = [width]
        current = width
        for scale in range(n_scales):
            for _ in range(depth):
                self.down.append(_ResidualBlock(current, width << scale, level_width))
                current = width << scale
                widths.append(current)
        self.middle = _ResidualBlock(current, current, level_width)
        for scale in reversed(range(n_scales)):
            for _ in range(depth):
                self.up.append(_ResidualBlock(current + widths.pop(), width << scale, level_width))
                current = width << scale
        self.head = nn.Sequential(
            nn.GroupNorm(_groups(current), current),
            nn.SiLU(),
            nn.Conv2d(current, channels, 3, padding=1),
        )
        self.depth = depth

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return a tensor like ``x`` ``(n, channels, height, width)``, for ``level`` ``(n,)``.

        Raises:
            ValueError: ``x`` has another number of channels, or sides that cannot be halved.

        """
        unit = 2 ** (self.n_scales - 1)
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % unit or x.shape[3] % unit:
            raise ValueError(
                f"x: expected shape (n, {self.channels}, height, width) with sides that are "
                f"multiples of {unit}, got {tuple(x.shape)}"
            )
        embedded = functional.silu(self.level(level))
        x = self.stem(x)
        kept = []
        for i, block in enumerate(self.down):
            if i > 0 and i % self.depth == 0:
                x = functional.avg_pool2d(x, 2)
            x = block(x, embedded)
            kept.append(x)
        x = self.middle(x, embedded)
        for i, block in enumerate(self.up):
            if i > 0 and i % self.depth == 0:
                x = functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat((x, kept.pop()), 1), embedded)
        return self.head(x)
