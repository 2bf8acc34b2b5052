# SPDX-License-Identifier: Apache-2.0
"""Every op, target and kernel once, at ragged sizes: ``python sanitizer_work.py <tool>``.

It is what compute-sanitizer looks at. For ``racecheck`` it leaves out cluster moves, whose threads
read on purpose what others change.

Prints the CPU's digest beside the GPU's, so that a run under the sanitizer checks numbers too.
"""

import hashlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pushforward as pf
from conftest import ZOO
from pushforward import _ops


def everything(device):
    """Return the results of all ops on a device."""
    out = []
    for dtype in (torch.float32, torch.float64):
        x = pf.random.normal(45, 67, seed=1, start=3, dtype=dtype, device=device)
        out += [x, pf.random.uniform(5, 1001, seed=1, start=1, dtype=dtype, device=device)]
        for dim in (67, 64, 3):
            y = x[:, :dim].contiguous()
            out.append(pf.ops.langevin(y, -y, step_size=0.1, seed=2, step=3))
            out.append(pf.ops.diffuse(y, mean_scale=0.5, std=0.3, seed=2))
            out.append(
                pf.ops.reverse_step(
                    y, -y, growth=1.1, drift_scale=0.1, noise_scale=0.2, seed=2, step=1
                )
            )
        for law in ZOO.values():
            start = law.sample(133, seed=1, dtype=dtype).to(device)
            how = {"n_steps": 4, "thin": 2, "seed": 3, "progress": False}
            chains = pf.sample(law, pf.Langevin(0.01), start, **how)
            out += [chains.draws, chains.log_density, chains.mean, chains.var, chains.n_nonfinite]
            out += pf.ops.log_density_and_score(start, law)
        counts = pf.ops.Counts.zeros(45, device)
        value, proposed_value = (
            pf.random.normal(45, 1, seed=s, dtype=dtype, device=device)[:, 0] for s in (5, 6)
        )
        moved = pf.ops.accept_(x.clone(), -x, value, proposed_value, seed=7, step=2, counts=counts)
        out += [moved, value, *counts.tensors()]
        bad = torch.zeros(45, dtype=torch.int64, device=device)
        proposed = x.clone()
        proposed[::7, 5] = torch.nan
        out += [pf.ops.commit_(x.clone(), proposed, bad), bad]
    for dtype in (torch.bfloat16, torch.float16):
        x = pf.random.normal(45, 67, seed=1, start=3, dtype=dtype, device=device)
        out += [x.float(), pf.ops.diffuse(x, mean_scale=0.5, std=0.3, seed=2).float()]
    return out


def over_chains(device):
    """Return sums and histograms of whole states, and the functions that kernels compute with."""
    out, dim, wide = [], 5, torch.float64
    shift = torch.linspace(-1, 1, dim, dtype=wide).to(device)
    for dtype in (torch.float32, torch.float64):
        x = pf.random.normal(3 * 1111, dim, seed=1, dtype=dtype, device=device)
        for products in ("none", "squares", "all"):
            total = torch.zeros(_ops.width_of(dim, products), dtype=wide, device=device)
            how = {"shift": shift, "products": products, "chain_offset": 1000}
            out.append(_ops.add_chain_sums_(total, x.reshape(3, 1111, dim), **how))
        counts = torch.zeros(1, dim, _ops.SKETCH_BINS, dtype=torch.int64, device=device)
        ends = torch.tensor([2**63 - 1, -(2**63)], device=device).repeat(1, dim, 1)
        out.append(_ops.count_in_bins_(counts, ends, x, centre=shift, inverse_scale=shift + 2))
        out.append(ends)
        out += [_ops.elementwise_math(name, x.abs()) for name in _ops.MATH_FUNCTIONS]
    return out


def markov_chains(device):
    """Return the results of the kernels that accept, and of a tree: a chain a thread and a warp."""
    out, kernels = [], [
        pf.RandomWalk(0.3), pf.MALA(0.1), pf.UnderdampedLangevin(0.1, friction=1.0),
        pf.HMC(0.2, n_leapfrog=3), pf.NUTS(0.3, max_depth=3),
    ]  # fmt: skip
    how = {"seed": 3, "progress": False}
    single, double = torch.float32, torch.float64
    for name, dtype in (("plane", single), ("dense", single), ("dense", double)):
        law = ZOO[f"gaussian-{name}"]
        x = law.sample(133, seed=1, dtype=dtype).to(device)
        for kernel in kernels:
            chains = pf.sample(law, kernel, x, n_steps=3, **how)
            out += [chains.draws, chains.log_density, chains.mean]
        # What torch makes of the covariance and the quantiles is not the same to the bit.
        chains = pf.sample(
            law, kernels[1], x, n_steps=5, store="stats", covariance=True, quantiles=True, **how
        )
        assert bool(chains.cov.isfinite().all() & chains.quantile(0.5).isfinite().all())
        out += [chains.mean, chains.var]
    return out


def lattices(device, clusters):
    """Return states of lattices that live in shared memory, and of some too large for it."""
    out, steps = [], {"seed": 4, "first_step": 1, "n_steps": 2, "chain_offset": 5}
    for shape in ((6, 10), (4, 2, 6), (150, 180)):
        law = pf.lattice.Ising(shape, temperature=2.25, field=0.125)
        moves = [pf.lattice.Metropolis(), pf.lattice.HeatBath()]
        for move in [*moves, *[pf.lattice.SwendsenWang(), pf.lattice.Wolff()] * clusters]:
            x = (pf.random.uniform(3, law.n_sites, seed=5) < 0.5).reshape(3, *shape) * 2.0 - 1
            x = x.to(device)
            move.advance(x, law, **steps)
            out.append(x)
        field = pf.lattice.Phi4(shape, kappa=0.125, lam=0.25)
        for kernel in (
            pf.Langevin(0.01), pf.MALA(0.01), pf.HMC(0.05, 2, metric="unit", jitter=0.0),
            pf.lattice.Metropolis(width=0.5),
        ):  # fmt: skip
            x = pf.random.normal(3, law.n_sites, seed=6).reshape(3, *shape).to(device)
            chains = pf.sample(field, kernel, x, n_steps=5, seed=7, progress=False)
            out += [chains.draws, chains.mean, chains.var]
        out += [field.log_density(x), field.score(x)]
        x = torch.ones(3, *shape, dtype=torch.int8, device=device)
        chains = pf.sample(law, moves[0], x, n_steps=5, store="stats", seed=8, progress=False)
        out += [chains.x, chains.mean, chains.var]
    return out


def digest(tensors):
    """Return a digest of all bits."""
    found = hashlib.sha256()
    for t in tensors:
        found.update(t.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def main():
    """Compare the two and return the exit status."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu", "cpu"]
    clusters = sys.argv[1:] != ["racecheck"]
    found = [
        digest([*everything(d), *over_chains(d), *markov_chains(d), *lattices(d, clusters)])
        for d in devices
    ]
    print(*(f"{device} {d}" for device, d in zip(devices, found, strict=True)), sep="\n")
    return int(found[0] != found[1])


if __name__ == "__main__":
    sys.exit(main())
