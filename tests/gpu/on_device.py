# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: the devices, copies on them, comparison bit for bit."""

import warnings

import pytest
import torch
from torch import nn

from pushforward import _native

HAS_CUDA = torch.cuda.is_available() and bool(_native.cuda_architectures)
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a GPU and a build with CUDA")

each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
"""Bodies that make sense on the CPU also run there, so that the tests themselves are exercised."""

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
STEP = {"step_size": 0.1, "beta": 0.7, "seed": 3}


def same(a, b):
    """Whether two tensors on any devices hold the same bits."""
    a, b = a.detach().cpu().contiguous(), b.detach().cpu().contiguous()
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.view(whole[a.element_size()]), b.view(whole[b.element_size()]))
    )


def on(device, *tensors):
    """Copies on the device."""
    copies = [t.to(device, copy=True) for t in tensors]
    return copies if len(copies) > 1 else copies[0]


def counter(value, device):
    """A seed or a step in a device's memory."""
    return torch.tensor(value, dtype=torch.int64, device=device)


def let_waits_raise(raise_now):
    """From now on, or no longer, whatever waits for the GPU raises."""
    with warnings.catch_warnings():
        # torch says once that this is a prototype, which does not see every wait
        warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
        torch.cuda.set_sync_debug_mode("error" if raise_now else "default")


class Quadratic(nn.Module):
    """An energy of three coordinates."""

    def __init__(self):
        super().__init__()
        self.precision = nn.Parameter(torch.tensor([0.5, 1.0, 4.0]))

    def forward(self, x):
        return 0.5 * (x * x * self.precision).sum(1)
