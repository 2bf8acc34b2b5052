# SPDX-License-Identifier: Apache-2.0
"""Stable descriptions of targets and kernels, so that a run is not resumed with other ones."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import types
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform
from torch.distributions.utils import lazy_property

from pushforward.targets import NativeTarget

__all__ = ["fingerprint", "tensor_bytes"]

_COMPUTED = (lazy_property, functools.cached_property)
_DEPTH = 12  # how far into objects that hold objects to look
_MUTABLE = (list, dict, set)


def fingerprint(obj: Any) -> Any:
    """Return a description of a target or a kernel that is equal in every process.

    Floats are written in hexadecimal, tensors as shape, type and SHA-256 of their bytes, modules as
    their class, their settings and ``state_dict``, functions as their name, a digest of their code
    and what they take from outside: numbers, tensors, functions and objects, but no lists, dicts
    and sets, which are taken for records. A Python of another version compiles a function to other
    code, and so to another digest. What cannot be looked into, such as an object of a class written
    in C, is described by the name of its class alone. Whether a module is in training mode does not
    count.

    Args:
        obj: anything.

    Returns:
        A value that JSON can hold.

    Example:
        >>> import pushforward as pf
        >>> from pushforward.fingerprints import fingerprint
        >>> fingerprint(pf.Langevin(0.5))
        {'class': 'pushforward.mcmc.langevin.Langevin', 'step_size': '0x1.0000000000000p-1', \
'beta': '0x1.0000000000000p+0'}

    """
    return _describe(obj, ())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor, row by row, as bytes; copied only where they have to be."""
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return memoryview(dense.reshape(-1).view(torch.uint8).numpy().data)


