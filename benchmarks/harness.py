# SPDX-License-Identifier: Apache-2.0
"""Side-by-side timing: interleaved rounds, rotated order, a correctness gate on every sample.

A :class:`Case` is a claim with its :class:`Contender` s. Every round calls each of them once, in an
order that rotates, because a host's speed drifts by up to a factor of two within minutes: only what
stood in the same round is compared. A short call is made once untimed, so that its code and memory
are warm, and before the clock starts the threads of OpenMP, which spin for milliseconds after their
last work, have come to rest. The samples of a call must pass the contender's gate before the call's
time counts; a gate that fails ends the benchmark.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from machine import Load, device, machine, slug

REST = 0.01
"""Seconds after which the threads of OpenMP and XLA have stopped spinning."""

SHORT = 0.05
"""Seconds below which a call is made untimed before the timed one."""

RESULTS = Path(__file__).parent / "results"
Role = Literal["ours", "part", "peer", "ceiling"]
Round = Mapping[str, float]
Item = TypeVar("Item")


class GateError(Exception):
    """The samples of a contender do not follow the law that they should."""


@dataclass(frozen=True)
class Contender:
    """Something that is timed."""

    name: str  # as the tables print it
    call: Callable[[], Any]  # what is timed; returns its samples
    units: float  # how many of the case's units one call does
    gate: Callable[[Any, int], None]  # of the samples and the number of calls so far: GateError
    role: Role = (
        "peer"  # "ours" once a case, of which a "part" may stand apart; a "ceiling" bounds it
    )
    bar: float | None = None  # the least ratio that ours must reach against this peer
    prepare: Callable[[], Any] | None = None  # before each call, not timed
    times_itself: bool = False  # whether ``call`` returns (seconds, samples)


@dataclass(frozen=True)
class Absent:
    """A contender that cannot run here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Case:
    """A claim and those who contend for it."""

    claim: str  # what ours does, as the tables print it
    unit: str  # what is counted, in the plural
    contenders: Sequence[Contender | Absent]  # exactly one has the role "ours"
    limit: float | None = None  # the most seconds a unit that ours may take
    ceilings: Mapping[str, Callable[[Round], float]] = field(default_factory=dict)
    """The least seconds a unit, given the seconds a unit of each contender in one round."""
    rounds_factor: int = 1  # how many times the rounds asked for; for short calls
    note: str = ""  # what a reader must know


def attempt(name: str, build: Callable[[], Contender]) -> Contender | Absent:
    """Return what ``build`` makes, or Absent where a package that it imports is missing."""
    try:
        return build()
    except ImportError as error:
        return Absent(name, f"{(error.name or 'a package').split('.')[0]} is not installed")


def rotated(items: Sequence[Item], i: int) -> list[Item]:
    """Return the order of round ``i``: each item is first once in ``len(items)`` rounds."""
    if not items:
        return []
    i %= len(items)
    return [*items[i:], *items[:i]]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times as long as ours the peer took, round by round."""
    return [p / o for p, o in zip(peer, ours, strict=True)]


def _rest() -> None:
    """Wait without sleeping: a core that idles takes milliseconds to be as fast as before."""
    end = time.perf_counter() + REST
    while time.perf_counter() < end:
        pass


def _timed(contender: Contender) -> tuple[float, Any]:
    if contender.prepare is not None:
        contender.prepare()
    _rest()
    began = time.perf_counter()
    samples = contender.call()
    seconds = time.perf_counter() - began
    return samples if contender.times_itself else (seconds, samples)


def _check(case: str, contender: Contender, samples: Any, calls: int) -> None:
    try:
        contender.gate(samples, calls)
    except GateError as error:
        raise GateError(f"{case}: {contender.name}: {error}") from error


@dataclass
class _Turns:
    """A contender's calls so far."""

    contender: Contender
    calls: int = 2  # in the warm-up
    seconds_per_unit: list[float] = field(default_factory=list)
    short: bool = True

    def take(self, case: str) -> None:
        """Time one call and check its samples."""
        if self.short:
            _timed(self.contender)
            self.calls += 1
        elapsed, samples = _timed(self.contender)
        self.calls += 1
        self.short = elapsed < SHORT
        _check(case, self.contender, samples, self.calls)
        self.seconds_per_unit.append(elapsed / self.contender.units)


