# SPDX-License-Identifier: Apache-2.0
"""Calls of every op whose results are on record: name -> a function of the device.

Inputs are numbers with few digits and native noise, moved to the device: no function of torch or
of a mathematics library decides a bit of them.
"""

import warnings
from functools import partial

import torch

import pushforward as pf
from pushforward import _ops, lattice
from pushforward._ops.lattice import phi4_run
from pushforward.targets.base import Kind, NativeTarget

DTYPES = {"f32": torch.float32, "f64": torch.float64}
# Dimensions with a kernel of their own and without, of one coordinate a lane and of more; and the
# number of chains: whole packs and a rest, and few where the emulator is slow.
DIMS = {1: 18, 2: 5, 3: 44, 4: 57, 5: 70, 8: 43, 16: 35, 32: 37, 33: 11, 45: 6}
BORDER = 2**32 - 9  # chains from here on carry into the upper word of their index


# ---- inputs --------------------------------------------------------------------------------------


class Law(NativeTarget):
    """A native target with the kernels' own parameters."""

    torch_log_density = _draw = mean = covariance = None

    def __init__(self, kind, dim, n_components=0, parameters=(), scalars=()):
        self.kind, self.dim, self.n_components = kind, dim, n_components
        self._parameters, self._scalars = tuple(p.double() for p in parameters), scalars


def sixteenths(*shape):
    """Numbers k / 16 from -1 to 1, all over the place and the same everywhere."""
    n = torch.tensor(shape).prod()
    return ((torch.arange(n) * 37 + 11) % 33 - 16).double().reshape(shape) / 16


def law(kind, dim):
    center = sixteenths(dim) * 2
    if kind == Kind.GAUSSIAN_DIAGONAL:
        return Law(kind, dim, 0, (center, sixteenths(dim) + 1.5), (-0.375,))
    dense = (sixteenths(dim, dim) + sixteenths(dim, dim).mT) / 64 + 1.5 * torch.eye(dim)
    if kind == Kind.GAUSSIAN_DENSE:
        return Law(kind, dim, 0, (center, dense), (-0.375,))
    if kind in (Kind.MIXTURE_ISOTROPIC, Kind.MIXTURE_DIAGONAL, Kind.MIXTURE_DENSE):
        k = 3 if kind == Kind.MIXTURE_DENSE else 11  # a group of eight, and the rest one by one
        curvature = {
            Kind.MIXTURE_ISOTROPIC: (-1.5 - sixteenths(k)),
            Kind.MIXTURE_DIAGONAL: (-1.5 - sixteenths(k, dim)),
            Kind.MIXTURE_DENSE: -dense.repeat(k, 1, 1) * (1 + torch.arange(k))[:, None, None] / 2,
        }[kind]
        return Law(kind, dim, k, (sixteenths(k, dim) * 4, curvature, sixteenths(k) - 4))
    scalars = {
        Kind.DOUBLE_WELL: (-2.0, 0.75),
        Kind.BANANA: (1.5, 0.375, -0.25),
        Kind.FUNNEL: (1.25, -0.25),
        Kind.RING: (2.0, 8.0),
    }
    return Law(kind, dim, 0, (), scalars[kind])


def normal(n, *event, seed, dtype):
    size = torch.tensor(event).prod().item()
    return pf.random.normal(n, size, seed=seed, dtype=dtype).reshape(n, *event)


def per_chain(n, dtype, device, top):
    """Coefficients of the chains: top / 8, ... top, and again."""
    return ((1 + torch.arange(n) % 8) * (top / 8)).to(dtype).to(device)


def misaligned(x):
    """A copy of x that begins one number after a multiple of 16 bytes."""
    memory = torch.zeros(x.numel() + 4, dtype=x.dtype, device=x.device)
    return memory[1 : 1 + x.numel()].view(x.shape).copy_(x)


# ---- cases: each takes the device and returns tensors --------------------------------------------


