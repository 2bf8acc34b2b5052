# SPDX-License-Identifier: Apache-2.0
"""Facts of a run as JSON, and what differs between those of two runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_json", "difference", "named"]


def difference(
    expected: Mapping[str, Any], found: Mapping[str, Any], holder: str = "the checkpoint"
) -> str:
    """Return what is other in a file than in a call, fact by fact; empty if nothing is.

    Args:
        expected: the facts of the call.
        found: the facts of the file.
        holder: what the file is called.

    Raises:
        TypeError: an argument is not a mapping.
        ValueError: a fact is nothing that JSON holds.

    Example:
        >>> from pushforward import checkpoint
        >>> checkpoint.difference({"seed": 4, "thin": 1}, {"seed": 3, "thin": 1})
        'seed: the checkpoint has 3, this call has 4'

    """
    call, file = json.loads(as_json(expected, "expected")), json.loads(as_json(found, "found"))
    return "; ".join(
        f"{name}: {holder} has {_short(theirs)}, this call has {_short(ours)}"
        for name, ours, theirs in _differences("", call, file)
    )


_ABSENT = object()


def _differences(name: str, call: Any, file: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(call, dict) and isinstance(file, dict):
        for key in {**call, **file}:
            full = f"{name}.{key}" if name else key
            yield from _differences(full, call.get(key, _ABSENT), file.get(key, _ABSENT))
    elif isinstance(call, list) and isinstance(file, list) and len(call) == len(file):
        for i, (ours, theirs) in enumerate(zip(call, file, strict=True)):
            yield from _differences(f"{name}[{i}]", ours, theirs)
    elif type(call) is not type(file) or call != file:
        yield name, call, file


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def as_json(facts: Mapping[str, Any], name: str) -> str:
    """Return facts as JSON, in one order of their names.

    Raises:
        TypeError: they are not a mapping from names.
        ValueError: one of them is nothing that JSON holds.

    """
    facts = named(facts, name)
    _check_json(facts, name)
    return json.dumps(facts, sort_keys=True, allow_nan=False)


def named(values: Any, name: str) -> dict[str, Any]:
    """Return a mapping from names as a dict, or raise TypeError."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dict, got {type(values).__name__}")
    for key in values:
        if not isinstance(key, str):
            raise TypeError(f"{name}: expected names, got {key!r}")
    return dict(values)


def _check_json(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{name}: expected names, got the key {key!r}")
            _check_json(inner, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            _check_json(inner, f"{name}[{i}]")
    elif value is not None and not isinstance(value, (bool, int, str, float)):
        raise ValueError(f"{name}: expected what JSON can hold, got {type(value).__name__}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
