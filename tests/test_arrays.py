# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries as states of the ops."""

import contextlib
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward._ops import arrays

STEP = {"step_size": 0.1, "seed": 3, "step": 2}
TARGET = pf.targets.Gaussian(torch.zeros(3), scale=torch.ones(3))


def pair(dtype=np.float32):
    x = np.linspace(-1, 1, 15).reshape(5, 3).astype(dtype)
    return x, torch.from_numpy(x.copy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(dtype):
    x, t = pair(dtype)
    got = pf.ops.langevin(x, -x, **STEP)
    assert type(got) is np.ndarray
    assert got.dtype == dtype
    assert got.flags.writeable
    assert np.array_equal(got, pf.ops.langevin(t, -t, **STEP).numpy())
    value, score = pf.ops.log_density_and_score(x, TARGET)
    assert type(value) is type(score) is np.ndarray
    assert np.array_equal(score, TARGET.score(t).numpy())


def test_in_place_writes_the_memory_of_the_array():
    x, t = pair()
    score = -x
    assert pf.ops.langevin_(x, score, **STEP) is x
    assert np.array_equal(x, pf.ops.langevin_(t, -t, **STEP).numpy())
    assert pf.ops.langevin_run_(x, TARGET, step_size=0.1, n_steps=5, seed=1) is x
    expected = pf.ops.langevin_run_(t, TARGET, step_size=0.1, n_steps=5, seed=1)
    assert np.array_equal(x, expected.numpy())


def test_out_and_arrays_as_coefficients():
    x, t = pair()
    out = np.empty_like(x)
    h = np.linspace(0.1, 0.5, 5, dtype=np.float32)
    step = {"seed": 3, "step": 2}
    assert pf.ops.langevin(x, -x, step_size=h, out=out, **step) is out
    expected = pf.ops.langevin(t, -t, step_size=torch.from_numpy(h), **step)
    assert np.array_equal(out, expected.numpy())


def test_commit_takes_arrays():
    x, _ = pair()
    proposed, bad = x + 1, np.zeros(5, dtype=np.int64)
    proposed[2, 1] = np.nan
    pf.ops.commit_(x, proposed, bad)
    assert bad.tolist() == [0, 0, 1, 0, 0]
    assert np.isfinite(x).all()
    taken, kept = np.zeros(5, np.uint8), np.zeros_like(x)
    assert pf.ops.commit_(x, proposed, bad, taken=taken, kept=kept) is x
    assert taken.tolist() == [1, 1, 0, 1, 1]
    assert np.array_equal(kept[3], proposed[3])
    assert not kept[2].any()


def test_accept_takes_arrays():
    x, t = pair()
    value, counts = np.zeros(len(x), np.float32), pf.ops.Counts.zeros(len(x))
    taken, step = np.zeros(len(x), np.uint8), {"seed": 0, "step": 0, "counts": counts}
    assert pf.ops.accept_(x, x + 1, value, value + 5, **step, taken=taken) is x
    assert taken.all()
    assert np.array_equal(x, (t + 1).numpy())
    assert value.tolist() == [5.0] * len(x)
    value.flags.writeable = False
    with pytest.raises(ValueError, match=r"log_density: expected an array that can be written to"):
        pf.ops.accept_(x, x + 1, value, value + 5, seed=0, step=0, counts=counts)
    with pytest.raises(TypeError, match=r"missing .*argument: 'seed'"):
        pf.ops.accept_(x, x + 1, value, value + 5, step=0, counts=counts)


def test_read_only_memory():
    x, t = pair()
    x.flags.writeable = False
    assert np.array_equal(pf.ops.langevin(x, -t.numpy(), **STEP), pf.ops.langevin(t, -t, **STEP))
    with pytest.raises(ValueError, match=r"x: expected an array that can be written to"):
        pf.ops.langevin_(x, -t.numpy(), **STEP)


def probe(x, out=None):
    """An op that says where its tensors lie."""
    result = x.clone() if out is None else out.copy_(x)
    probe.seen = x.data_ptr(), result.data_ptr()
    return result


def test_memory_is_shared_and_not_copied():
    x, _ = pair()
    got = arrays.takes_arrays(probe)(x)
    assert probe.seen == (x.ctypes.data, got.ctypes.data)
    out = np.empty_like(x)
    assert arrays.takes_arrays(probe)(x, out=out) is out
    assert probe.seen == (x.ctypes.data, out.ctypes.data)


# ---- libraries -----------------------------------------------------------------------------------


class Bare:
    """An array of a library older than the array API standard: DLPack and nothing else."""

    def __init__(self, memory):
        self.memory = memory

    def __dlpack__(self, **options):
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.memory.__dlpack_device__()


@pytest.fixture
def bare(monkeypatch):
    """The type, as one of a library of its own."""
    library = ModuleType("oldlibrary")
    library.from_dlpack = lambda t: Bare(torch.from_dlpack(t))
    monkeypatch.setitem(sys.modules, "oldlibrary", library)
    monkeypatch.setattr(Bare, "__module__", "oldlibrary.core.arrays")
    return Bare


def test_a_library_without_the_standards_method(bare):
    x, t = pair()
    ours = torch.from_numpy(x)
    got = pf.ops.langevin(bare(ours), -t, **STEP)
    assert type(got) is bare
    assert torch.equal(got.memory, pf.ops.langevin(t, -t, **STEP))
    value, score = pf.ops.log_density_and_score(bare(ours), TARGET)
    assert type(value) is type(score) is bare
    got = arrays.takes_arrays(probe)(bare(ours))
    assert probe.seen == (ours.data_ptr(), got.memory.data_ptr())
    state = bare(ours)
    assert pf.ops.langevin_(state, -t, **STEP) is state
    assert torch.equal(ours, pf.ops.langevin_(t, -t, **STEP))


def test_the_standards_method_goes_first(bare, monkeypatch):
    standard = ModuleType("standard")
    standard.from_dlpack = lambda t: ("standard", t)
    monkeypatch.setattr(bare, "__array_namespace__", lambda self: standard, raising=False)
    _, t = pair()
    assert pf.ops.langevin(bare(t), -t, **STEP)[0] == "standard"


def test_a_library_that_cannot_take_results_is_named(bare, monkeypatch):
    _, t = pair()
    state = bare(t)
    monkeypatch.delattr(sys.modules["oldlibrary"], "from_dlpack")
    with pytest.raises(TypeError, match=r"^x: expected .* from_dlpack, got a oldlibrary.core.ar"):
        pf.ops.langevin(state, -t, **STEP)
    monkeypatch.delitem(sys.modules, "oldlibrary")
    with pytest.raises(TypeError, match=r"^x: expected .* from_dlpack"):
        pf.ops.score(state, TARGET)
    assert pf.ops.langevin_(state, -t, **STEP) is state  # which gives nothing new back


class Stream:
    def __init__(self):
        self.waits_for = []

    def wait_stream(self, other):
        self.waits_for.append(other)


@pytest.mark.parametrize("capturing", [False, True])
@pytest.mark.parametrize("aside", [False, True])
def test_the_default_stream_waits_for_another(aside, capturing, monkeypatch):
    default = Stream()
    current = Stream() if aside else default
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: default)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)

    class OnGpu:
        device = torch.device("cuda", 0)

    arrays._hand_back([OnGpu(), torch.zeros(1), OnGpu()])
    assert default.waits_for == ([current] if aside and not capturing else [])