def fill(name, dtype, start, chain_offset, device):
    where = {"seed": 3, "purpose": "user", "start": start, "chain_offset": chain_offset}
    for n_chains, n in ((1, 1), (5, 7), (33, 4), (19, 131), (131, 2)):
        yield getattr(pf.random, name)(n_chains, n, dtype=dtype, device=device, **where)


def update(call, event, dtype, device):
    n = 21
    x, score = (normal(n, *event, seed=s, dtype=dtype).to(device) for s in (1, 2))
    each = per_chain(n, dtype, device, 0.5)
    for a, b in ((0.25, 1.5), (each, 0.75), (0.125, each), (each, each + 1)):
        yield call(x, score, a, b)
        yield call(misaligned(x), misaligned(score), a, b)
    yield call(x, misaligned(score), each, each)


def langevin(x, score, h, beta):
    where = {"seed": 5, "step": 7, "chain_offset": BORDER}
    moved = pf.ops.langevin(x, score, step_size=h, beta=beta, **where)
    again = x if x.storage_offset() else x.clone()  # the misaligned one is ours to change
    pf.ops.langevin_(again, score, step_size=h, beta=beta, **where)
    return torch.stack((moved, again))


def diffuse(x, score, a, b):
    return pf.ops.diffuse(x, mean_scale=a, std=b, seed=6, chain_offset=BORDER)


def reverse_step(x, score, a, b):
    scales = {"growth": 1.0625, "drift_scale": a, "noise_scale": b}
    return pf.ops.reverse_step(x, score, seed=7, step=3, chain_offset=BORDER, **scales)


def native(kind, dim, dtype, device, n_chains=None):
    n = n_chains or DIMS[dim]
    target, x = law(kind, dim), normal(n, dim, seed=8, dtype=dtype).to(device)
    yield from pf.ops.log_density_and_score(x, target)
    h, beta = per_chain(n, dtype, device, 0.0625), per_chain(n, dtype, device, 2.0)
    where = {"seed": 9, "first_step": 3, "chain_offset": BORDER}
    yield pf.ops.langevin_run_(x.clone(), target, step_size=h, beta=beta, n_steps=3, **where)
    yield pf.ops.langevin_run_(x, target, step_size=0.03125, beta=1.5, n_steps=2, **where)


def sample(kind, dim, dtype, device, huge=False):
    n = DIMS[dim]
    x, h = normal(n, dim, seed=10, dtype=dtype).to(device), per_chain(n, dtype, device, 0.0625)
    if huge:  # some chains leave the finite numbers at nearly every step
        h[::5] = 2.0**40
    kernel = pf.Langevin(step_size=h, beta=per_chain(n, dtype, device, 2.0))
    run = {"n_steps": 10, "burn_in": 2, "thin": 3, "store": "draws", "seed": 11}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        chains = pf.sample(law(kind, dim), kernel, x, first_step=1, chain_offset=BORDER, **run)
    assert (int(chains.n_nonfinite.sum()) > n) == huge
    assert len(chains.draws) == 3
    return chains.x, chains.draws, chains.log_density, chains.mean, chains.var, chains.n_nonfinite


def markov(move, kind, dim, dtype, device):
    """Steps of a Markov kernel with parameters of few digits, no factorisation among them."""
    run, parameters = MOVES[move]
    n, dense = DIMS[dim], (sixteenths(dim, dim) / 4 + torch.eye(dim)).tril()
    vectors = {"metric": sixteenths(dim) / 2 + 1, "center": sixteenths(dim)}
    x = normal(n, dim, seed=15, dtype=dtype).to(device)
    given = dict(parameters)
    for name in given:
        if name in vectors:
            given[name] = vectors[name].to(dtype).to(device)
    if given.get("dense"):
        given.pop("dense")
        given["metric"] = dense.to(dtype).to(device)
        given["metric_transposed"] = dense.mT.contiguous().to(dtype).to(device)
    if run == "underdamped":
        given["velocity"] = normal(n, dim, seed=16, dtype=dtype).to(device)
    if "betas" in given:
        given["betas"] = (1 + torch.arange(5, device=device)).double() / 4
    if given.get("proposal") == 1:
        x = x.abs() + 0.25
    counts = _ops.Counts.zeros(n, x.device)
    draws = torch.zeros(3, n, dim, dtype=dtype, device=device)
    value = torch.zeros(3, n, dtype=dtype, device=device)
    sums = torch.zeros(4, n, dim, dtype=torch.float64, device=device)
    group = torch.zeros((3 * dim + 1) * n, dtype=dtype, device=device)
    _ops.run_chunk(
        run, x, law(kind, dim).native(x), given, seed=17, first_step=3, n_steps=5, chain_offset=BORDER,
        counts=counts.tensors(), steps_done=1, thin=2, draws=draws, log_density=value,
        moments=(x.clone(), *sums[:4], group, 3),
    )  # fmt: skip
    return x, draws, value, *counts.tensors(), sums, group


