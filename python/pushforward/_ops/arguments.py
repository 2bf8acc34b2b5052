# SPDX-License-Identifier: Apache-2.0
"""What the ops share: the registry, the checks that Python does."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from pushforward import _native
from pushforward._ops.arrays import is_array


class BatchMoments(NamedTuple):
    """The streaming sums of a run: the struct ``Moments`` of ``csrc/core/view.hpp``.

    Native steps add real states in groups of sixteen, counted from the first recorded step. The
    group that has not ended is not in the sums but in ``open_group``, of the type of x: three times
    ``x.numel()`` numbers, the group's first state, the sum of the differences from it and that of
    their squares, and the number of states in it, one a chain.
    """

    shift: Tensor
    sum: Tensor
    sum_of_squares: Tensor
    sum_at_batch: Tensor
    batch_squares: Tensor
    open_group: Tensor | None
    batch: int

    def tensors(self) -> list[Tensor]:
        """Return all tensors."""
        return [t for t in self[:6] if t is not None]


Function = TypeVar("Function", bound=Callable[..., Any])
Moments = tuple[Tensor, Tensor, Tensor] | BatchMoments
"""``(shift, sum, sum_of_squares)``, or with what error bars need."""

library = torch.library.Library("pushforward", "DEF")
threads = torch.get_num_threads
_transforms_active = torch._C._are_functorch_transforms_active
_modes_active = torch._C._len_torch_dispatch_stack
_increment_versions = torch._C._increment_version
is_compiling = torch.compiler.is_compiling
DEVICES = ("cpu", "cuda") if _native.cuda_architectures else ("cpu",)
"""Types of the devices that this build has ops for."""

_REALS = (torch.float32, torch.float64)
GROUP = 16
"""Steps of a group of streaming sums, ``kStepGroup`` in ``csrc/core/view.hpp``."""
HALVES = (torch.bfloat16, torch.float16)
"""Types that elementwise ops store; they compute with them in float32."""


def implement(op: str) -> Callable[[Function], Function]:
    """Return the decorator that registers a function as an op on each of :data:`DEVICES`."""

    def register(function: Function) -> Function:
        torch.library.impl(f"pushforward::{op}", DEVICES, function, lib=library)
        return function

    return register


def whole(value: Any, name: str, expected: str = "an int") -> int:
    """Return ``value`` as an int; under torch.compile it may be a symbolic one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}") from None


def count(value: Any, name: str, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``."""
    value = whole(value, name)
    if not least <= value < 2**63:
        raise ValueError(f"{name}: expected an int >= {least} and < 2**63, got {value}")
    return value


def check_device(device: torch.device, name: str) -> None:
    """Raise unless this build has ops for ``device`` and torch can reach it."""
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name}: expected the CPU or a CUDA device, got {device}")
    if device.type == "cpu":
        return
    if "cuda" not in DEVICES:
        raise RuntimeError(
            f"{name}: got {device}, but this build of pushforward has no CUDA backend "
            "(it was built with PF_CUDA=OFF or without nvcc)"
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"{name}: got {device}, but torch {torch.__version__} finds no CUDA device here"
        )
    if device.index is None or torch.compiler.is_compiling():  # which cannot ask for the number
        return
    n_devices = torch.cuda.device_count()
    if device.index >= n_devices:
        raise ValueError(
            f"{name}: got {device}, but torch finds {n_devices} CUDA "
            f"{'device' if n_devices == 1 else 'devices'} here"
        )


def is_plain(*values: Any) -> bool:
    """Whether the native module may be called at once: nothing to trace, nothing to differentiate.

    What stands in a tuple, such as streaming sums, is asked for no gradient. What is neither a
    tensor nor an array of another library counts as plain: the native check names it.
    """
    if is_compiling() or _transforms_active() or forward_ad._current_level >= 0:
        return False
    if _modes_active() > 0:  # which want to see the op
        return False
    return _native.are_plain(values) or all(_may_be_passed(value) for value in values)


def _may_be_passed(value: Any) -> bool:
    if isinstance(value, tuple):
        return not any(is_array(part) for part in value)
    if isinstance(value, Tensor):
        known = type(value) is Tensor or type(value) is Parameter
        return known and not (value.requires_grad and torch.is_grad_enabled())
    return not is_array(value)


def coefficient(value: Tensor | float, x: Tensor, name: str) -> Tensor:
    """Return a coefficient as the tensor that the registered ops take."""
    if isinstance(value, Tensor):
        if value.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: expected a value without gradient; it is not differentiable")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    if not isinstance(x, Tensor):  # arrays are taken, but not by what torch.compile makes
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    dtype = torch.float32 if x.dtype in HALVES else x.dtype
    return torch.full((), value, dtype=dtype, device=x.device)


def check_tensor(x: Any, name: str) -> None:
    """Raise unless ``x`` is a dense float32 or float64 tensor on a device that has ops."""
    if type(x) is Tensor and x.is_cpu and x.dtype in _REALS and x.layout is torch.strided:
        return  # most, and quickly
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _REALS:
        raise TypeError(f"{name}: expected float32 or float64, got {x.dtype}")
    check_device(x.device, name)
    if x.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got layout {x.layout}")


def check_call(
    x: Any, tensors: dict[str, Any], coefficients: dict[str, Any], **indices: Any
) -> list[Tensor | None]:
    """Check what a registered op is handed, and return its coefficients as tensors.

    Tensors are where ``x`` is, or None; coefficients are such or numbers; indices are ints >= 0.
    The op's schema would refuse in torch's words, or, of different devices, not at all.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    for name, value in {"x": x, **tensors, **coefficients}.items():
        if isinstance(value, Tensor):
            if value.device != x.device:
                raise ValueError(f"{name}: expected a tensor on {x.device}, got {value.device}")
            if value.layout != torch.strided:
                raise ValueError(f"{name}: expected a dense tensor, got layout {value.layout}")
        elif value is not None and name in tensors:
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    for name, value in indices.items():
        if isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected an int where gradients or compilation are in play, got a tensor"
            )
        if is_compiling():  # where a number may not be known yet
            whole(value, name)
        else:
            count(value, name)
    return [None if v is None else coefficient(v, x, name) for name, v in coefficients.items()]


