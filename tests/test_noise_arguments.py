# SPDX-License-Identifier: Apache-2.0
"""What the noise functions take: out, bad arguments, purposes, seeds and seeds made from seeds."""

import numpy as np
import pytest
import torch

import pushforward as pf
from noise_reference import DTYPES, FLOAT32, FLOAT64, SEED, philox
from pushforward._ops import arguments

# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_out_is_filled_and_nothing_else(law, dtype):
    function = getattr(pf.random, law)
    for rows, n in ((1, 1), (3, 5), (17, 3), (5, 33), (33, 1), (7, 130)):
        buffer = torch.full((rows * n + 200,), -7.0, dtype=dtype)
        out = buffer[100 : 100 + rows * n].view(rows, n)
        assert function(rows, n, seed=3, start=1, out=out) is out
        assert torch.equal(out, function(rows, n, seed=3, start=1, dtype=dtype))
        assert (buffer[:100] == -7).all()
        assert (buffer[100 + rows * n :] == -7).all()


def test_out_decides_the_type():
    out = torch.empty(2, 3, dtype=FLOAT64)
    got = pf.random.normal(2, 3, seed=0, dtype=FLOAT32, out=out)
    assert torch.equal(got, pf.random.normal(2, 3, seed=0, dtype=FLOAT64))


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (torch.empty(3, 2), ValueError),
        (torch.empty(6), ValueError),
        (torch.empty(3, 2).T, ValueError),
        (torch.empty(2, 6)[:, ::2], ValueError),
        (torch.empty(2, 3, dtype=torch.int64), TypeError),
        (torch.empty(2, 3, dtype=torch.complex64), TypeError),
        (torch.empty(2, 3, requires_grad=True), ValueError),
        (np.empty((2, 3), np.int32), TypeError),
        ([[0.0] * 3] * 2, TypeError),
    ],
)
def test_bad_out_is_refused(out, error):
    with pytest.raises(error, match=r"out|grad"):
        pf.random.normal(2, 3, seed=0, out=out)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [pf.random.normal, pf.random.uniform])
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_chains", -1, ValueError),
        ("n_chains", 1.0, TypeError),
        ("n_chains", True, TypeError),
        ("n", -3, ValueError),
        ("n", "4", TypeError),
        ("seed", -1, ValueError),
        ("seed", 2**63, ValueError),
        ("seed", 0.5, TypeError),
        ("seed", True, TypeError),
        ("start", -1, ValueError),
        ("start", 2**63 - 1, ValueError),
        ("start", 2**70, ValueError),
        ("start", 1.5, TypeError),
        ("start", "0", TypeError),
        ("chain_offset", -1, ValueError),
        ("chain_offset", 2**56 - 1, ValueError),
        ("chain_offset", 2**80, ValueError),
        ("chain_offset", 0.0, TypeError),
        ("purpose", "nonsense", ValueError),
        ("dtype", torch.complex64, TypeError),
        ("dtype", torch.int64, TypeError),
    ],
)
def test_bad_arguments_are_named(function, name, value, error):
    arguments = {"n_chains": 2, "n": 3, "seed": 0, name: value}
    with pytest.raises(error, match=rf"^{name}: expected"):
        function(**arguments)


def test_table_of_purposes_is_frozen():
    # Version 1 of the contract: numbers are never reused and never change.
    assert pf.random.CONTRACT_VERSION == 1
    first = ["user", "proposal", "accept", "swap", "init", "target", "forward", "reverse",
             "momentum", "tree", "site", "adaptation", "data", "choice", "fold",
             "time"]  # fmt: skip
    codes = list(pf.random.PURPOSES.items())
    assert codes[:16] == [(name, code) for code, name in enumerate(first)]
    assert len(set(pf.random.PURPOSES.values())) == len(codes)
    assert all(0 <= code < 256 for _, code in codes)
    with pytest.raises(TypeError, match="assignment"):
        pf.random.PURPOSES["user"] = 3


# ---- seeds ---------------------------------------------------------------------------------------


def test_fold_in_is_the_words_of_its_counter():
    for seed, i in ((0, 0), (1, 2), (SEED, 2**32), (2**63 - 1, 2**64 - 1), (5, 2**40 + 3)):
        words = philox(i & 0xFFFFFFFF, i >> 32, 0, 14 << 24, seed).tolist()
        assert pf.random.fold_in(seed, i) == (words[1] << 32 | words[0]) >> 1


@pytest.mark.parametrize(
    ("seed", "i", "child"),
    [
        (0, 0, 8598506330117200041),
        (0, 1, 1474003972647097562),
        (1, 0, 1657544811108556662),
        (2**63 - 1, 2**64 - 1, 6427341965701147265),
    ],
)
def test_fold_in_golden_values(seed, i, child):
    assert pf.random.fold_in(seed, i) == child  # version 1 of the contract


@pytest.mark.parametrize(
    ("seed", "i", "error", "name"),
    [
        (-1, 0, ValueError, "seed"),
        (2**63, 0, ValueError, "seed"),
        (1.0, 0, TypeError, "seed"),
        (0, -1, ValueError, "i"),
        (0, 2**64, ValueError, "i"),
        (0, 1.0, TypeError, "i"),
        (0, True, TypeError, "i"),
    ],
)
def test_fold_in_names_bad_arguments(seed, i, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        pf.random.fold_in(seed, i)


def test_seed_from_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = pf.random.resolve_seed(None), pf.random.resolve_seed(None)
        z = pf.random.normal(2, 2)
        torch.manual_seed(3)
        assert pf.random.resolve_seed(None) == first
        assert pf.random.resolve_seed(None) == second
        assert torch.equal(pf.random.normal(2, 2), z)
        torch.manual_seed(4)
        assert pf.random.resolve_seed(None) != first
    assert first != second
    assert 0 <= first < 2**63
    assert type(first) is int


def test_seed_from_a_generator():
    def seeds(start):
        generator = torch.Generator().manual_seed(start)
        return [pf.random.resolve_seed(generator) for _ in range(3)]

    assert seeds(1) == seeds(1)
    assert len(set(seeds(1) + seeds(2))) == 6
    z = pf.random.normal(2, 2, seed=torch.Generator().manual_seed(1))
    assert torch.equal(z, pf.random.normal(2, 2, seed=seeds(1)[0]))


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, np.int64(7), np.uint8(3)])
def test_seed_as_an_integer(seed):
    assert pf.random.resolve_seed(seed) == int(seed)
    assert torch.equal(pf.random.normal(1, 4, seed=seed), pf.random.normal(1, 4, seed=int(seed)))


@pytest.mark.parametrize("seed", ["1", 1.0, [1], True, np.float64(1)])
def test_seed_of_another_type(seed):
    with pytest.raises(TypeError, match=r"^seed: expected"):
        pf.random.resolve_seed(seed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there(device):
    with pytest.raises(RuntimeError, match=f"device: got {device}, but .* CUDA (backend|device)"):
        pf.random.normal(2, 2, seed=0, device=device)


@pytest.mark.parametrize(("there_are", "said"), [(1, "1 CUDA device here"), (4, "4 CUDA devices")])
def test_a_device_with_too_large_a_number_is_named(there_are, said, monkeypatch):
    monkeypatch.setattr(arguments, "DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there_are)
    with pytest.raises(ValueError, match=f"^device: got cuda:7, but torch finds {said}"):
        pf.random.normal(2, 3, seed=0, device="cuda:7")
    last = torch.device("cuda", there_are - 1)
    for device in (torch.device("cuda"), last):
        arguments.check_device(device, "device")
