# SPDX-License-Identifier: Apache-2.0
"""What the compiled code of a function says of it: a digest, and the names that it reads."""

from __future__ import annotations

import dis
import hashlib
import types
from typing import Any

__all__ = ["changed_names", "digest", "outside_names"]

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_STORES = ("STORE_GLOBAL", "STORE_NAME", "STORE_DEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_ITEMS = ("STORE_SUBSCR", "DELETE_SUBSCR", "COPY", "DUP_TOP_TWO")  # the last two for ``a[i] += 1``
_OF_LISTS = {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault"}
_OF_LISTS |= {"update", "appendleft", "popleft"}
_CHANGES = _OF_LISTS | {"add", "discard"}  # which tensors have too


def digest(code: types.CodeType) -> str:
    """Return a digest of what a function does, without where it is written."""
    return hashlib.sha256(repr(_parts(code)).encode()).hexdigest()


def outside_names(code: types.CodeType) -> set[str]:
    """Return the names that a function and those inside it read from outside themselves."""
    loaded = {i.argval for i in dis.get_instructions(code) if i.opname in _LOADS}
    inner = (outside_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return loaded.union(*inner) - set(code.co_cellvars)


def changed_names(code: types.CodeType) -> set[str]:
    """Return the names that a function assigns to, or to whose list, dict or set it writes.

    What it writes through another name, or in a function that it calls, is not seen.
    """
    instructions = list(dis.get_instructions(code))
    changed = {i.argval for i in instructions if i.opname in _STORES}
    changed |= {
        name.argval
        for at, name in enumerate(instructions)
        if name.opname in _LOADS and _is_written(instructions[at + 1 :])
    }
    inner = (changed_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return changed.union(*inner) - set(code.co_cellvars)


def _is_written(following: list[dis.Instruction]) -> bool:
    """Whether the value that lies on the stack is written to by the instructions that follow."""
    depth, methods = 1, _CHANGES
    for instruction in following:
        if depth == 1 and instruction.opname in _ATTRIBUTES:
            return instruction.argval in methods
        if depth == 2 and instruction.opname in _ITEMS:
            return True
        if depth == 2 and instruction.opname in ("BINARY_SUBSCR", "BINARY_OP"):
            methods = _OF_LISTS  # what was in it, which may be a tensor
        depth += dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
        if depth < 1 or instruction.opname.startswith("STORE_FAST"):
            return False
    return False


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