def _describe(obj: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(obj, np.generic):
        obj = obj.item()
    if obj is None or isinstance(obj, (bool, str)):
        return obj
    if isinstance(obj, enum.Enum):
        return f"{_name(type(obj))}.{obj.name}"
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        return obj.hex()
    if isinstance(obj, complex):
        return [obj.real.hex(), obj.imag.hex()]
    if isinstance(obj, (bytes, bytearray)):
        return {"bytes": hashlib.sha256(obj).hexdigest()}
    if isinstance(obj, (torch.dtype, torch.device, torch.Size, range)):
        return str(obj)
    if isinstance(obj, (type, types.BuiltinFunctionType, types.ModuleType)):
        return _name(obj)
    if id(obj) in inside or len(inside) > _DEPTH:
        return _name(type(obj))  # a recursive function, an object that holds its parent
    inside = (*inside, id(obj))
    if isinstance(obj, Tensor):
        return _tensor(obj)
    if isinstance(obj, np.ndarray):
        return _array(obj)
    if isinstance(obj, Mapping):
        pairs = [[_key(k), _describe(v, inside)] for k, v in obj.items()]
        return dict(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(obj, (list, tuple)):
        return [_describe(value, inside) for value in obj]
    if isinstance(obj, Set):
        return sorted((_describe(value, inside) for value in obj), key=repr)
    try:
        return _describe_object(obj, inside)
    except Exception:  # an attribute that raises when it is read must not stop a run
        return {"class": _name(type(obj))}


def _describe_object(obj: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(obj, nn.Module):
        return _module(obj, inside)
    obj = _attributes(obj).get("_torchdynamo_orig_callable", obj)  # what torch.compile was given
    if isinstance(obj, types.FunctionType):
        return _function(obj, inside)
    if isinstance(obj, types.MethodType):
        return {"method": _function(obj.__func__, inside), "of": _describe(obj.__self__, inside)}
    if isinstance(obj, functools.partial):
        return {"partial": _describe((obj.func, obj.args, obj.keywords), inside)}
    name = {"class": _name(type(obj))}
    if isinstance(obj, NativeTarget):
        _, dim, n_components, tensors, scalars = obj.native_arguments(torch.float64)
        values = {"dim": dim, "n_components": n_components, "tensors": tensors, "scalars": scalars}
    elif dataclasses.is_dataclass(obj):
        values = {f.name: getattr(obj, f.name, None) for f in dataclasses.fields(obj)}
    else:
        values = _attributes(obj)
    return {**name, **{key: _describe(value, inside) for key, value in values.items()}}


def _attributes(obj: Any) -> dict[str, Any]:
    """The attributes of an object, without those that were computed from the others when asked."""
    held = getattr(obj, "__dict__", None)
    return {
        name: value
        for name, value in sorted(held.items() if isinstance(held, dict) else ())
        if not isinstance(inspect.getattr_static(type(obj), name, None), _COMPUTED)
        and not name.startswith("_cache")
        and not (name == "_inv" and isinstance(obj, Transform) and not _is_inverse(obj))
    }


def _is_inverse(transform: Transform) -> bool:
    """Whether a transform is nothing but another one's inverse; others make theirs when asked."""
    return type(transform).__name__ == "_InverseTransform"


def _module(module: nn.Module, inside: tuple[int, ...]) -> Any:
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    classes = {
        path: {
            "class": _name(type(part)),
            **{
                key: _describe(value, inside)
                for key, value in sorted(vars(part).items())
                if not key.startswith("_")
                and key != "training"
                and not isinstance(value, nn.Module)
            },
        }
        for path, part in module.named_modules()
    }
    own = sorted({type(part) for part in module.modules()}, key=_name)
    return {
        **classes.pop(""),
        "code": {
            _name(kind): _function(kind.forward, inside)
            for kind in own
            if isinstance(kind.forward, types.FunctionType) and not _of_a_library(kind)
        },
        "parts": classes,
        "state": {name: _describe(value, inside) for name, value in module.state_dict().items()},
    }


def _function(function: Any, inside: tuple[int, ...]) -> Any:
    if not isinstance(function, types.FunctionType):
        return _name(function)
    code = function.__code__
    taken: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell that is not yet assigned
            if not isinstance(cell.cell_contents, _MUTABLE):  # a counter or a log, like as not
                taken[name] = cell.cell_contents
    described: dict[str, Any] = {"function": _name(function)}
    if not _of_a_library(function):
        described["code"] = hashlib.sha256(repr(_code(code)).encode()).hexdigest()
        for name in _global_names(code):
            value = function.__globals__.get(name)
            if isinstance(value, (int, float, complex, Tensor, np.ndarray, np.generic)):
                taken.setdefault(name, value)
    for key, value in (
        ("uses", taken),
        ("defaults", function.__defaults__),
        ("keywords", function.__kwdefaults__),
    ):
        if value:
            described[key] = _describe(value, inside)
    return described


def _of_a_library(thing: Any) -> bool:
    """Whether a function or class is torch's or ours: their code may change, its meaning not."""
    return str(thing.__module__).partition(".")[0] in ("torch", "pushforward")


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, without where it is written."""
    return (
        code.co_code.hex(),
        tuple(_constant(c) for c in code.co_consts),
        code.co_names,
        code.co_freevars,
        getattr(code, "co_exceptiontable", b"").hex(),
    )


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return tuple(_constant(v) for v in value)
    if isinstance(value, frozenset):  # its order depends on the process
        return ("set", *sorted((_constant(v) for v in value), key=repr))
    return repr(value)


def _global_names(code: types.CodeType) -> set[str]:
    nested = (_global_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*nested)


def _tensor(tensor: Tensor) -> dict[str, Any]:
    found = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    try:
        return {**found, "sha256": hashlib.sha256(tensor_bytes(tensor)).hexdigest()}
    except (RuntimeError, TypeError, NotImplementedError, ValueError):
        return found  # sparse, quantised, or without memory


def _array(array: np.ndarray) -> dict[str, Any]:
    found = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.hasobject:
        return found
    return {**found, "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr(_describe(key, ()))


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(name, str):
        return _name(type(thing))
    return f"{module}.{name}" if isinstance(module, str) else name
