# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels of the Ising model, interpreted, against the CPU bit for bit."""

import ctypes
from ctypes import c_bool, c_int32, c_int64, c_uint32, c_uint64

import pytest
import torch

import pushforward as pf
from ptx.calls import SEED, Call, S, entry, needs_sources, same
from ptx.structs import functor
from pushforward._ops.arguments import BatchMoments
from pushforward._ops.lattice import ising_sweeps

pytestmark = needs_sources

THREADS, LAW_BYTES = 384, 192  # kSpinThreads and kLawBytes of csrc/backend/cuda_spin*.cuh
FIRST, DONE = 7, 3  # steps before, and how many of them the sums have recorded
# The word of up, without which the top bit is that of down, and the type of the words in C++.
WORDS = {
    torch.int8: (0x01, ctypes.c_uint8, "unsigned char"),
    torch.bfloat16: (0x3F80, ctypes.c_uint16, "unsigned short"),
    torch.float16: (0x3C00, ctypes.c_uint16, "unsigned short"),
    torch.float32: (0x3F800000, c_uint32, "unsigned int"),
    torch.float64: (0x3FF0000000000000, c_uint64, "unsigned long"),
}


def masks(dims, symmetric, heat_bath):
    """How many comparisons a site needs, and the IsingMasks of csrc/kernels/ising.hpp."""
    of_class, class_of = (c_int32 * 7)(), (c_int32 * 7)()
    count = 0
    for k in range(2 * dims + 1):
        mirrored = 2 * dims - k if symmetric and k > dims else k
        if symmetric and not heat_bath and k == dims:
            continue
        if mirrored < k:
            of_class[k] = of_class[mirrored]
        else:
            class_of[count], of_class[k] = k, count
            count += 1
    return count, functor(c_int32(count), of_class, class_of)


