# SPDX-License-Identifier: Apache-2.0
"""What a call of each op costs: ``python benchmarks/bench_ops.py [--quick]``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pushforward as pf
from harness import Case, Contender, GateError, arguments, run
from machine import pin
from make_tables import publish

CALL_LIMIT, CALLS = 5e-6, 500
STEP_SIZE = 0.1

Call = Callable[[], Any]


def updates(n: int) -> dict[str, Call]:
    """Return the ops that do one step, on ``(n, 2)``."""
    x, wide = torch.zeros(n, 2), torch.zeros(n, 2, dtype=torch.float64)
    proposed, score = torch.full((n, 2), 0.1), torch.full((n, 2), -0.1)
    value, other = torch.zeros(n), torch.zeros(n)
    counts, refused = pf.ops.Counts.zeros(n), torch.zeros(n, dtype=torch.int64)
    at, ops = {"seed": 0, "step": 3}, pf.ops
    there = {"growth": 0.9, "drift_scale": 0.1, "noise_scale": 0.1, **at}
    sums = (x.clone(), wide, wide.clone())
    return {
        "langevin": lambda: ops.langevin(x, score, step_size=STEP_SIZE, **at),
        "langevin_": lambda: ops.langevin_(x, score, step_size=STEP_SIZE, **at),
        "diffuse": lambda: ops.diffuse(x, mean_scale=0.9, std=0.1, seed=0),
        "reverse_step": lambda: ops.reverse_step(x, score, **there),
        "reverse_step_": lambda: ops.reverse_step_(x, score, **there),
        "commit_": lambda: ops.commit_(x, proposed, refused, sums),
        "accept_": lambda: ops.accept_(x, proposed, value, other, counts=counts, **at),
    }


def runs(n: int) -> dict[str, Call]:
    """Return the ops on a native target, one step on ``(n, 2)``."""
    x, ops = torch.zeros(n, 2), pf.ops
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    counts, run = pf.ops.Counts.zeros(n), {"step_size": STEP_SIZE, "n_steps": 1, "seed": 0}
    return {
        "log_density": lambda: ops.log_density(x, law),
        "score": lambda: ops.score(x, law),
        "log_density_and_score": lambda: ops.log_density_and_score(x, law),
        "langevin_run_": lambda: ops.langevin_run_(x, law, **run),
        "markov_run_": lambda: ops.markov_run_(x, law, "mala", counts=counts, **run),
    }


def finite(states: Any, calls: int) -> None:
    """Require numbers; the laws of single steps are the test suite's."""
    for x in states if isinstance(states, tuple) else (states,):
        if not isinstance(x, Tensor) or not bool(x.isfinite().all()):
            raise GateError("a number is not finite")


def one_call(n: int = 16) -> Case:
    """One call of each op on a small state; the slowest of them answers for all."""
    ops = {**updates(n), **runs(n)}
    if set(ops) != set(pf.ops.__all__) - {"Counts"}:
        raise AssertionError("an op of pushforward.ops is missing here")

    def many(op: Call) -> Any:
        result = None
        for _ in range(CALLS):
            result = op()
        return result

    def slowest() -> tuple[float, tuple[Tensor, ...]]:
        seconds, states = [], []
        for op in ops.values():
            began = time.perf_counter()
            result = many(op)
            seconds.append(time.perf_counter() - began)
            states += result if isinstance(result, tuple) else [result]
        return max(seconds), tuple(states)

    each = [
        Contender(f"`{name}`", partial(many, op), CALLS, finite, role="part")
        for name, op in ops.items()
    ]
    return Case(
        claim=f"one call of any op of `pf.ops`, {n} x 2 in memory, Python floats",
        unit="calls",
        contenders=[
            Contender("pushforward", slowest, CALLS, finite, role="ours", times_itself=True),
            *each,
        ],
        limit=CALL_LIMIT,
        rounds_factor=4,
        note=f"A time is the mean of {CALLS} calls in a row, the Python loop included; that of "
        "pushforward is the largest of a pass over all ops, each of which stands below. The gate "
        "asks for finite numbers; the laws of single steps are the test suite's.",
    )


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    pin(options.threads)
    publish(run("ops", {"call": one_call}, options), options)


if __name__ == "__main__":
    main()