def test_every_array_is_handed_back(monkeypatch):
    handed = []
    monkeypatch.setattr(arrays, "_hand_back", lambda tensors: handed.append(len(tensors)))
    x, t = pair()
    h = np.full(5, 0.1, np.float32)
    out = np.empty_like(x)
    pf.ops.langevin(x, -x, step_size=h, out=out, seed=3, step=2)
    pf.ops.langevin_(t, -x, **STEP)
    pf.ops.commit_(t, t + 1, np.zeros(5, np.int64), (x, *(np.zeros((5, 3)) for _ in "ab")))
    assert handed == [4, 1, 4]


JAX = """
import jax, numpy as np, torch, pushforward as pf
from pushforward._ops import arrays
step = {"step_size": 0.1, "seed": 3, "step": 2}
x = np.linspace(-1, 1, 15).reshape(5, 3).astype(np.float32)
array, t = jax.numpy.asarray(x), torch.from_numpy(x.copy())
got = pf.ops.langevin(array, -array, **step)
assert isinstance(got, jax.Array)
assert np.array_equal(np.asarray(got), pf.ops.langevin(t, -t, **step).numpy())
try:
    pf.ops.langevin_(array, -array, **step)
except ValueError as error:
    assert "x: expected an array that can be written to" in str(error)
else:
    raise AssertionError("an array of JAX was written to")
assert np.array_equal(np.asarray(array), x)

def probe(x):
    result = x.clone()
    seen.extend((x.data_ptr(), result.data_ptr()))
    return result

seen = []
got = arrays.takes_arrays(probe)(array)
assert seen == [array.unsafe_buffer_pointer(), got.unsafe_buffer_pointer()], "a copy was made"
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
def test_jax_in_jax_out():
    """In a process of its own: JAX's threads would stay, and other tests fork."""
    done = subprocess.run([sys.executable, "-c", JAX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [np.int32, np.complex64, np.bool_, object, "U3"])
def test_other_types_are_refused(dtype):
    x = np.zeros((4, 3)).astype(dtype)
    with pytest.raises(TypeError, match=r"^x: expected"):
        pf.ops.langevin(x, x, **STEP)


def test_strided_and_mixed_arrays():
    x, t = pair()
    assert np.array_equal(
        pf.ops.langevin(x[::2], -t[::2], **STEP), pf.ops.langevin(t[::2], -t[::2], **STEP).numpy()
    )
    with pytest.raises(ValueError, match=r"contiguous"):
        pf.ops.langevin_(x[:, ::2], -t[:, ::2], **STEP)


def test_arrays_that_run_backwards():
    x, _ = pair()
    h = np.linspace(0.1, 0.5, len(x), dtype=np.float32)
    for turned in (x[::-1], x[:, ::-1]):
        forwards = turned.copy()
        got = pf.ops.langevin(turned, -turned, **{**STEP, "step_size": h[::-1]})
        want = pf.ops.langevin(forwards, -forwards, **{**STEP, "step_size": h[::-1].copy()})
        assert np.array_equal(got, want)
        for write in (
            lambda to: pf.ops.langevin_(to, -x, **STEP),
            lambda to: pf.ops.langevin(x, -x, out=to, **STEP),
            lambda to: pf.random.normal(*x.shape, seed=1, out=to),
        ):
            with pytest.raises(ValueError, match=r"^(x|out): .* runs forwards"):
                write(turned)


def test_arrays_beside_a_tensor():
    x, t = pair()
    h = np.linspace(0.1, 0.5, 5, dtype=np.float32)
    got = pf.ops.langevin(t, -x, step_size=h, seed=3, step=2)
    assert type(got) is torch.Tensor
    assert torch.equal(got, pf.ops.langevin(t, -t, step_size=torch.from_numpy(h), seed=3, step=2))
    assert pf.ops.langevin(t.requires_grad_(), -x, **STEP).requires_grad
    t = t.detach()
    out = np.empty_like(x)
    assert pf.ops.langevin(t, -t, out=out, **STEP) is out
    assert np.array_equal(out, pf.ops.langevin(t, -t, **STEP).numpy())
    with pytest.raises(TypeError, match=r"^score: expected"):
        pf.ops.langevin(t, [1.0], **STEP)


@pytest.mark.parametrize("to", [torch.as_tensor, np.asarray])
def test_moments_may_be_arrays(to):
    x, t = pair()
    sums, expected = [np.zeros((5, 3)) for _ in "ab"], [torch.zeros(5, 3).double() for _ in "ab"]
    bad = np.zeros(5, dtype=np.int64)
    pf.ops.commit_(to(x), to(x + 1), to(bad), (to(x.copy()), *sums))
    pf.ops.commit_(t, t + 1, torch.from_numpy(bad), (t.clone(), *expected))
    assert sums[0].sum() > 0
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(sums, expected, strict=True))
    sums[0].flags.writeable = False
    with pytest.raises(ValueError, match="moments: expected an array that can be written to"):
        pf.ops.commit_(to(x), to(x + 1), to(bad), (to(x.copy()), *sums))