MOVES = {
    "annealed": ("langevin", {"step_size": 0.0625, "betas": True}),
    "random walk": ("random_walk", {"step_size": 0.375, "beta": 1.5}),
    "random walk, diagonal": ("random_walk", {"step_size": 0.5, "metric": True}),
    "random walk, dense": ("random_walk", {"step_size": 0.5, "dense": True}),
    "log-normal": ("random_walk", {"step_size": 0.5, "proposal": 1}),
    "autoregressive": (
        "random_walk",
        {"metric": True, "center": True, "persistence": 0.75, "proposal": 2},
    ),
    "mala": ("mala", {"step_size": 0.0625, "beta": 0.75}),
    "hmc": ("hmc", {"step_size": 0.125, "n_leapfrog": 3, "jitter": 0.25}),
    "hmc, diagonal": ("hmc", {"step_size": 0.125, "n_leapfrog": 2, "metric": True}),
    "hmc, dense": ("hmc", {"step_size": 0.125, "n_leapfrog": 2, "dense": True}),
    "nuts": ("nuts", {"step_size": 0.25, "max_depth": 3}),
    "nuts, dense": ("nuts", {"step_size": 0.375, "max_depth": 4, "dense": True}),
    "underdamped": ("underdamped", {"step_size": 0.125, "friction": 0.75, "beta": 1.25}),
}
# Moves, and the most coordinates that a thread of a GPU keeps of each.
IN_REGISTERS = {
    "random walk, diagonal": 16,
    "mala": 8,
    "hmc, dense": 4,
    "nuts": 4,
    "underdamped": 4,
}


def in_registers(move, kind, dtype, device):
    """A move with each number of coordinates for which there may be a kernel."""
    for dim in (1, 2, 3, 4, 8, 16):
        if least(kind) <= dim <= min(IN_REGISTERS[move], most(kind)):
            yield from markov(move, kind, dim, dtype, device)


def accept(dim, dtype, device):
    """The second half of a Metropolis-Hastings step, with and without scores."""
    n, where = 70, {"seed": 22, "step": 3, "chain_offset": BORDER}
    x, y, score, next_score = (
        normal(n, dim, seed=s, dtype=dtype).to(device) for s in range(23, 27)
    )
    values, correction = normal(2, n, seed=27, dtype=dtype), normal(1, n, seed=28, dtype=dtype)[0]
    values[1, ::7], values[1, 3::11] = torch.nan, torch.inf
    value, next_value = values.to(device)
    counts = pf.ops.Counts.zeros(n, device)
    sums = torch.zeros(2, n, dim, dtype=torch.float64, device=device)
    more = {"beta": per_chain(n, dtype, device, 2.0), "counts": counts, **where}
    pf.ops.accept_(
        x, y, value, next_value, correction=correction.to(device),
        moments=(x.clone(), sums[0], sums[1]), **more,
    )  # fmt: skip
    yield from (x.clone(), value.clone())
    pf.ops.accept_(
        x, y, value, next_value, score=score, proposed_score=next_score,
        step_size=per_chain(n, dtype, device, 0.5), **more,
    )  # fmt: skip
    yield from (x, value, score, sums, *counts.tensors())


