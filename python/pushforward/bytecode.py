# SPDX-License-Identifier: Apache-2.0
"""What the compiled code of a function says of it: a digest, and the names that it uses."""

from __future__ import annotations

import dis
import hashlib
import types
from typing import Any

__all__ = ["assigned_attributes", "changed_names", "digest", "outside_names"]

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_STORES = ("STORE_GLOBAL", "STORE_NAME", "STORE_DEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")


def digest(code: types.CodeType) -> str:
    """Return a digest of what a function does, without where it is written."""
    return hashlib.sha256(repr(_parts(code)).encode()).hexdigest()


def outside_names(code: types.CodeType) -> set[tuple[str, ...]]:
    """Return what a function and those inside it read from outside themselves.

    Each is a name with the attributes that are asked of it, as in ``("torch", "special", "erf")``.
    """
    found = set()
    instructions = list(dis.get_instructions(code))
    for at, instruction in enumerate(instructions):
        if instruction.opname in _LOADS:
            names = [instruction.argval]
            for following in instructions[at + 1 :]:
                if following.opname not in _ATTRIBUTES:
                    break
                names.append(following.argval)
            found.add(tuple(names))
    inner = (outside_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return {n for n in found.union(*inner) if n[0] not in code.co_cellvars}


def changed_names(code: types.CodeType) -> dict[str, set[str]]:
    """Return how a function changes what it takes from outside: name -> ways.

    The ways are ``"="``, an assignment to the name, ``"[]"``, one to an item of it, and the names
    of methods that are called on it or on an item of it. What a function changes through another
    name, or in a function that it calls, is not seen.
    """
    changed: dict[str, set[str]] = {}
    instructions = list(dis.get_instructions(code))
    for at, instruction in enumerate(instructions):
        if instruction.opname in _STORES:
            changed.setdefault(instruction.argval, set()).add("=")
        elif instruction.opname in _LOADS:
            way = _way(instructions[at + 1 :])
            changed.setdefault(instruction.argval, set()).update([way] if way else [])
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for name, ways in changed_names(inner).items():
                changed.setdefault(name, set()).update(ways)
    return {n: ways for n, ways in changed.items() if ways and n not in code.co_cellvars}


def assigned_attributes(code: types.CodeType) -> set[str]:
    """Return the names of the attributes that a function assigns, of whatever object."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}
    inner = (assigned_attributes(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return found.union(*inner)


def _way(following: list[dis.Instruction]) -> str | None:
    """Return how the value that lies on the stack is used by the instructions that follow."""
    depth = 1
    for at, instruction in enumerate(following):
        if depth == 1 and instruction.opname in _ATTRIBUTES:
            return str(instruction.argval)
        if depth == 2 and instruction.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            return "[]"
        if depth == 2 and _is_doubled(following[at : at + 2]):
            return "[]"
        depth += dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
        if depth < 1 or instruction.opname.startswith("STORE_FAST"):
            return None
    return None


def _is_doubled(pair: list[dis.Instruction]) -> bool:
    """Whether a container and an index are copied, as for ``a[i] += 1``."""
    if pair[0].opname == "DUP_TOP_TWO":
        return True
    return len(pair) == 2 and all(i.opname == "COPY" and i.arg == 2 for i in pair)


def _parts(code: types.CodeType) -> tuple[Any, ...]:
    return (
        code.co_code.hex(),
        tuple(_constant(c) for c in code.co_consts),
        code.co_names,
        code.co_freevars,
        getattr(code, "co_exceptiontable", b"").hex(),
    )


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _parts(value)
    if isinstance(value, tuple):
        return tuple(_constant(v) for v in value)
    if isinstance(value, frozenset):  # its order depends on the process
        return ("set", *sorted((_constant(v) for v in value), key=repr))
    return repr(value)
