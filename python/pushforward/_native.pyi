# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

cpu_level: str
cuda_architectures: str
run_kinds: tuple[str, ...]
sketch_bins: int

class Target:
    def __init__(
        self,
        kind: int,
        dim: int,
        n_components: int,
        tensors: Sequence[Tensor],
        a: float,
        b: float,
        c: float,
    ) -> None: ...

Coefficient = Tensor | float
Counter = Tensor | int
Moments = tuple[Tensor | int | None, ...]

def are_plain(values: tuple[Any, ...]) -> bool: ...
def fill(
    out: Tensor,
    uniform: bool,
    seed: Counter,
    purpose: int,
    chain_offset: int,
    start: Counter,
    n_threads: int,
) -> None: ...
def langevin(
    out: Tensor,
    x: Tensor,
    score: Tensor,
    step_size: Coefficient,
    beta: Coefficient,
    seed: Counter,
    step: Counter,
    chain_offset: int,
    n_threads: int,
) -> None: ...
def run(
    kind: int,
    x: Tensor,
    target: Target,
    parameters: dict[str, Any],
    seed: Counter,
    first_step: Counter,
    n_steps: int,
    chain_offset: int,
    steps_done: int,
    thin: int,
    draws: Tensor | None,
    log_density: Tensor | None,
    tallies: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None] | None,
    moments: Moments | None,
    n_threads: int,
) -> None: ...
def accept(
    x: Tensor,
    proposed: Tensor,
    log_density: Tensor,
    proposed_log_density: Tensor,
    score: Tensor | None,
    proposed_score: Tensor | None,
    correction: Tensor | None,
    step_size: Coefficient | None,
    beta: Coefficient,
    seed: Counter,
    step: Counter,
    chain_offset: int,
    tallies: tuple[Tensor, Tensor, Tensor, Tensor],
    taken: Tensor | None,
    kept: Tensor | None,
    moments: Moments | None,
    n_threads: int,
) -> None: ...
def evaluate(
    target: Target, x: Tensor, log_density: Tensor | None, score: Tensor | None, n_threads: int
) -> None: ...
def commit(
    x: Tensor,
    proposed: Tensor,
    n_nonfinite: Tensor,
    taken: Tensor | None,
    kept: Tensor | None,
    moments: Moments | None,
    n_threads: int,
) -> None: ...
def diffuse(
    out: Tensor,
    x: Tensor,
    mean_scale: Coefficient,
    std: Coefficient,
    seed: Counter,
    purpose: int,
    step: Counter,
    chain_offset: int,
    n_threads: int,
) -> None: ...
def reverse(
    out: Tensor,
    x: Tensor,
    score: Tensor,
    growth: Coefficient,
    drift_scale: Coefficient,
    noise_scale: Coefficient,
    seed: Counter,
    step: Counter,
    chain_offset: int,
    n_threads: int,
) -> None: ...
def pool(
    x: Tensor,
    n_steps: int,
    n_left_out: Tensor,
    moments: Moments,
    mean: Tensor,
    var: Tensor,
    n_threads: int,
) -> None: ...
def totals(
    x: Tensor,
    moments: Moments,
    sum: Tensor,
    squares: Tensor,
    open_batch: Tensor | None,
    n_threads: int,
) -> None: ...
def add_states(
    x: Tensor,
    states: Sequence[Tensor],
    before: Tensor | None,
    marks: Tensor | None,
    moments: Moments,
    steps_done: int,
    n_threads: int,
) -> None: ...
def pooled(
    x: Tensor,
    shift: Tensor | None,
    products: int,
    chain_offset: int,
    of_states: Tensor | None,
    total: Tensor,
    n_threads: int,
) -> None: ...
def sketch(
    x: Tensor,
    centre: Tensor,
    inverse_scale: Tensor,
    counts: Tensor,
    extremes: Tensor,
    n_threads: int,
) -> None: ...
def math(function: int, input: Tensor, out: Tensor, n_threads: int) -> None: ...
def advise_huge_pages(tensor: Tensor) -> None: ...
def copy(to: Tensor, source: Tensor, n_threads: int) -> None: ...
def ising(
    x: Tensor,
    temperature: Tensor,
    field: Tensor,
    no_field: bool,
    heat_bath: bool,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    accepted: Tensor | None,
    accepted_squares: Tensor | None,
    moments: Moments | None,
    steps_done: int,
    workspace: Callable[[Tensor, int], Tensor],
    n_threads: int,
) -> None: ...
def clusters(
    x: Tensor,
    temperature: Tensor,
    field: Tensor,
    wolff: bool,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    moments: Moments | None,
    steps_done: int,
    workspace: Callable[[Tensor, int], Tensor],
    n_threads: int,
) -> None: ...
def phi4_run(
    x: Tensor,
    move: int,
    kappa: Tensor,
    lam: Tensor,
    field: Tensor,
    step_size: Tensor | float,
    n_leapfrog: int,
    jitter: float,
    seed: int,
    first_step: int,
    n_steps: int,
    chain_offset: int,
    accepted: Tensor | None,
    accepted_squares: Tensor | None,
    n_nonfinite: Tensor | None,
    n_divergent: Tensor | None,
    moments: Moments | None,
    steps_done: int,
    workspace: Callable[[Tensor, int], Tensor],
    n_threads: int,
) -> None: ...
def phi4_evaluate(
    x: Tensor,
    kappa: Tensor,
    lam: Tensor,
    field: Tensor,
    log_density: Tensor | None,
    score: Tensor | None,
    workspace: Callable[[Tensor, int], Tensor],
    n_threads: int,
) -> None: ...
