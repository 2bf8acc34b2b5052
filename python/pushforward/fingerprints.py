# SPDX-License-Identifier: Apache-2.0
"""Stable descriptions of targets and kernels, so that a run is not resumed with other ones."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Mapping, MutableMapping, MutableSequence, MutableSet, Set
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
_DEPTH = 60  # how far into objects that hold objects to look
_LONG = 100  # entries of a list of which a digest says enough
_INTERNAL = {*vars(nn.Module()), "_compiled_call_impl"}  # attributes of every module
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_OURS = {"pushforward", "torch"}
_LIBRARIES = _OURS | {"numpy", "scipy"} | sys.stdlib_module_names
_OF_THE_PROCESS = {"asyncio", "concurrent", "logging", "multiprocessing", "random", "threading"}
_OF_THE_PROCESS |= {"numpy.random", "weakref"}
_CALLED = {"__call__", "conditional", "energy", "forward", "log_density", "log_prob", "sample"}
_CONTAINERS = (MutableMapping, MutableSequence, MutableSet, collections.deque)
_CHANGES = {"[]", "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop"}
_CHANGES |= {"popitem", "popleft", "remove", "setdefault", "update"}


def fingerprint(obj: Any) -> Any:
    """Return a description of a target or a kernel that is equal in every process.

    Floats are written in hexadecimal, tensors as shape, type and SHA-256 of their bytes, modules as
    their settings, parameters and buffers, functions as their name, a digest of their code and what
    they take from outside, and objects as their attributes and the code of their class. What a
    function itself changes, such as a list that it appends to, and what ``log_density``,
    ``forward`` and the like assign to attributes, is taken for a record and does not count.

    Of installed packages the code counts and not what it takes from outside; of the standard
    library, NumPy, SciPy, torch and this package the names alone. Their objects count by what they
    would be pickled from. A Python of another version compiles a function to other code, and so to
    another digest. What cannot be looked into is described by the name of its class. Whether a
    module is in training mode does not count.

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
    return _Description().of(obj)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor, row by row, as bytes; copied only where they have to be."""
    if tensor.numel() == 0 and tensor.layout == torch.strided:
        return memoryview(b"")  # without numbers any strides do, also those that no view has
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return memoryview(dense.reshape(-1).view(torch.uint8).numpy().data)


class _Description:
    """A walk over an object, in one order everywhere; what was met before is called by number."""

    def __init__(self) -> None:
        self._met: dict[Any, tuple[int, Any]] = {}  # the objects too, so that none is made anew
        self._depth = 0

    def of(self, obj: Any) -> Any:
        """Return the description of an object."""
        if isinstance(obj, np.generic):
            obj = obj.item()
        if obj is None or isinstance(obj, (bool, str)):
            return obj
        if isinstance(obj, enum.Enum):
            return [f"{_name(type(obj))}.{obj.name}", self.of(obj.value)]
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
        if isinstance(obj, types.ModuleType):
            return _name(obj)
        if isinstance(obj, Tensor):
            return _tensor(obj)
        if isinstance(obj, np.ndarray):
            return _array(obj)
        if isinstance(obj, tuple):
            return _short([self.of(value) for value in obj])
        if id(obj) in self._met:
            return {"number": self._met[id(obj)][0]}
        if self._depth > _DEPTH:
            return _name(type(obj))
        self._met[id(obj)] = len(self._met), obj
        self._depth += 1
        try:
            return self._of_what_may_hold_others(obj)
        except Exception:  # an attribute that raises when it is read must not stop a run
            return {"class": _name(type(obj))}
        finally:
            self._depth -= 1

    def _of_what_may_hold_others(self, obj: Any) -> Any:
        if isinstance(obj, Mapping):
            pairs = sorted(((_key(k), k) for k in obj), key=lambda pair: pair[0])
            return _short({name: self.of(obj[k]) for name, k in pairs})
        if isinstance(obj, list):
            return _short([self.of(value) for value in obj])
        if isinstance(obj, Set):
            return _short(sorted((_Description().of(value) for value in obj), key=repr))
        if isinstance(obj, type):
            return {"type": _name(obj), **self._code_of_class(obj)}
        if isinstance(obj, nn.Module):
            return self._module(obj)
        obj = _held(obj).get("_torchdynamo_orig_callable", obj)  # what torch.compile was given
        if isinstance(obj, types.FunctionType):
            return self._function(obj)
        if isinstance(obj, types.BuiltinFunctionType):
            of = obj.__self__
            bare = of is None or isinstance(of, (types.ModuleType, type))
            return _name(obj) if bare else {"method": _name(obj), "of": self.of(of)}
        if isinstance(obj, types.MethodType):
            return {"method": self.of(obj.__func__), "of": self.of(obj.__self__)}
        if isinstance(obj, functools.partial):
            return {"partial": self.of((obj.func, obj.args, obj.keywords))}
        return self._object(obj)

    def _object(self, obj: Any) -> Any:
        kind = type(obj)
        described = {"class": _name(kind), **self._code_of_class(kind)}
        if _package(kind) in _OF_THE_PROCESS or kind.__module__.startswith("numpy.random"):
            return described  # a logger, a lock, a generator of random numbers
        if isinstance(obj, NativeTarget):
            _, dim, n, tensors, scalars = obj.native_arguments(torch.float64)
            values = {"dim": dim, "n_components": n, "tensors": tensors, "scalars": scalars}
        elif dataclasses.is_dataclass(obj):
            values = {f.name: getattr(obj, f.name, None) for f in dataclasses.fields(obj)}
        elif _is_foreign(kind) and isinstance(parts := _pickled_from(obj), tuple):
            return {**described, "parts": self.of(parts)}
        else:
            values = _attributes(obj)
        records = _records(kind)
        values = {k: v for k, v in values.items() if k not in records}
        return {**described, **{key: self.of(value) for key, value in values.items()}}

    def _module(self, module: nn.Module) -> Any:
        module = getattr(module, "_orig_mod", module)  # what torch.compile was given
        parts = {path: self._part(part) for path, part in module.named_modules()}
        numbers = {**module.state_dict(), **dict(module.named_buffers())}
        return {
            **parts.pop(""),
            "parts": parts,
            "state": {name: self.of(value) for name, value in numbers.items()},
        }

    def _part(self, part: nn.Module) -> dict[str, Any]:
        described = {"class": _name(type(part)), **self._code_of_class(type(part))}
        left_out = _INTERNAL | _records(type(part))
        for key, value in _attributes(part).items():
            if key not in left_out and not isinstance(value, nn.Module):
                described[key] = self.of(value)
        for key in _HOOKS:
            if hooks := vars(part).get(key):
                described[key] = self.of(list(hooks.values()))
        return described

    def _code_of_class(self, kind: type) -> dict[str, Any]:
        """Describe what a class and those that it is made from say, libraries' apart."""
        described: dict[str, Any] = {}
        for base in kind.__mro__:
            if _package(base) in _LIBRARIES or ("code", id(base)) in self._met:
                continue
            self._met["code", id(base)] = len(self._met), base
            attributes = [(n, _plain(v)) for n, v in sorted(vars(base).items()) if _counts(n, v)]
            if _is_installed(base):
                functions = (v for _, v in attributes if isinstance(v, types.FunctionType))
                described[_name(base)] = _digest([bytecode.digest(f.__code__) for f in functions])
            elif attributes:
                described[_name(base)] = {name: self.of(value) for name, value in attributes}
        return {"code": described} if described else {}

    def _function(self, function: types.FunctionType) -> Any:
        described: dict[str, Any] = {"function": _name(function)}
        code = function.__code__
        taken: dict[str, Any] = {}
        changed = bytecode.changed_names(code)
        cells = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is not yet assigned
                cells[name] = cell.cell_contents
                if not _is_record(cell.cell_contents, changed.get(name, set())):
                    taken[name] = cell.cell_contents
        if _package(function) not in _LIBRARIES:
            described["code"] = bytecode.digest(code)
            if not _is_installed(function):
                for names in sorted(bytecode.outside_names(code)):
                    path, value = _found(names, {**function.__globals__, **cells})
                    if path is not None and not _is_record(value, changed.get(path, set())):
                        taken[path] = value
        for key, value in (
            ("uses", taken),
            ("defaults", function.__defaults__),
            ("keywords", function.__kwdefaults__),
        ):
            if value:
                described[key] = self.of(value)
        return described


