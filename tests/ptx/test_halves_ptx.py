# SPDX-License-Identifier: Apache-2.0
"""Two-byte storage in the CUDA kernels' PTX: every number in, and roundings of all kinds out."""

from ctypes import c_uint64

import pytest
import torch

import pushforward as pf
from ptx.calls import HALVES, SEED, Call, needs_sources, same
from ptx.structs import functor

pytestmark = needs_sources


def diffused(x, mean_scale):
    """``mean_scale * x + 0 * noise`` by the interpreted kernel."""
    call, out = Call(x.dtype), torch.zeros_like(x)
    kernel = functor(
        c_uint64(call.at(out)),
        c_uint64(call.at(x)),
        call.per_chain(mean_scale),
        call.per_chain(0.0),
    )
    noise = call.noise("forward")
    call.elements("diffusion", ["::Diffuse<"], x.shape, noise, kernel, phase=0, aligned=True)
    return out


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", [4, 1])  # a group at a time and an element at a time
def test_every_number_goes_in_and_comes_out(dtype, n):
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(-1, n)
    got = diffused(x, 1.0)
    # A zero that comes out may have lost its sign to the zero of the noise.
    assert bool(((got == x) | (got.isnan() & x.isnan())).all())
    assert same(got, pf.ops.diffuse(x, mean_scale=1.0, std=0.0, seed=SEED))


@pytest.mark.parametrize("dtype", HALVES)
def test_float32_numbers_are_rounded_as_torch_does(dtype):
    """Ties, overflow and subnormals, some patterns of each exponent."""
    every = torch.arange(-(2**31), 2**31, 400009, dtype=torch.int64).to(torch.int32)
    high = torch.arange(0, 65536, 7, dtype=torch.int32) << 16
    values = torch.cat((every, high | 0x8000, high | 0x1000)).view(torch.float32)
    values = values[values.isfinite() & (values != 0)]
    one = torch.ones(len(values), 1, dtype=dtype)
    assert torch.equal(diffused(one, values), values.to(dtype)[:, None])
