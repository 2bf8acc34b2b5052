# SPDX-License-Identifier: Apache-2.0
"""What :mod:`bench_cuda` measures: the contenders on a GPU and the laws of their samples."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import gates
import peers
import peers_mixture as mixtures
import pushforward as pf
from bench_langevin import LEFT_OUT, SCALED, STEP_SIZE, mixture_law
from harness import Absent, Case, Contender, attempt

DEVICE = "cuda"
COPY_BAR, EAGER_BAR, COMPILED_BAR, GRAPH_BAR = 0.85, 50.0, 10.0, 5.0
NORMALS_LIMIT = 2e-3
"""Seconds for 10^9 normals: 500 G/s."""


def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return the call with the wait for the GPU in it."""

    def timed() -> Any:
        samples = call()
        torch.cuda.synchronize()
        return samples

    return timed


def on_gpu(contender: Contender | Absent) -> Contender | Absent:
    """Return the contender with its wait; between calls the GPU is idle."""
    if isinstance(contender, Absent):
        return contender
    prepare = None if contender.prepare is None else waiting(contender.prepare)
    return replace(contender, call=waiting(contender.call), prepare=prepare)


def case(contenders: list[Contender | Absent], **more: Any) -> Case:
    """Return a case whose contenders wait for the GPU."""
    return Case(contenders=[on_gpu(c) for c in contenders], **more)


def peer(name: str, build: Callable[[], Callable[[], Any]], units: float, **more: Any) -> Any:
    """Return a peer whose tensors are made on the GPU, or Absent where it cannot be built."""

    def contender() -> Contender:
        with torch.device(DEVICE):
            return Contender(name, build(), units, **more)

    return attempt(name, contender)


def after(law: Any, steps: int) -> Callable[[Any, int], None]:
    """Return the gate of a walk that goes on by ``steps`` at each call."""

    def gate(x: Any, calls: int) -> None:
        law.check(gates.as_torch(x).cpu(), calls * steps)

    return gate


# ---- one update given the score ------------------------------------------------------------------


def update(quick: bool) -> Case:
    """One step given the score against the rate at which the memory copies."""
    rows, dim, calls = (1 << 14 if quick else 1 << 20), 64, 20
    x = torch.randn(rows, dim, device=DEVICE)
    start, score, other = x.clone(), -x, torch.empty_like(x)
    n, some = x.numel(), slice(None, None, max(1, rows >> 14))
    steps = itertools.count()

    def ours() -> Tensor:
        for _ in range(calls):
            pf.ops.langevin_(x, score, step_size=STEP_SIZE, seed=0, step=next(steps))
        return x

    def gate(samples: Any, _calls: int) -> None:
        parts = (t[some].cpu() for t in (samples, start, score))
        gates.increments(*parts, STEP_SIZE, calls)

    def copy() -> Tensor:
        for _ in range(calls):
            other.copy_(score)
        return other

    def copied(samples: Any, _calls: int) -> None:
        gates.constant(0.0)((samples - score)[some], 0)

    moved, reset = 3 * 4 * n * calls, partial(x.copy_, start)
    ways = peers.updates(x, score, STEP_SIZE, calls)

    def in_torch(name: str, how: str) -> Contender | Absent:
        if quick and "compile" in name:
            return Absent(name, LEFT_OUT)
        return Contender(name, ways[how], moved, gate, prepare=reset)

    return case(
        claim=f"fused `update` given the score, {n:,} float32 numbers",
        unit="bytes",
        contenders=[
            Contender("pushforward", ours, moved, gate, role="ours", prepare=reset),
            in_torch("torch eager, fresh noise", "fresh"),
            in_torch("torch eager, noise buffer", "buffered"),
            in_torch("torch.compile", "compiled"),
            Contender(
                "copy on the device", copy, 2 * 4 * n * calls, copied, role="ceiling", bar=COPY_BAR
            ),
        ],
        ceilings={"memory": lambda seconds: seconds["copy on the device"]},
        note=f"Bytes that must move: 12 a number for a step (two read, one written), 8 for a copy. "
        f"A call is {calls} steps or copies. The gate looks at one row in "
        f"{max(1, rows >> 14)}.",
    )


# ---- normals used where they are made ------------------------------------------------------------