def _found(names: tuple[str, ...], around: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Return what a function finds under a name, and past a module under its attribute."""
    if names[0] not in around:
        return None, None
    path, value = names[0], around[names[0]]
    for name in names[1:]:
        if not isinstance(value, types.ModuleType):
            break
        if value.__name__.partition(".")[0] in _LIBRARIES or not hasattr(value, name):
            return None, None
        path, value = f"{path}.{name}", getattr(value, name)
    return (None, None) if isinstance(value, types.ModuleType) else (path, value)


def _is_record(value: Any, ways: set[str]) -> bool:
    """Whether a function that changes a value in these ways makes a record of it."""
    if "=" in ways:
        return True
    if isinstance(value, _CONTAINERS):
        return bool(ways & _CHANGES)
    in_place = {w for w in ways if w == "[]" or (w.endswith("_") and not w.startswith("_"))}
    return isinstance(value, (Tensor, np.ndarray)) and bool(in_place)


def _records(kind: type) -> set[str]:
    """Return the attributes that the functions which a run calls assign."""
    functions = (inspect.getattr_static(kind, name, None) for name in sorted(_CALLED))
    return {
        name
        for f in functions
        if isinstance(f, types.FunctionType) and _package(f) not in _LIBRARIES
        for name in bytecode.assigned_attributes(f.__code__)
    }


def _held(obj: Any) -> dict[str, Any]:
    held = getattr(obj, "__dict__", None)
    return {**held} if isinstance(held, dict) else {}


def _attributes(obj: Any) -> dict[str, Any]:
    """The attributes of an object, without those that were computed from the others when asked."""
    held = _held(obj)
    for base in type(obj).__mro__:
        slots = () if _package(base) in _LIBRARIES else vars(base).get("__slots__", ())
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


def _pickled_from(obj: Any) -> Any:
    """Return what an object would be pickled from, or None where it cannot be."""
    try:
        parts = obj.__reduce_ex__(4)
    except Exception:  # of any class
        return None
    if not isinstance(parts, tuple):
        return None
    return tuple(list(p) if hasattr(p, "__next__") else p for p in parts)


def _is_inverse(transform: Transform) -> bool:
    """Whether a transform is nothing but another one's inverse; others make theirs when asked."""
    return type(transform).__name__ == "_InverseTransform"


def _counts(name: str, value: Any) -> bool:
    """Whether an attribute of a class says what it does."""
    if name.startswith("_abc_") or isinstance(value, types.MemberDescriptorType):
        return False
    return isinstance(_plain(value), (types.FunctionType, list)) or not name.startswith("__")


def _plain(attribute: Any) -> Any:
    """Return the functions that an attribute of a class stands for, or the attribute itself."""
    if isinstance(attribute, (staticmethod, classmethod)):
        return attribute.__func__
    if isinstance(attribute, property):
        return [attribute.fget, attribute.fset]
    if isinstance(attribute, _COMPUTED):
        return getattr(attribute, "func", None) or getattr(attribute, "wrapped", None)
    if isinstance(attribute, functools.partialmethod):
        return [attribute.func, attribute.args, attribute.keywords]
    return getattr(attribute, "__wrapped__", attribute)


def _is_foreign(kind: type) -> bool:
    """Whether a class is somebody else's, who says himself what makes an object."""
    package = _package(kind)
    if package in _OURS or kind is types.SimpleNamespace:
        return False
    return package in _LIBRARIES or _is_installed(kind)


def _package(thing: Any) -> str:
    """Return the package that a function or class is from."""
    return str(thing.__module__).partition(".")[0]


def _is_installed(thing: Any) -> bool:
    """Whether a function or class is from an installed package, which has records of its own."""
    module = sys.modules.get(str(thing.__module__))
    code = getattr(thing, "__code__", None)
    file = code.co_filename if code is not None else getattr(module, "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _short(description: Any) -> Any:
    """Return a long list or dict as its length and a digest."""
    if len(description) <= _LONG:
        return description
    return {"length": len(description), "sha256": _digest(description)}


def _digest(description: Any) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr(_Description().of(key))


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


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(name, str):
        return _name(type(thing))
    return f"{module}.{name}" if isinstance(module, str) else name
