# SPDX-License-Identifier: Apache-2.0
"""Finds floating-point instructions in PTX that are not correctly rounded, or might not stay so.

The promise of equal bits needs each operation to round once and to nearest: no approximations, no
flushing of subnormals, and no multiplication or addition without .rn, because ptxas may fuse those.
"""

import re
from typing import NamedTuple

from ptx.ptx import Module

_FLOAT = re.compile(r"b?f(?:16|32|64|128)(?:x2)?|tf32|e\dm\d(?:x2)?")
_ROUNDED = {"add", "sub", "mul", "fma", "mad", "div", "sqrt", "rcp"}
_EXACT = {"abs", "neg", "min", "max", "copysign", "mov", "ld", "ldu", "st", "selp", "setp", "testp"}
_TO_INTEGER = {"rni", "rzi", "rmi", "rpi"}  # round to an integer, each in one defined way


class Violation(NamedTuple):
    entry: str
    line: int
    text: str
    reason: str

    def __str__(self):
        return f"line {self.line}: {self.text}: {self.reason}, in {self.entry}"


def _conversion(modifiers, to, source):
    """Why a conversion is no good, if it is not."""
    from_float, to_float = _FLOAT.fullmatch(source), _FLOAT.fullmatch(to)
    if from_float and not to_float:
        return None if modifiers & _TO_INTEGER else "conversion to an integer without .rni or .rzi"
    if from_float and to_float:
        wider = int(re.search(r"\d+", to)[0]) > int(re.search(r"\d+", source)[0])
        if to == source or wider:
            return None if modifiers <= _TO_INTEGER else "inexact conversion"
    if to_float and "rn" not in modifiers:
        return "conversion without .rn"
    return None


def reason(instruction):
    """What is wrong with an instruction, or None."""
    name, *rest = instruction.parts
    parts = set(rest)
    for word in ("approx", "ftz", "full"):
        if word in parts:
            return f".{word}"
    if not any(_FLOAT.fullmatch(p) for p in rest):
        return None
    if name == "cvt":
        return _conversion(parts - set(rest[-2:]), *rest[-2:])
    if name in _ROUNDED:
        return None if "rn" in parts else "no .rn"
    return None if name in _EXACT else "an operation that this check does not know"


def violations(text):
    """All Violations of a PTX text, in its order."""
    return [
        Violation(f.demangled, i.line, i.text, why)
        for f in Module(text).functions.values()
        for i in f.instructions
        if (why := reason(i)) is not None
    ]
