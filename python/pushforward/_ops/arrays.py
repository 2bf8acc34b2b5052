# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries as arguments of the ops, through DLPack, without a copy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["array_namespace", "is_array", "takes_arrays", "tensor_of"]

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
    try:
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            value = value.copy()  # torch knows no read-only memory
        return torch.utils.dlpack.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array that torch can read through DLPack, got "
            f"{type(value).__name__}: {error}"
        ) from error


def array_namespace(value: Any) -> Any:
    """Return the library that ``value`` belongs to, as the array API standard names it."""
    find = getattr(value, "__array_namespace__", None)
    return find() if find is not None else np  # NumPy before 2.0 has no such method


def _returned(result: Any, namespace: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_returned(part, namespace) for part in result)
    if namespace.__name__ == "numpy":  # its own from_dlpack gives read-only memory before 2.1
        return result.numpy()
    return namespace.from_dlpack(result)


def takes_arrays(op: Op, *written: str) -> Op:
    """Let an op take arrays for tensors, and return what its first argument is.

    The array's memory is shared both ways. An op in place returns the array that it was given;
    ``written`` names the other arguments that it changes.
    """
    in_place = op.__name__.endswith("_")
    signature = inspect.signature(op)

    def with_tensors(x: Any, args: Any, kwargs: Any) -> Any:
        call = signature.bind(x, *args, **kwargs)
        for name, value in call.arguments.items():
            if is_array(value):
                changes = name in ("out", *written) or (in_place and value is x)
                call.arguments[name] = tensor_of(value, name, written=changes)
            elif name == "moments" and isinstance(value, tuple):
                call.arguments[name] = tuple(
                    tensor_of(v, name, written=i > 0) if is_array(v) else v
                    for i, v in enumerate(value)
                )
        return op(*call.args, **call.kwargs)

    @functools.wraps(op)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_array(x):
            if not any(_holds_array(value) for value in (*args, *kwargs.values())):
                return op(x, *args, **kwargs)
            result = with_tensors(x, args, kwargs)
            return kwargs["out"] if is_array(kwargs.get("out")) else result
        result = with_tensors(x, args, kwargs)
        if in_place:
            return x
        return (
            kwargs["out"]
            if kwargs.get("out") is not None
            else _returned(result, array_namespace(x))
        )

    return wrapper  # type: ignore[return-value]


def _holds_array(value: Any) -> bool:
    if type(value) in _PLAIN:  # most, and quickly
        return False
    return is_array(value) or (isinstance(value, tuple) and any(is_array(v) for v in value))
