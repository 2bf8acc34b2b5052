# SPDX-License-Identifier: Apache-2.0
"""Stable descriptions of targets and kernels, so that a run is not resumed with other ones."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform
from torch.distributions.utils import lazy_property

from pushforward import bytecode
from pushforward.targets import NativeTarget

__all__ = ["fingerprint", "tensor_bytes"]

_COMPUTED = (lazy_property, functools.cached_property)
_DEPTH = 12  # how far into objects that hold objects to look
_OF_A_CLASS = (bool, int, float, complex, str, bytes, tuple, Tensor, np.ndarray, np.generic)
_INTERNAL = {*vars(nn.Module()), "_compiled_call_impl"}  # attributes of every module
_LIBRARIES = {"pushforward", "torch", "numpy", "scipy"} | sys.stdlib_module_names
_OF_THE_PROCESS = {"asyncio", "concurrent", "logging", "multiprocessing", "threading", "weakref"}


@dataclasses.dataclass(frozen=True)
class _Within:
    """What is being described: the objects that hold the present one, and all code so far."""

    path: tuple[int, ...] = ()
    code: set[int] = dataclasses.field(default_factory=set)

    def inside(self, obj: Any) -> _Within:
        """Return what a part of ``obj`` lies in."""
        return _Within((*self.path, id(obj)), self.code)

    def is_new(self, code: type | types.CodeType) -> bool:
        """Whether some code was not described yet; from now on it was."""
        was = id(code) in self.code
        self.code.add(id(code))
        return not was


def fingerprint(obj: Any) -> Any:
    """Return a description of a target or a kernel that is equal in every process.

    Floats are written in hexadecimal, tensors as shape, type and SHA-256 of their bytes, modules as
    their settings, parameters and buffers, functions as their name, a digest of their code and what
    they take from outside, and objects as their attributes; of classes the functions count, and
    attributes that are numbers, strings, tuples or tensors. What a function takes from outside and
    changes, such as a list that it appends to, is taken for a record, and does not count.

    Of installed packages the code counts and not what it takes from outside; of the standard
    library, NumPy, SciPy, torch and this package the names alone. A Python of another version
    compiles a function to other code, and so to another digest. What cannot be looked into, such as
    an object of a class written in C, is described by the name of its class. Whether a module is in
    training mode does not count.

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
    return _describe(obj, _Within())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor, row by row, as bytes; copied only where they have to be."""
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return memoryview(dense.reshape(-1).view(torch.uint8).numpy().data)


def _describe(obj: Any, within: _Within) -> Any:
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
    if isinstance(obj, (types.BuiltinFunctionType, types.ModuleType)):
        return _name(obj)
    if id(obj) in within.path or len(within.path) > _DEPTH:
        return _name(type(obj))  # a recursive function, an object that holds its parent
    within = within.inside(obj)
    if isinstance(obj, Tensor):
        return _tensor(obj)
    if isinstance(obj, np.ndarray):
        return _array(obj)
    if isinstance(obj, Mapping):
        pairs = [[_key(k), _describe(v, within)] for k, v in obj.items()]
        return dict(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(obj, (list, tuple)):
        return [_describe(value, within) for value in obj]
    if isinstance(obj, Set):
        return sorted((_describe(value, within) for value in obj), key=repr)
    try:
        return _describe_object(obj, within)
    except Exception:  # an attribute that raises when it is read must not stop a run
        return {"class": _name(type(obj))}


def _describe_object(obj: Any, within: _Within) -> Any:
    if isinstance(obj, type):
        return {"type": _name(obj), **_code_of_class(obj, within)}
    if isinstance(obj, nn.Module):
        return _module(obj, within)
    obj = _attributes(obj).get("_torchdynamo_orig_callable", obj)  # what torch.compile was given
    if isinstance(obj, types.FunctionType):
        return _function(obj, within)
    if isinstance(obj, types.MethodType):
        return {"method": _function(obj.__func__, within), "of": _describe(obj.__self__, within)}
    if isinstance(obj, functools.partial):
        return {"partial": _describe((obj.func, obj.args, obj.keywords), within)}
    name = {"class": _name(type(obj)), **_code_of_class(type(obj), within)}
    if _package(type(obj)) in _OF_THE_PROCESS:
        return name  # a logger, a lock
    if isinstance(obj, NativeTarget):
        _, dim, n_components, tensors, scalars = obj.native_arguments(torch.float64)
        values = {"dim": dim, "n_components": n_components, "tensors": tensors, "scalars": scalars}
    elif dataclasses.is_dataclass(obj):
        values = {f.name: getattr(obj, f.name, None) for f in dataclasses.fields(obj)}
    else:
        values = _attributes(obj)
    return {**name, **{key: _describe(value, within) for key, value in values.items()}}


def _attributes(obj: Any) -> dict[str, Any]:
    """The attributes of an object, without those that were computed from the others when asked."""
    held = getattr(obj, "__dict__", None)
    held = {**held} if isinstance(held, dict) else {}
    for base in type(obj).__mro__:
        if _package(base) in _LIBRARIES:  # a path's slots, say, are filled as it is used
            continue
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):  # one that was not assigned
                held.setdefault(name, getattr(obj, name))
    return {
        name: value
        for name, value in sorted(held.items())
        if not isinstance(inspect.getattr_static(type(obj), name, None), _COMPUTED)
        and not name.startswith("_cache")
        and not (name == "_inv" and isinstance(obj, Transform) and not _is_inverse(obj))
    }


def _is_inverse(transform: Transform) -> bool:
    """Whether a transform is nothing but another one's inverse; others make theirs when asked."""
    return type(transform).__name__ == "_InverseTransform"


