# SPDX-License-Identifier: Apache-2.0
"""Reads what `nvcc -Xptxas -v` says of each kernel: registers, stack, spills, shared memory."""

import re
from dataclasses import dataclass

from ptx.ptx import demangle

_TARGET = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_NAME = re.compile(r"Function properties for '?([^\s']+)'?")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")


@dataclass
class Usage:
    """What one kernel, or one function that was not inlined, uses on one architecture."""

    name: str
    architecture: str
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    registers: int | None = None  # of kernels only
    shared: int = 0


def usages(text):
    """The Usage of each kernel and function in the output of nvcc."""
    found, architecture, current = [], "", None
    for line in text.splitlines():
        if match := _TARGET.search(line):
            architecture = match[2]
        if match := _NAME.search(line):
            current = Usage(match[1], architecture)
            found.append(current)
        if current is not None and (match := _STACK.search(line)):
            current.stack, current.spill_stores, current.spill_loads = map(int, match.groups())
        if current is not None and (match := _USED.search(line)):
            current.registers = int(match[1])
            shared = _SHARED.search(line)
            current.shared = int(shared[1]) if shared else 0
    for usage, name in zip(found, demangle(u.name for u in found), strict=True):
        usage.name = name
    return found


def violations(text):
    """A line for every kernel that keeps something in local memory; ValueError if none is named."""
    found = usages(text)
    if not found:
        raise ValueError("no kernel in this text; was it made with -Xptxas -v?")
    return [
        f"{u.name} ({u.architecture}): {u.stack} bytes stack frame, {u.spill_stores} bytes spill "
        f"stores, {u.spill_loads} bytes spill loads"
        for u in found
        if u.stack or u.spill_stores or u.spill_loads
    ]