def normals(quick: bool) -> Case:
    """A run whose cost is nearly all noise."""
    n_chains, steps, dim = (1 << 16 if quick else 1 << 21), (50 if quick else 1000), 2
    law = gates.GaussianLaw(
        torch.eye(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64), STEP_SIZE
    )
    target = pf.targets.Gaussian(torch.zeros(dim), scale=torch.ones(dim))
    ours = native_run(law, target, n_chains, steps)
    billions = n_chains * steps * dim / 1e9
    return case(
        claim=f"10^9 normals made and used in registers: Langevin `run`, Gaussian in {dim}-D",
        unit="times 10^9 normals",
        contenders=[replace(ours, units=billions)],
        limit=NORMALS_LIMIT,
        note=f"{n_chains:,} chains, {steps:,} steps a call; the time is for the whole of the "
        "steps, the target's score among them. 2 ms for 10^9 are 500 G/s.",
    )


def native_run(law: Any, target: Any, n_chains: int, steps: int) -> Contender:
    """Return pushforward's run of many steps in one call, in place."""
    x, calls = law.start(n_chains).to(DEVICE), itertools.count()
    bad = torch.zeros(n_chains, dtype=torch.int64, device=DEVICE)

    def call() -> Tensor:
        return pf.ops.langevin_run_(
            x, target, step_size=law.step_size, n_steps=steps, seed=0,
            first_step=next(calls) * steps, n_nonfinite=bad,
        )  # fmt: skip

    return Contender("pushforward", call, n_chains * steps, after(law, steps), role="ours")


# ---- a run on a mixture --------------------------------------------------------------------------


def mixture(quick: bool) -> Case:
    """A run on a mixture in two dimensions."""
    law = mixture_law()
    n_chains, steps, peer_steps = (10_000, 100, 8) if quick else (1_000_000, 1000, 40)
    target = pf.targets.GaussianMixture(law.means, scales=law.stds)
    near = mixtures.Mixture(law.means, law.stds, law.step_size, law.start(n_chains))
    far = mixtures.Mixture(
        law.means.to(DEVICE), law.stds.to(DEVICE), law.step_size, near.start.to(DEVICE)
    )
    walk: dict[str, Any] = {"units": n_chains * peer_steps, "gate": after(law, peer_steps)}
    walks = mixtures.walks(near)  # JAX takes its arrays from the host

    def in_torch(name: str, form: Any, bar: float | None) -> Contender | Absent:
        return peer(name, lambda: form(far, peer_steps), bar=bar, **walk)

    def compiled(name: str, at_once: int, inside: bool) -> Contender | Absent:
        if quick:
            return Absent(name, LEFT_OUT)
        return peer(
            name, lambda: in_graphs(far, peer_steps, at_once, inside), bar=COMPILED_BAR, **walk
        )

    def in_jax(name: str) -> Contender | Absent:
        if quick:
            return Absent(name, LEFT_OUT)
        reason = no_gpu_in_jax()
        if reason:
            return Absent(name, reason)
        return peer(name, lambda: walks[name]()(peer_steps), bar=COMPILED_BAR, **walk)

    return case(
        claim=f"Langevin `run`, 8 Gaussians in 2-D, {n_chains:,} chains",
        unit="chain-steps",
        contenders=[
            native_run(law, target, n_chains, steps),
            in_torch("torch eager, rows", mixtures.textbook, EAGER_BAR),
            in_torch("torch eager, columns", mixtures.products, EAGER_BAR),
            in_torch("torch eager, autograd", mixtures.autograd, EAGER_BAR),
            compiled("torch.compile, CUDA graphs, noise buffer", 1, False),
            compiled("torch.compile, CUDA graphs, noise inside", 1, True),
            compiled("torch.compile, CUDA graphs, noise inside, 8 steps a graph", 8, True),
            in_jax("JAX scan, columns"),
            in_jax("JAX scan, columns, unrolled"),
        ],
        note=SCALED.format(ours=steps, theirs=peer_steps)
        + " *Rows* is the score as a textbook writes it, *columns* the score by two matrix "
        "products, or with the components written out for a compiler to fuse. torch.compile has "
        '`mode="reduce-overhead"`.',
    )