def spins(kernel, shape, in_field, dtypes, device):
    """Sweeps of Ising lattices at 1.5 to 4."""
    n, steps = 35, {"seed": 18, "first_step": 3, "n_steps": 3, "chain_offset": BORDER}
    temperature = 1.5 + torch.arange(n).double() * 5 / 68
    field = sixteenths(n) if in_field else 0.0
    target = lattice.Ising(shape, temperature=temperature, field=field)
    up = pf.random.uniform(n, target.n_sites, seed=19).reshape(n, *shape) < 0.5
    for dtype in dtypes:
        x = torch.where(up, 1, -1).to(device, dtype)
        kernel.advance(x, target, **steps)
        yield x


def field(move, shape, dtype, device, more=None):
    """Moves of phi^4 fields, with what they count."""
    n, (size, leaps) = 3, FIELD_MOVES[move]
    target = lattice.Phi4(shape, kappa=(1 + torch.arange(n)) / 16, lam=0.125, field=0.0625)
    x = normal(n, *shape, seed=20, dtype=dtype).to(device)
    accepted, squares = torch.zeros(2, n, dtype=torch.float64, device=device)
    bad = torch.zeros(n, dtype=torch.int64, device=device)
    sums = {"accepted": accepted, "accepted_squares": squares} if leaps else {}
    phi4_run(
        move, x, target.native_parameters(x), size, n_leapfrog=max(1, leaps), n_nonfinite=bad,
        seed=21, first_step=3, n_steps=3, chain_offset=BORDER, **sums, **(more or {}),
    )  # fmt: skip
    return x, accepted, squares, bad, target.log_density(x), target.score(x)


SPIN_MOVES = {
    "metropolis": lattice.Metropolis(),
    "heat bath": lattice.HeatBath(),
    "swendsen-wang": lattice.SwendsenWang(),
    "wolff": lattice.Wolff(),
}
# A size, and the leapfrog steps; zero where nothing is accepted as a whole.
FIELD_MOVES = {
    "langevin": (0.03125, 0),
    "mala": (0.03125, 1),
    "hmc": (0.125, 4),
    "metropolis": (1, 0),
}