class Sweeps:
    """The calls of sweep_spins in csrc/backend/cuda_spins.cuh on a state, in place."""

    def __init__(self, x, law, *, no_field, heat_bath, offset, n_steps, accepted, moments):
        self.call, self.moments = Call(x.dtype), moments
        shape = x.shape[1:]
        self.dims, self.n, self.sites = len(shape), len(x), shape.numel()
        up, word, self.word = WORDS[x.dtype]
        down = up | 1 << (8 * x.itemsize - 1) if x.dtype != torch.int8 else 0xFF
        sizes = (c_int64 * 4)(*shape, *[1] * (4 - self.dims))
        self.shape = S["LatticeShape"](self.dims, sizes, self.sites)
        self.spins = functor(
            c_uint64(self.call.at(x)), word(up), word(down), c_int64(self.n), self.shape
        )
        n_masks, of_law = masks(self.dims, no_field, heat_bath)
        parameters = (self.call.per_chain(law[name]) for name in ("temperature", "field"))
        self.model = functor(*parameters, c_bool(heat_bath), of_law)
        key = [(SEED & 0xFFFFFFFF, 0x9E3779B9), (SEED >> 32, 0xBB67AE85)]
        self.noise = functor(
            *((c_uint32 * 10)(*(k + step * i & 0xFFFFFFFF for i in range(10))) for k, step in key),
            *map(c_uint64, (offset, FIRST * self.sites, self.sites)),
            c_uint32(pf.random.PURPOSES["site"]),
        )
        self.words = shape[:-1].numel() * -(-shape[-1] // 32)
        planes = 2 + n_masks + 8 * (moments is not None)
        self.bytes = LAW_BYTES + -(-planes * self.words // 2) * 8
        sums = [*map(self.call.at, moments[:5]), moments.batch] if moments else []
        self.n_steps = n_steps
        self.sums = functor(S["Moments"](*sums), c_int64(DONE), c_int64(n_steps), self.spins)
        self.counts_turned = accepted is not None
        pointers = (0, 0) if accepted is None else map(self.call.at, accepted)
        self.shares = functor(*map(c_uint64, pointers), ctypes.c_double(self.sites))

    def entry(self, name, *, of_words=True):
        types = f"IsingModel<{self.dims}>" + (f", {self.word}>" if of_words else " >")
        return entry("ising", f"::{name}", types)

    def in_shared_memory(self):
        """A block a lattice."""
        turns = -(-self.words // THREADS)
        block = -(-self.words // (turns * 32)) * 32
        before = [self.spins, self.model, self.noise, c_int64(self.n_steps), self.shares]
        run = self.entry("spins_kernel<")
        self.call.launch(run, self.n, before, self.sums, shared=self.bytes, block=block)

    def in_workspace(self, words_a_block):
        """Two launches a sweep, of blocks that share a lattice."""
        memory = torch.full((self.n * self.bytes,), 0xA5, dtype=torch.uint8)
        blocks = -(-self.words // words_a_block)
        space = functor(
            c_uint64(self.call.at(memory)), c_int64(self.bytes), c_int64(blocks),
            c_uint32(words_a_block),
        )  # fmt: skip

        def run(kernel, *arguments):
            *before, last = arguments
            self.call.launch(
                kernel, self.n * blocks, [space, *before], last, shared=16, block=THREADS
            )

        run(self.entry("pack_kernel<"), self.spins, self.model)
        first = self.entry("first_half_kernel<", of_words=False)
        second = self.entry("second_half_kernel<", of_words=False)
        counted = 0
        for k in range(self.n_steps):
            run(first, self.shape, self.model, self.shares, self.noise, c_int64(k))
            counted += self.moments is not None
            run(second, self.shape, self.model, c_bool(self.counts_turned), c_int32(counted))
            if self.moments is None:
                continue
            last, batch = k + 1 == self.n_steps, self.moments.batch
            begins, ends = ((DONE + k + 1 - n) % batch == 0 for n in (counted, 0))
            if ends or counted == 255 or last:
                states = functor(c_int32(counted), c_bool(begins), c_bool(ends), c_bool(last))
                run(self.entry("counts_kernel<"), self.shape, self.model, self.sums, states)
                counted = 0
        run(self.entry("unpack_kernel<"), self.spins, self.shares, self.model)


def check(shape, dtype, *, no_field, heat_bath, n_steps, batch=0, words_a_block=None):
    """Sweeps of some lattices here and on the CPU: in shared memory, or in a workspace."""
    n, offset = 3, 2**32 - 2  # so that chains carry into the upper word
    up = pf.random.uniform(n, torch.Size(shape).numel(), seed=1) < 0.5
    start = torch.where(up, 1, -1).reshape(n, *shape).to(dtype)
    law = {
        "temperature": torch.linspace(1.5, 3.5, n, dtype=torch.float64),
        "field": torch.full((), 0.0 if no_field else 0.25, dtype=torch.float64),
    }
    how = {"no_field": no_field, "heat_bath": heat_bath}

    def state():
        sums = [
            (torch.arange(start.numel()) % 9 - s).double().reshape(start.shape) for s in range(4)
        ]
        return start.clone(), BatchMoments(
            start.flip(0).contiguous(), *sums, None, batch
        ) if batch else None

    def shares():
        return None if heat_bath else torch.full((2, n), 0.25, dtype=torch.float64)

    (x, moments), accepted = ours, our_shares = state(), shares()
    ising_sweeps(
        x, **law, **how, seed=SEED, first_step=FIRST, n_steps=n_steps, chain_offset=offset,
        moments=moments, steps_done=DONE,
        **({} if heat_bath else {"accepted": accepted[0], "accepted_squares": accepted[1]}),
    )  # fmt: skip
    (x, moments), accepted = theirs, their_shares = state(), shares()
    sweeps = Sweeps(
        x, law, **how, offset=offset, n_steps=n_steps, accepted=accepted, moments=moments
    )
    if words_a_block is None:
        sweeps.in_shared_memory()
    else:
        sweeps.in_workspace(words_a_block)
    assert not same(x, start)
    assert same(ours[0], x)
    if not heat_bath:
        assert (our_shares > 0.25).all()
        assert same(our_shares, their_shares)
    if batch:
        assert all(same(a, b) for a, b in zip(ours[1][1:5], theirs[1][1:5], strict=True))


# Rows that fill their words and rows that do not; as many threads as words, more, and fewer.
SHAPES = [(4, 64), (6, 10), (2, 2, 34), (4, 4, 32), (8, 1700)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heat_bath", [False, True])
@pytest.mark.parametrize("no_field", [False, True])
def test_sweeps_in_shared_memory(shape, heat_bath, no_field):
    check(shape, torch.float32, no_field=no_field, heat_bath=heat_bath, n_steps=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heat_bath", [False, True])
@pytest.mark.parametrize("no_field", [False, True])
def test_sweeps_in_the_workspace(shape, heat_bath, no_field):
    check(shape, torch.float32, no_field=no_field, heat_bath=heat_bath, n_steps=2,
          words_a_block=THREADS)  # fmt: skip


def test_a_thread_of_the_workspace_takes_some_words():
    check((26, 2100), torch.int8, no_field=True, heat_bath=True, n_steps=1,
          words_a_block=4 * THREADS)  # fmt: skip


@pytest.mark.parametrize("dtype", WORDS)
@pytest.mark.parametrize(("shape", "n_steps", "batch"), [((4, 6), 7, 4), ((2, 2, 34), 3, 100)])
@pytest.mark.parametrize("words_a_block", [None, THREADS])
def test_sums_of_spins(dtype, shape, n_steps, batch, words_a_block):
    check(shape, dtype, no_field=False, heat_bath=True, n_steps=n_steps, batch=batch,
          words_a_block=words_a_block)  # fmt: skip


@pytest.mark.parametrize("words_a_block", [None, THREADS])
def test_more_states_than_are_counted_at_once(words_a_block):
    check((2, 2), torch.int8, no_field=False, heat_bath=False, n_steps=300, batch=1000,
          words_a_block=words_a_block)  # fmt: skip