def in_graphs(
    problem: mixtures.Mixture, steps: int, at_once: int, inside: bool
) -> Callable[[], Tensor]:
    """Return a walk of compiled steps that torch replays as CUDA graphs.

    The noise comes from a buffer, or is drawn ``inside`` where the compiler fuses it.
    """
    h, c, n = problem.step_size, problem.noise_scale, len(problem.start)
    components, shape = problem.components, (at_once, 2, n)

    def step(state: Tensor, noise: Tensor | None) -> Tensor:
        x, y = state
        drawn = torch.randn(shape, device=state.device) if noise is None else noise
        for z in drawn:
            sx, sy = mixtures.written_out(x, y, components, torch.exp, torch.maximum)
            x, y = x + h * sx + c * z[0], y + h * sy + c * z[1]
        return torch.stack([x, y])

    compiled = torch.compile(step, fullgraph=True, mode="reduce-overhead")
    buffer = None if inside else torch.empty(shape)
    state = mixtures.columns(problem.start)
    torch._dynamo.mark_static_address(state)  # so that a replay reads it in place

    def walk() -> Tensor:
        for _ in range(steps // at_once):
            state.copy_(compiled(state, None if buffer is None else buffer.normal_()))
        return state

    return walk


def no_gpu_in_jax() -> str:
    """Return why JAX cannot contend here, or nothing."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax

        return "" if jax.default_backend() == "gpu" else "jax has no GPU here"
    except ImportError:
        return "jax is not installed"
    except RuntimeError as error:
        return f"jax failed with {type(error).__name__}"


# ---- a loop round a network ----------------------------------------------------------------------


def exact_network(dim: int, width: int) -> nn.Module:
    """Return a network of two layers of ``width`` whose output is ``-x``.

    Its weights are such that the law of the walk is known; its work is that of any other.
    """
    half = width // 2
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(half, dim, generator=generator, dtype=torch.float64)
    net = nn.Sequential(
        nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim)
    )
    back = -torch.linalg.pinv(directions)
    weights = [torch.cat([directions, -directions]), torch.eye(width), torch.cat([back, -back], 1)]
    with torch.no_grad():
        for layer, weight in zip(net[::2], weights, strict=True):
            layer.weight.copy_(weight)
            layer.bias.zero_()
    return net.eval().requires_grad_(False)


def network(quick: bool) -> Case:
    """A loop that evaluates a small network and calls the update."""
    n_chains, dim, width, steps = 4096, 2, 64, (20 if quick else 100)
    law = gates.GaussianLaw(
        torch.eye(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64), STEP_SIZE
    )
    net = exact_network(dim, width).to(DEVICE)
    walk: dict[str, Any] = {"units": steps, "gate": after(law, steps)}

    def looped() -> tuple[Callable[[], Tensor], Tensor]:
        x, step = law.start(n_chains).to(DEVICE), torch.zeros((), dtype=torch.int64, device=DEVICE)

        def call() -> Tensor:
            for _ in range(steps):
                pf.ops.langevin_(x, net(x), step_size=STEP_SIZE, seed=0, step=step)
                step.add_(1)
            return x

        return call, x

    def in_torch() -> tuple[Callable[[], Tensor], Tensor]:
        x, c = law.start(n_chains).to(DEVICE), math.sqrt(2 * STEP_SIZE)
        noise = torch.empty_like(x)

        def call() -> Tensor:
            for _ in range(steps):
                x.add_(net(x), alpha=STEP_SIZE).add_(noise.normal_(), alpha=c)
            return x

        return call, x

    def replayed(loop: Callable[[], tuple[Callable[[], Tensor], Tensor]]) -> Callable[[], Tensor]:
        call, x = loop()
        side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            call()
        x.copy_(law.start(n_chains))

        def replay() -> Tensor:
            graph.replay()
            return x

        return replay

    return case(
        claim=f"loop of the `update` round a network of 2 x {width}, {n_chains} x {dim}, in a "
        "CUDA graph",
        unit="steps",
        contenders=[
            Contender("pushforward", replayed(looped), role="ours", **walk),
            Contender("pushforward, eager loop", looped()[0], bar=GRAPH_BAR, **walk),
            Contender("torch, eager loop", in_torch()[0], bar=GRAPH_BAR, **walk),
            Contender("torch, in a CUDA graph", replayed(in_torch), **walk),
        ],
        note=f"{steps} steps a call; the graph reads its step from the GPU, so that every replay "
        "has noise of its own.",
    )


def cases(quick: bool) -> dict[str, Callable[[], Case]]:
    """Return the cases by name."""
    return {
        "update": partial(update, quick),
        "normals": partial(normals, quick),
        "mixture": partial(mixture, quick),
        "network": partial(network, quick),
    }