def _module(module: nn.Module, within: _Within) -> Any:
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    parts = {
        path: {
            "class": _name(type(part)),
            **_code_of_class(type(part), within),
            **{
                key: _describe(value, within)
                for key, value in _attributes(part).items()
                if key not in _INTERNAL and not isinstance(value, nn.Module)
            },
        }
        for path, part in module.named_modules()
    }
    numbers = {**module.state_dict(), **dict(module.named_buffers())}
    return {
        **parts.pop(""),
        "parts": parts,
        "state": {name: _describe(value, within) for name, value in numbers.items()},
    }


def _code_of_class(kind: type, within: _Within) -> dict[str, Any]:
    """Describe what a class and those that it is made from say, libraries' apart."""
    described: dict[str, Any] = {}
    for base in kind.__mro__:
        if _package(base) in _LIBRARIES or not within.is_new(base):
            continue
        said: dict[str, Any] = {}
        for name, value in sorted(vars(base).items()):
            said |= {name + part: _function(f, within) for part, f in _functions(value).items()}
            if isinstance(value, _OF_A_CLASS) and not name.startswith("__"):
                said[name] = _describe(value, within)
        if said:
            described[_name(base)] = said
    return {"code": described} if described else {}


def _functions(attribute: Any) -> dict[str, types.FunctionType]:
    """Return the functions that an attribute of a class stands for."""
    if isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    parts = {"": attribute}
    if isinstance(attribute, property):
        parts = {".get": attribute.fget, ".set": attribute.fset}
    elif isinstance(attribute, _COMPUTED):
        parts = {".get": getattr(attribute, "func", None) or getattr(attribute, "wrapped", None)}
    return {name: part for name, part in parts.items() if isinstance(part, types.FunctionType)}


def _function(function: Any, within: _Within) -> Any:
    if not isinstance(function, types.FunctionType):
        return _name(function)
    code, package = function.__code__, _package(function)
    changed = bytecode.changed_names(code)
    taken: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell that is not yet assigned
            if name not in changed:  # a counter or a log
                taken[name] = cell.cell_contents
    described: dict[str, Any] = {"function": _name(function)}
    if package not in _LIBRARIES and within.is_new(code):
        described["code"] = bytecode.digest(code)
        if not _is_installed(function):
            for name in bytecode.outside_names(code) - changed - taken.keys():
                if name in function.__globals__:
                    taken[name] = function.__globals__[name]
    for key, value in (
        ("uses", taken),
        ("defaults", function.__defaults__),
        ("keywords", function.__kwdefaults__),
    ):
        if value:
            described[key] = _describe(value, within)
    return described


def _package(thing: Any) -> str:
    """Return the package that a function or class is from."""
    return str(thing.__module__).partition(".")[0]


def _is_installed(function: types.FunctionType) -> bool:
    """Whether a function is from an installed package, which has records of its own."""
    file = function.__code__.co_filename
    return "site-packages" in file or "dist-packages" in file


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
    return key if isinstance(key, str) else repr(_describe(key, _Within()))


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(name, str):
        return _name(type(thing))
    return f"{module}.{name}" if isinstance(module, str) else name