def commit(dim, dtype, device):
    x, proposed = (normal(70, dim, seed=s, dtype=dtype) for s in (12, 13))
    proposed[::7, dim // 2], proposed[3::11, 0] = torch.nan, -torch.inf
    x, proposed = x.to(device), proposed.to(device)
    counts = torch.zeros(70, dtype=torch.int64, device=device)
    sums = torch.zeros(2, 70, dim, dtype=torch.float64, device=device)
    pf.ops.commit_(x, proposed, counts, (x.clone(), sums[0], sums[1]))
    return x, counts, sums


def pooled(dim, dtype, device):
    """Sums over the chains of three states, whose groups begin in the middle."""
    x = normal(3300, dim, seed=29, dtype=dtype).reshape(3, 1100, dim).to(device)
    shift = (sixteenths(dim) / 4).to(device)
    for products in ("none", "squares", "all"):
        total = torch.ones(_ops.width_of(dim, products), dtype=torch.float64, device=device)
        yield _ops.add_chain_sums_(total, x, shift=shift, products=products, chain_offset=BORDER)


def sketch(dim, dtype, device):
    """A histogram of numbers near the centre and far from it."""
    x = normal(600, dim, seed=30, dtype=dtype)
    x[::7] *= 2.0**20
    x[::11] *= 2.0**40
    counts = torch.zeros(1, dim, _ops.SKETCH_BINS, dtype=torch.int64, device=device)
    ends = torch.tensor([2**62, -(2**62)], device=device).repeat(1, dim, 1)
    scale = (sixteenths(dim) + 1.5).to(device)
    centre = sixteenths(dim).to(device)
    _ops.count_in_bins_(counts, ends, x.to(device), centre=centre, inverse_scale=scale)
    return counts, ends


def mathematics(name, dtype, device):
    x = normal(1, 999, seed=14, dtype=dtype)[0] * 8
    x[::9] = torch.nan if name in ("log", "log1p") else 0.625
    return [_ops.elementwise_math(name, x.to(device))]


def least(kind):
    return 2 if kind in (Kind.BANANA, Kind.FUNNEL, Kind.RING) else 1


def most(kind):
    return 2 if kind == Kind.RING else max(DIMS)


def cases():
    found = {}
    for short, dtype in DTYPES.items():
        for name in ("normal", "uniform"):
            for start, offset in ((0, 0), (3, BORDER), (2**34 - 5, 5), (2**33 - 6, 2**40 - 9)):
                key = f"{name} {short} from {start} of chain {offset}"
                found[key] = partial(fill, name, dtype, start, offset)
        for call in (langevin, diffuse, reverse_step):
            for event in ((1,), (3,), (67,), (3, 8, 8)):
                found[f"{call.__name__} {short} {event}"] = partial(update, call, event, dtype)
        for kind in Kind:
            for dim in DIMS:
                if least(kind) <= dim <= most(kind):
                    key = f"native {kind.name.lower()} {short} {dim}"
                    found[key] = partial(native, kind, dim, dtype)
        found[f"many chains {short} 2"] = partial(native, Kind.RING, 2, dtype, n_chains=300)
        found[f"many chains {short} 5"] = partial(native, Kind.BANANA, 5, dtype, n_chains=300)
        for kind in (Kind.GAUSSIAN_DENSE, Kind.MIXTURE_ISOTROPIC, Kind.DOUBLE_WELL):
            for dim in (2, 5, 33):
                key = f"sample {kind.name.lower()} {short} {dim}"
                found[key] = partial(sample, kind, dim, dtype)
        for dim in (1, 3, 8, 33):
            key = f"non-finite {short} {dim}"
            found[key] = partial(sample, Kind.DOUBLE_WELL, dim, dtype, huge=True)
            found[f"commit {short} {dim}"] = partial(commit, dim, dtype)
        for move in MOVES:
            for kind in (Kind.GAUSSIAN_DENSE, Kind.MIXTURE_ISOTROPIC, Kind.DOUBLE_WELL):
                for dim in (2, 5, 33):
                    key = f"{move} {kind.name.lower()} {short} {dim}"
                    found[key] = partial(markov, move, kind, dim, dtype)
        for dim in (1, 2, 3, 4, 5, 8, 33):
            found[f"accept {short} {dim}"] = partial(accept, dim, dtype)
        for dim in (1, 2, 4, 5, 33):
            found[f"pooled {short} {dim}"] = partial(pooled, dim, dtype)
            found[f"sketch {short} {dim}"] = partial(sketch, dim, dtype)
        found[f"phi^4 hmc {short} with jitter"] = partial(
            field, "hmc", (6, 10), dtype, more={"jitter": 0.25}
        )
        for move in FIELD_MOVES:
            for shape in ((38,), (6, 10), (4, 2, 6), (2, 4, 2, 6)):
                found[f"phi^4 {move} {short} {shape}"] = partial(field, move, shape, dtype)
        for name in _ops.MATH_FUNCTIONS:
            found[f"{name} {short}"] = partial(mathematics, name, dtype)
    for move in IN_REGISTERS:
        for kind in Kind:
            key = f"in registers: {move} {kind.name.lower()}"
            found[key] = partial(in_registers, move, kind, torch.float32)
    for name, kernel in SPIN_MOVES.items():
        for shape in ((6, 10), (16, 12), (4, 2, 6)):
            for in_field in (False, True):
                key = f"ising {name} {shape}{' in a field' * in_field}"
                found[key] = partial(spins, kernel, shape, in_field, (torch.int8, torch.float32))
        for shape in ((6, 10), (4, 2, 6)):
            key = f"ising {name} {shape} of other types"
            found[key] = partial(spins, kernel, shape, False, (torch.float16, torch.float64))
    return found


CASES = cases()
