# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is written is read; damaged, foreign and malformed ones are refused; facts."""

import json
import os
import re

import pytest
import safetensors.torch
import torch

import pushforward as pf
from pushforward import checkpoint

FACTS = {"seed": 3, "thin": 2, "step": 0.1, "who": {"kernel": "Langevin", "betas": [1.0, 0.5]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def some_tensors():
    x = pf.random.normal(5, 6, seed=1)
    return {
        "x": x,
        "a view of x": x[1:3],
        "columns": x.T,
        "float64": x.double(),
        "bfloat16": x.bfloat16(),
        "counts": torch.arange(4),
        "flags": x > 0,
        "complex": torch.complex(x, -x),
        "conjugate": torch.complex(x, -x).conj(),
        "scalar": torch.tensor(2.5),
        "empty": x[:0],
        "empty columns": x[:0].T,
        "empty, of odd strides": torch.empty_strided((0, 2), (1, 5)),
        "": torch.ones(1),
        "parameter": torch.nn.Parameter(x),
    }


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_what_is_written_is_read(path):
    tensors = some_tensors()
    before = {name: t.detach().clone() for name, t in tensors.items()}
    checkpoint.write(path, tensors, FACTS)
    found, facts = checkpoint.read(path)
    assert facts == FACTS
    assert found.keys() == tensors.keys()
    assert all(equal(found[name], before[name]) for name in tensors)
    assert all(equal(t.detach(), before[name]) for name, t in tensors.items())
    assert os.listdir(path.parent) == [path.name]
    found["x"].zero_()  # writable, and apart from the others
    assert equal(found["a view of x"], before["a view of x"])


def test_the_file_is_one_that_the_format_s_own_reader_opens(path):
    tensors = some_tensors()
    checkpoint.write(path, tensors, FACTS)
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["facts"]) == FACTS
        assert file.metadata()["noise_contract"] == str(pf.random.CONTRACT_VERSION)
        assert file.metadata()["pushforward"] == pf.__version__
    for name, tensor in safetensors.torch.load_file(path).items():
        assert equal(tensor, tensors[name].detach().resolve_conj())


def test_no_tensors_and_no_facts(path):
    checkpoint.write(str(path), {}, {})
    assert checkpoint.read(str(path)) == ({}, {})


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk" / "real")
    checkpoint.write(path, {}, {"k": 1})
    assert path.is_symlink()
    assert (tmp_path / "disk" / "real").exists()
    assert checkpoint.read(path)[1] == {"k": 1}


# ---- damage --------------------------------------------------------------------------------------


def test_every_damaged_byte_is_found(path):
    checkpoint.write(path, {"x": torch.arange(3.0), "n": torch.arange(2)}, {"seed": 3})
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    used = start - len(good[:start]) + len(good[:start].rstrip(b" "))  # without the padding
    for i in [*range(used), *range(start, len(good))]:
        for flip in (0x01, 0x80):
            path.write_bytes(good[:i] + bytes([good[i] ^ flip]) + good[i + 1 :])
            with pytest.raises(ValueError, match=f"checkpoint {path}: "):
                checkpoint.read(path)
    path.write_bytes(good)
    assert checkpoint.read(path)[1] == {"seed": 3}


def test_without_its_checksum_damage_to_a_number_would_pass(path):
    # The broken twin: the format itself has no checksum, so its reader returns the wrong number.
    checkpoint.write(path, {"x": torch.arange(3.0)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not torch.equal(safetensors.torch.load_file(path)["x"], torch.arange(3.0))
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.read(path)


def test_every_shorter_and_a_longer_file_is_refused(path):
    checkpoint.write(path, {"x": torch.arange(3.0)}, {})
    good = path.read_bytes()
    for content in [*(good[:i] for i in range(len(good))), good + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint {path}: "):
            checkpoint.read(path)


def header(metadata, **tensors):
    text = json.dumps({"__metadata__": metadata, **tensors}).encode()
    return len(text).to_bytes(8, "little") + text


HUGE = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
OURS = {"format": "pushforward.checkpoint", "format_version": "3", "noise_contract": "1",
        "pushforward": "0", "facts": "{}", "sha256": "0"}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut short"),
        (b"PK\x03\x04" + bytes(100), "cut short"),
        ((2**62).to_bytes(8, "little") + b"{}" * 50, "cut short"),
        ((8).to_bytes(8, "little") + b"notjson!", "damaged"),
        ((4).to_bytes(8, "little") + b"[[]]", "damaged"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "damaged"),
        (header({"format": "pt"}), "expected a checkpoint of pushforward"),
        (header({**OURS, "format_version": "2"}), "format version 2, an older .* 0; .* reads 3"),
        (header({**OURS, "format_version": "4"}), "format version 4, a newer .* 0; .* reads 3"),
        (header({**OURS, "format_version": "x"}), "format version is 'x'"),
        (header({**OURS, "format_version": 2}), "its format version is 2"),
        (header(OURS), "SHA-256"),
        (header(OURS, x=HUGE), "expected .* bytes by its header"),
        (header({"format": OURS["format"], "format_version": "3"}), "metadata are incomplete"),
        (header(OURS, x={"dtype": "F64", "shape": [9], "data_offsets": [0, 0]}), "damaged"),
        (header(OURS, x={"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 0]}), "damaged"),
        (header(OURS, x={"dtype": "F99", "shape": [0], "data_offsets": [0, 0]}), "damaged"),
        (header(OURS, x={"data_offsets": [0, "0"]}), "damaged"),
        (header(OURS, x=7), "damaged"),
    ],
)
def test_foreign_files_are_refused_in_words(path, content, words):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)


def test_a_foreign_safetensors_file_is_refused(path):
    safetensors.torch.save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint.read(path)


def test_another_noise_contract_is_refused(path, monkeypatch):
    monkeypatch.setattr(pf.random, "CONTRACT_VERSION", pf.random.CONTRACT_VERSION + 1)
    checkpoint.write(path, {}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected noise contract 1, got 2"):
        checkpoint.read(path)


def test_another_version_of_the_package_is_refused(path):
    checkpoint.write(path, {"x": torch.arange(3.0)}, {"seed": 3})
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)

    def rewrite(**changed):
        described = {**metadata, **changed}
        described["sha256"] = checkpoint._digest(tensors, described)
        safetensors.torch.save_file(tensors, path, described)

    rewrite()
    assert checkpoint.read(path)[1] == {"seed": 3}
    for other in ("0.0.7", f"{pf.__version__}.post1", ""):
        rewrite(pushforward=other)
        words = f"was written by pushforward {other}, this is pushforward {pf.__version__}, "
        with pytest.raises(ValueError, match=re.escape(f"checkpoint {path}: {words}")):
            checkpoint.read(path)
    rewrite(format_version="1")
    with pytest.raises(ValueError, match="is of format version 1, an older one"):
        checkpoint.read(path)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("no/such/folder", FileNotFoundError), ("", IsADirectoryError), ("f" * 300, OSError)],
)
def test_paths_that_cannot_be_written_or_read(tmp_path, name, kind):
    bad = tmp_path / name
    with pytest.raises(kind, match="could not be written") as caught:
        checkpoint.write(bad, {}, {})
    assert str(bad) in str(caught.value)
    with pytest.raises(kind, match="could not be read") as caught:
        checkpoint.read(bad)
    assert str(bad) in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("tensors", "facts", "error", "words"),
    [
        ({"x": 1}, {}, TypeError, "tensors: expected x to be a tensor, got int"),
        ([1], {}, TypeError, "tensors: expected a dict, got list"),
        ({1: torch.ones(1)}, {}, TypeError, "tensors: expected names, got 1"),
        ({"x": torch.ones(1).to_sparse()}, {}, ValueError, "tensors: expected x to have dense"),
        ({"x": torch.ones(1, device="meta")}, {}, ValueError, "got a meta tensor"),
        ({"x": torch.ones(1, dtype=torch.complex128)}, {}, ValueError, "types that safetensors"),
        ({"__metadata__": torch.ones(1)}, {}, ValueError, "expected other names"),
        ({}, {"a": {1: 2}}, ValueError, "facts.a: expected names, got the key 1"),
        ({}, {"a": [0.5, float("nan")]}, ValueError, r"facts.a\[1\]: expected a finite number"),
        ({}, {"a": torch.ones(1)}, ValueError, "facts.a: expected what JSON can hold, got Tensor"),
        ({}, [("a", 1)], TypeError, "facts: expected a dict, got list"),
    ],
)
def test_bad_arguments(path, tensors, facts, error, words):
    with pytest.raises(error, match=words):
        checkpoint.write(path, tensors, facts)
    assert not path.exists()


def test_bad_paths():
    with pytest.raises(TypeError, match="path: expected a path, got int"):
        checkpoint.write(3, {}, {})
    with pytest.raises(TypeError, match="path: expected a path, got NoneType"):
        checkpoint.read(None)


# ---- facts ---------------------------------------------------------------------------------------


def test_differences_name_each_fact():
    def told(**found):
        return checkpoint.difference(FACTS, {**FACTS, **found})

    assert told() == ""
    assert told(seed=4) == "seed: the checkpoint has 4, this call has 3"
    assert told(thin=True) == "thin: the checkpoint has true, this call has 2"
    assert told(step=0.2, seed=4).split("; ") == [
        "seed: the checkpoint has 4, this call has 3",
        "step: the checkpoint has 0.2, this call has 0.1",
    ]
    other = {"kernel": "MALA", "betas": [1.0, 0.25]}
    assert told(who=other).split("; ") == [
        "who.betas[1]: the checkpoint has 0.25, this call has 0.5",
        'who.kernel: the checkpoint has "MALA", this call has "Langevin"',
    ]
    assert told(who=None).startswith("who: the checkpoint has null, this call has {")
    assert told(more=1) == "more: the checkpoint has 1, this call has nothing"
    assert checkpoint.difference({"a": 1}, {}) == "a: the checkpoint has nothing, this call has 1"
    assert checkpoint.difference({"a": (1, 2)}, {"a": [1, 2]}) == ""
    assert "[1]" in checkpoint.difference({"a": [1]}, {"a": [1, 2]})
    assert len(checkpoint.difference({"a": "x" * 999}, {"a": "y" * 999})) < 300