@pytest.mark.parametrize("draw", [pf.random.normal, pf.random.uniform])
def test_noise_into_an_array(draw):
    out = np.empty((4, 7))
    assert draw(4, 7, seed=1, out=out) is out
    assert np.array_equal(out, draw(4, 7, seed=1, dtype=torch.float64).numpy())
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected an array that can be written to"):
        draw(4, 7, seed=1, out=out)
    with pytest.raises(ValueError, match="out: expected shape"):
        draw(4, 8, seed=1, out=np.empty((4, 7)))


def test_arrays_where_none_are_taken_are_named():
    x, law = np.zeros((3, 2), dtype=np.float32), pf.targets.Ring()
    y = torch.zeros(3, 2)
    with pytest.raises(TypeError, match="step_size"):
        pf.ops.langevin_(y, -y, step_size=(np.array(0.1),), seed=0, step=0)
    with pytest.raises(TypeError, match="x"):
        pf.ops.log_density((x,), law)


def test_modes_that_look_at_ops_see_them():
    from torch.fx.experimental.proxy_tensor import make_fx

    def step(x):
        return pf.ops.langevin(x, -x, step_size=0.1, seed=0, step=0)

    x = torch.ones(3, 2)
    assert torch.equal(make_fx(step)(x)(x), step(x))


def test_sums_have_no_derivative_under_transforms():
    def summed(x):
        return pf._ops.add_chain_sums_(torch.zeros(2).double(), x[None]).sum()

    with pytest.raises(ValueError, match=r"torch\.func"):
        torch.func.grad(summed)(torch.ones(3, 2))