def _warmed_up(case: str, contender: Contender) -> float | Absent:
    """Return the seconds of the first call, which compiles, or what came of a peer that cannot."""
    try:
        first, samples = _timed(contender)
    except Exception as error:
        if contender.role != "peer":
            raise
        return Absent(contender.name, f"failed here with {type(error).__name__}")
    _check(case, contender, samples, 1)
    _check(case, contender, _timed(contender)[1], 2)
    return first


def measure(name: str, case: Case, rounds: int) -> dict[str, Any]:
    """Time the contenders of a case and return its record, ready for JSON.

    Wrong samples raise GateError, whose message names the case and the contender.
    """
    entries: list[dict[str, Any]] = []
    live: list[_Turns] = []
    for contender in case.contenders:
        first = contender if isinstance(contender, Absent) else _warmed_up(name, contender)
        if isinstance(first, Absent):
            entries.append({"name": first.name, "absent": first.reason})
        elif isinstance(contender, Contender):
            live.append(_Turns(contender, short=first < SHORT))
            facts = {"name": contender.name, "role": contender.role, "bar": contender.bar}
            seconds = live[-1].seconds_per_unit
            entries.append({**facts, "first_call": first, "seconds_per_unit": seconds})
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds * case.rounds_factor):
            for turns in rotated(live, i):
                turns.take(name)
    finally:
        gc.enable()
    seconds_of = {turns.contender.name: turns.seconds_per_unit for turns in live}
    return {"name": name, **_record(case, entries, seconds_of)}


def _record(
    case: Case, entries: list[dict[str, Any]], seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    ours = next(e["seconds_per_unit"] for e in entries if e.get("role") == "ours")
    by_round = [
        dict(zip(seconds, values, strict=True)) for values in zip(*seconds.values(), strict=True)
    ]
    shares = {
        name: [least(r) / own for r, own in zip(by_round, ours, strict=True)]
        for name, least in case.ceilings.items()
    }
    record = {
        "claim": case.claim, "unit": case.unit, "note": case.note, "limit": case.limit,
        "contenders": entries, "measured_over_ceiling": shares,
    }  # fmt: skip
    return _rounded(record)


def _rounded(value: Any) -> Any:
    """Keep five digits of every float: more is noise, and only makes the files longer."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def run(
    name: str, cases: Mapping[str, Callable[[], Case]], options: argparse.Namespace
) -> dict[str, Any]:
    """Measure the cases one after another and return the benchmark's record."""
    before, records = Load.now(), []
    for case, build in cases.items():
        if options.only is None or options.only in case:
            print(f"measuring {case} ...", file=sys.stderr, flush=True)
            records.append(measure(case, build(), options.rounds))
    quiet = {"load_before": before.average, "share_of_others": before.share_of_others()}
    return {
        "benchmark": name,
        "command": f"python benchmarks/bench_{name}.py",
        "machine": machine(),
        "run": _rounded(
            {
                **quiet,
                "seconds": time.perf_counter() - before.clock,
                "rounds": options.rounds,
                "quick": options.quick,
            }
        ),
        "cases": records,
    }


def write(record: Mapping[str, Any], root: Path = RESULTS) -> Path:
    """Write a benchmark's record to ``<root>/<device>/<benchmark>.json``."""
    path = root / slug(device(record["machine"])) / f"{record['benchmark']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--rounds", type=int, help="rounds to measure (15; quick: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender (2)")
    parser.add_argument("--only", help="run the cases whose name contains this; only prints")
    parser.add_argument("--write", action="store_true", help="write the results of --quick too")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 15)
    return options
