# SPDX-License-Identifier: Apache-2.0
"""The registered ops on a GPU: what torch.library checks of them, and under torch.compile."""

import pytest
import torch
from on_device import each_device, same

from registered_ops import every_kind_of_op, registered_calls, state


@pytest.mark.parametrize("index", range(len(registered_calls())))
@each_device
def test_opcheck(device, index):
    op, arguments = registered_calls(device)[index]
    torch.library.opcheck(op.default, arguments)


@each_device
def test_one_compiled_graph_equals_eager_and_the_cpu(device):
    x = state(17, (3,), torch.float32)
    compiled = torch.compile(every_kind_of_op, fullgraph=True, backend="aot_eager")
    for h, first in ((0.1, 0), (0.2, 3), (0.3, 5)):
        there = x.to(device)
        parts = compiled(there, h, first), every_kind_of_op(there, h, first)
        for a, b, c in zip(*parts, every_kind_of_op(x, h, first), strict=True):
            assert same(a, b)
            assert same(a, c)
