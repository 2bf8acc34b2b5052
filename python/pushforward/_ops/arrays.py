# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries as arguments of the ops, through DLPack, without a copy."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["holds_array", "is_array", "like_array", "takes_arrays", "tensor_of"]

_PLAIN = (Tensor, int, float, bool, str, type(None))

Op = TypeVar("Op", bound=Callable[..., Any])


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array of another library that can be read through DLPack."""
    return (
        not isinstance(value, (Tensor, np.generic, type))
        and hasattr(value, "__dlpack__")
        and hasattr(value, "__dlpack_device__")
    )


def _is_writable(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.flags.writeable
    return not type(value).__module__.startswith("jax")  # JAX's arrays never change


def tensor_of(value: Any, name: str, *, written: bool = False) -> Tensor:
    """Return the memory of an array as a tensor.

    Raises:
        TypeError: the array's type or memory cannot be shared.
        ValueError: it is to be written and cannot be.

    """
    if written and not _is_writable(value):
        raise ValueError(
            f"{name}: expected an array that can be written to, got a {type(value).__name__} that "
            "cannot"
        )
    strides = getattr(value, "strides", None)
    backwards = isinstance(strides, tuple) and any(stride < 0 for stride in strides)
    if written and backwards:
        raise ValueError(
            f"{name}: expected an array to write to that runs forwards, got negative strides"
        )
    try:
        # Torch knows no read-only memory and no negative strides; its reader aborts at the latter.
        if backwards or (isinstance(value, np.ndarray) and not value.flags.writeable):
            value = value.copy()
        return torch.utils.dlpack.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array that torch can read through DLPack, got "
            f"{type(value).__name__}: {error}"
        ) from error


def like_array(value: Any, name: str) -> Callable[[Tensor], Any]:
    """Return what makes of a tensor an array of the library that ``value`` belongs to.

    That is NumPy's own way, the ``from_dlpack`` of the array API standard, or the one of the
    package that the type comes from: CuPy has the standard's method only since version 14.

    Raises:
        TypeError: the library has no ``from_dlpack``.

    """
    if isinstance(value, np.ndarray):
        return Tensor.numpy  # NumPy's from_dlpack gives read-only memory before 2.1
    kind = type(value)
    find = getattr(value, "__array_namespace__", None)
    library = find() if find is not None else sys.modules.get(kind.__module__.split(".")[0])
    make = getattr(library, "from_dlpack", None)
    if make is None:
        raise TypeError(
            f"{name}: expected an array whose library has from_dlpack, got a "
            f"{kind.__module__}.{kind.__qualname__}"
        )
    return make


def _returned(result: Any, make: Callable[[Tensor], Any]) -> Any:
    if isinstance(result, tuple):
        return tuple(_returned(part, make) for part in result)
    return make(result)


def _hand_back(tensors: Iterable[Tensor]) -> None:
    """Let what the arrays' libraries queue next come after what torch has queued here.

    They work in the default stream of a GPU, and torch perhaps in another.
    """
    for device in {t.device for t in tensors if t.device.type == "cuda"}:
        with torch.cuda.device(device):
            ours, theirs = torch.cuda.current_stream(), torch.cuda.default_stream()
            # A graph being captured may hold no other stream.
            if ours != theirs and not torch.cuda.is_current_stream_capturing():
                theirs.wait_stream(ours)


@functools.cache
def takes_arrays(op: Op, *written: str) -> Op:
    """Let an op take arrays for tensors, and return what its first argument is.

    The array's memory is shared both ways. An op in place returns the array that it was given;
    ``written`` names the other arguments that it changes.

    On a GPU the op waits, as DLPack has it, for the stream in which the array's library works. What
    the library does next waits for the op if it works in the default stream, as CuPy does unless it
    is told otherwise. Who works in another one, as JAX does, must synchronise before the memory is
    used again: with torch's current stream, or with the device. Nothing here waits on the host.
    """
    in_place = op.__name__.endswith("_")
    signature = inspect.signature(op)
    first = next(iter(signature.parameters))

    def with_tensors(x: Any, args: Any, kwargs: Any) -> Any:
        call = signature.bind(x, *args, **kwargs)
        shared = []

        def shared_tensor(value: Any, name: str, written: bool) -> Tensor:
            shared.append(tensor_of(value, name, written=written))
            return shared[-1]

        for name, value in call.arguments.items():
            if is_array(value):
                changes = name in ("out", *written) or (in_place and value is x)
                call.arguments[name] = shared_tensor(value, name, changes)
            elif name == "moments" and isinstance(value, tuple):
                call.arguments[name] = tuple(
                    shared_tensor(v, name, i > 0) if is_array(v) else v for i, v in enumerate(value)
                )
        result = op(*call.args, **call.kwargs)
        _hand_back(shared)
        return result

    @functools.wraps(op)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_array(x):
            result = with_tensors(x, args, kwargs)
            return kwargs["out"] if is_array(kwargs.get("out")) else result
        to = kwargs.get("out")
        if in_place or to is not None:
            with_tensors(x, args, kwargs)
            return x if to is None else to
        make = like_array(x, first)
        return _returned(with_tensors(x, args, kwargs), make)

    return wrapper  # type: ignore[return-value]


def holds_array(arguments: dict[str, Any]) -> bool:
    """Whether a call's arguments, by their names, have an array among them."""
    for name, value in arguments.items():
        if type(value) in _PLAIN:  # most, and quickly
            continue
        if is_array(value):
            return True
        if name == "moments" and isinstance(value, tuple) and any(is_array(v) for v in value):
            return True
    return False