def no_grad_in_place(name: str, *tensors: Any) -> None:
    """Raise ValueError if a gradient is wanted through an op that works in place."""
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors):
        raise ValueError(f"{name}_: expected tensors that do not require grad")


def changed(x: Tensor, *more: Tensor | None, moments: Moments | None = None) -> Tensor:
    """Tell autograd that tensors were written to, as torch's own in-place functions do."""
    written = [t for t in (x, *more) if t is not None]
    if moments is not None:
        written += moments[1:3] if len(moments) == 3 else moments.tensors()[1:]
    _increment_versions(written)
    return x


def refuse_transforms(name: str) -> None:
    """Raise ValueError under a transform of torch.func, through which an op has no derivative."""
    if _transforms_active():
        raise ValueError(f"{name}: expected no transform of torch.func, and one is active")


class _GradientOnce(torch.autograd.Function):
    """``grad * score`` whose own derivative is refused, since that of the score is not known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, score: Tensor, grad: Tensor) -> Tensor:
        return column(grad, score) * score

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "a native log-density can be differentiated once, and a second derivative was asked "
            "for; the torch_log_density of its law can be differentiated again"
        )


def parts_of(moments: Moments | None) -> tuple[Tensor | int | None, ...]:
    """Return streaming sums as the six tensors and the number that stand in a schema."""
    if moments is None:
        return (None, None, None, None, None, None, 0)
    return tuple(moments) if len(moments) == 7 else (*moments, None, None, None, 0)


def moments_of(
    shift: Tensor | None,
    total: Tensor | None,
    squares: Tensor | None,
    at_batch: Tensor | None = None,
    batch_squares: Tensor | None = None,
    open_group: Tensor | None = None,
    batch: int = 0,
) -> Moments | None:
    """Undo :func:`parts_of`."""
    if shift is None or total is None or squares is None:
        if not (shift is total is squares is at_batch is batch_squares is open_group is None):
            raise ValueError("moments: expected all tensors or none of them")
        return None
    if at_batch is None or batch_squares is None:
        if not (at_batch is batch_squares is open_group is None):
            raise ValueError("moments: expected both tensors of batches or none of them")
        return shift, total, squares
    return BatchMoments(shift, total, squares, at_batch, batch_squares, open_group, batch)


def gradient_of(x: Tensor, score: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient in ``x`` of a log-density ``(n_chains,)`` with this ``score`` at ``x``.

    ``grad`` ``(n_chains,)`` is that of the log-density. The second derivative is refused.
    """
    if torch.is_grad_enabled():  # the graph of this gradient is wanted
        return _GradientOnce.apply(x, score, grad)
    return column(grad, score) * score


def a_chain(x: Tensor) -> Tensor:
    """Return memory for one value a chain; what has no chains is left for the check to name."""
    return x.new_empty(x.shape[0] if x.ndim else ())


def like(x: Any) -> Any:
    """Return contiguous memory like ``x``; what is not dense comes back for the check to name."""
    if isinstance(x, Tensor) and x.layout is torch.strided:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return x


def rows(x: Tensor) -> Tensor:
    """Return ``x`` ``(n_chains, *event)`` as ``(n_chains, dim)``, for any number of chains."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


@overload
def column(value: Tensor, x: Tensor) -> Tensor: ...
@overload
def column(value: Tensor | float, x: Tensor) -> Tensor | float: ...
def column(value: Tensor | float, x: Tensor) -> Tensor | float:
    """Shape one value a chain so that it broadcasts over the rows of ``x``; numbers stay."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *[1] * (x.ndim - 1))
    return value
