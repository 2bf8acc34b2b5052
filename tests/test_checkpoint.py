# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or refused, whoever is killed and whatever is changed; fingerprints."""

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import safetensors.torch
import torch

import pushforward as pf
from conftest import ZOO
from pushforward import checkpoint, files
from pushforward.fingerprints import fingerprint

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
OURS = {"format": "pushforward.checkpoint", "format_version": "1", "noise_contract": "1",
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
        (header({**OURS, "format_version": "2"}), "format version 2.*reads 1"),
        (header({**OURS, "format_version": "x"}), "format version is 'x'"),
        (header({**OURS, "format_version": 2}), "format version is 2"),
        (header(OURS), "SHA-256"),
        (header(OURS, x=HUGE), "expected .* bytes by its header"),
        (header({"format": OURS["format"], "format_version": "1"}), "metadata are incomplete"),
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


# ---- killed, refused, full -----------------------------------------------------------------------

KILLER = """
import os, signal, sys, time, torch
from pathlib import Path
from pushforward import checkpoint

def torn(path, parts):  # the broken twin: in place, piece by piece
    with path.open("wb", buffering=0) as file:
        content = b"".join(parts)
        for i in range(0, len(content), 256):
            file.write(content[i : i + 256])

torch.set_num_threads(1)  # OpenMP's threads do not live on in a forked process
path, k = Path(sys.argv[1]), 0
checkpoint.write(path, {"x": torch.zeros(300_000)}, {"k": 0})
if sys.argv[2] == "torn":
    checkpoint.write_atomically = torn
for i in range(30):
    writer = os.fork()
    if writer == 0:
        while True:
            k += 1
            checkpoint.write(path, {"x": torch.full((300_000,), float(k))}, {"k": k})
    time.sleep(0.011 + 0.0037 * i)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    tensors, facts = checkpoint.read(path)
    assert facts["k"] >= k
    k = facts["k"]
    assert (tensors["x"] == k).all()
print(k)
"""


def killed(path, how):
    return subprocess.run(
        [sys.executable, "-c", KILLER, str(path), how], capture_output=True, text=True, check=False
    )


def test_a_killed_writer_leaves_a_whole_checkpoint(path):
    run = killed(path, "whole")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 5  # the writers were at work
    checkpoint.write(path, {}, {})
    assert os.listdir(path.parent) == [path.name]


def test_a_writer_in_place_fails_the_same_test(path):
    run = killed(path, "torn")
    assert run.returncode == 1
    assert f"ValueError: checkpoint {path}: " in run.stderr


def test_what_a_killed_writer_left_is_never_read_and_goes_with_the_next_write(path):
    checkpoint.write(path, {}, {"k": 1})
    rest = path.with_name(f".{path.name}.part")
    rest.write_bytes(b"half of a checkpoint" * 1000)
    assert checkpoint.read(path)[1] == {"k": 1}
    checkpoint.write(path, {}, {"k": 2})
    assert checkpoint.read(path)[1] == {"k": 2}
    assert os.listdir(path.parent) == [path.name]


def test_two_writers_of_one_path_do_not_mix(path):
    # Threads stand for two runs. One that comes second is told so; none ever writes a torn file.
    outcomes = []

    def work(k):
        for _ in range(30):
            try:
                checkpoint.write(path, {"x": torch.full((50_000,), float(k))}, {"k": k})
                outcomes.append(None)
            except BlockingIOError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            tensors, facts = checkpoint.read(path)
            assert torch.equal(tensors["x"], torch.full((50_000,), float(facts["k"])))
    for thread in threads:
        thread.join()
    refused = {text for text in outcomes if text}
    assert None in outcomes
    assert all("another run is writing it" in text for text in refused)
    assert os.listdir(path.parent) == [path.name]


FULL = """
import os, resource, signal, sys, torch
from pushforward import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.write(sys.argv[1], {"x": torch.zeros(100_000)}, {"k": 2})
except OSError as error:
    print(type(error).__name__, error.errno, error)
"""


def test_a_full_disk_keeps_the_old_checkpoint(path):
    checkpoint.write(path, {"x": torch.ones(2)}, {"k": 1})
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert f"checkpoint {path}: could not be written: File too large" in out
    assert checkpoint.read(path)[1] == {"k": 1}
    assert os.listdir(path.parent) == [path.name]


def test_an_exception_on_the_way_keeps_the_old_checkpoint(path, monkeypatch):
    checkpoint.write(path, {}, {"k": 1})

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, {}, {"k": 2})
    monkeypatch.undo()
    assert checkpoint.read(path)[1] == {"k": 1}
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_goes_away_on_the_way_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(files.os, "fsync", lambda handle: folder.rename(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="could not be written"):
        checkpoint.write(folder / "run", {}, {})


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


# ---- fingerprints --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Inner:
    width: float


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    center: torch.Tensor


SCALE = 1.5


def with_global(x):
    return -SCALE * x.square().sum(1)


def with_closure(mu):
    return lambda x: -(x - mu).square().sum(1)


def with_constant_set(x):
    return -x.sum(1) if "a" in {"a", "b", "c", "d"} else x


class Plain:
    def __init__(self, mu):
        self.mu = mu

    def log_density(self, x):
        return -(x - self.mu).square().sum(1)


class Net(torch.nn.Module):
    def __init__(self, seed=0, power=2):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(self.layer.weight, float(seed))
        torch.nn.init.zeros_(self.layer.bias)
        self.power = power

    def forward(self, x):
        return self.layer(x)[:, 0] ** self.power


class OtherNet(Net):
    def forward(self, x):
        return -(self.layer(x)[:, 0] ** self.power)


normal = torch.distributions.Normal
VARIANTS = {
    **ZOO,
    "langevin": pf.Langevin(0.1),
    "langevin-step": pf.Langevin(0.1 + 1e-16),
    "langevin-beta": pf.Langevin(0.1, beta=2.0),
    "langevin-tensor": pf.Langevin(torch.full((3,), 0.1)),
    "langevin-tensor-double": pf.Langevin(torch.full((3,), 0.1, dtype=torch.float64)),
    "nested": Outer(Inner(0.5), torch.zeros(2)),
    "nested-inner": Outer(Inner(0.25), torch.zeros(2)),
    "nested-tensor": Outer(Inner(0.5), torch.ones(2)),
    "closure": with_closure(1.0),
    "closure-number": with_closure(2.0),
    "closure-tensor": with_closure(torch.zeros(2)),
    "closure-tensor-value": with_closure(torch.ones(2)),
    "closure-function": with_closure(with_global),
    "sin": lambda x: torch.sin(x).sum(1),
    "cos": lambda x: torch.cos(x).sum(1),
    "constant": lambda x: (2.0 * x).sum(1),
    "constant-other": lambda x: (3.0 * x).sum(1),
    "default": lambda x, s=2.0: (s * x).sum(1),
    "default-other": lambda x, s=3.0: (s * x).sum(1),
    "keyword": lambda x, *, s=2.0: (s * x).sum(1),
    "keyword-other": lambda x, *, s=3.0: (s * x).sum(1),
    "set": with_constant_set,
    "energy": pf.Energy(with_global),
    "partial": functools.partial(with_closure, 1.0),
    "partial-other": functools.partial(with_closure, 2.0),
    "method": Plain(1.0).log_density,
    "method-other": Plain(2.0).log_density,
    "plain": Plain(1.0),
    "plain-array": Plain(np.arange(2.0)),
    "plain-array-value": Plain(np.arange(2.0) + 1),
    "module": Net(),
    "module-state": Net(1),
    "module-setting": Net(power=4),
    "module-code": OtherNet(),
    "normal": normal(0.0, 1.0),
    "normal-scale": normal(0.0, 2.0),
    "independent": torch.distributions.Independent(normal(torch.zeros(2), torch.ones(2)), 1),
    "as-target": pf.targets.as_target(normal(0.0, 1.0)),
    "log-normal": torch.distributions.LogNormal(0.0, 1.0),
    "object": object(),
    "none": None,
    "one": 1,
    "true": True,
    "one-float": 1.0,
    "infinity": float("inf"),
    "complex": 1j,
    "bytes": b"ab",
    "class": Plain,
    "dict": {"a": 1, 2: "b"},
    "generator": torch.Generator(),
}


def text_of(obj):
    return json.dumps(fingerprint(obj), sort_keys=True, allow_nan=False)


def test_different_things_have_different_fingerprints():
    texts = {name: text_of(obj) for name, obj in VARIANTS.items()}
    owners = {}
    for name, text in texts.items():
        assert owners.setdefault(text, name) == name, (name, owners[text])


DIGEST = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import test_checkpoint as t
for name, obj in t.VARIANTS.items():
    print(name, hashlib.sha256(t.text_of(obj).encode()).hexdigest())
"""


def test_fingerprints_are_the_same_in_every_process():
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", DIGEST, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = dict(line.rsplit(" ", 1) for line in out.splitlines())
        here = {n: hashlib.sha256(text_of(o).encode()).hexdigest() for n, o in VARIANTS.items()}
        assert found == here


def test_use_does_not_change_a_fingerprint():
    law = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    mapped = torch.distributions.LogNormal(0.0, 1.0)
    gaussian, net = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2)), Net()
    before = [text_of(o) for o in (law, mapped, gaussian, net)]
    assert law.precision_matrix.shape == (2, 2)  # computed when asked, then kept
    assert mapped.log_prob(torch.ones(1)).shape == (1,)
    assert mapped.transforms[0].inv is not None
    pf.sample(gaussian, pf.Langevin(0.1), torch.zeros(2, 2), n_steps=1, seed=0)
    net.eval()
    net(torch.zeros(1, 2)).sum().backward()
    assert [text_of(o) for o in (law, mapped, gaussian, net)] == before


def test_where_a_function_is_written_does_not_count():
    source = "def f(x):\n    return -x.square().sum(1)\n"
    spaces = [{"__name__": "m"}, {"__name__": "m"}]
    exec(compile(source, "one.py", "exec"), spaces[0])
    exec(compile("\n" * 9 + source, "two.py", "exec"), spaces[1])
    assert fingerprint(spaces[0]["f"]) == fingerprint(spaces[1]["f"])


def test_records_in_a_closure_do_not_count():
    calls = []

    def law(x):
        calls.append(len(x))
        return -x.square().sum(1)

    before = fingerprint(law)
    law(torch.zeros(3, 1))
    assert fingerprint(law) == before


def test_compiled_things_are_what_they_were_compiled_from():
    net = Net()
    assert fingerprint(torch.compile(net)) == fingerprint(net)
    assert fingerprint(torch.compile(with_global)) == fingerprint(with_global)


def test_odd_objects_have_a_fingerprint():
    class Hostile:
        @property
        def __dict__(self):
            raise RuntimeError("no")

    knot = {"a": []}
    knot["a"].append(knot)

    def recursive(n):
        return recursive(n - 1)

    chain = None
    for _ in range(100):
        chain = Plain(chain)
    lazy = torch.nn.LazyLinear(3)
    sparse = torch.ones(3).to_sparse()
    odd = (Hostile(), knot, recursive, chain, lazy, sparse, threading.Lock(), len, torch.sin, os)
    for obj in (*odd, torch.float32, torch.ones(2, device="meta"), np.array([None])):
        assert text_of(obj) == text_of(obj)
    assert fingerprint(Hostile()) == {"class": f"{__name__}.{Hostile.__qualname__}"}


def test_fingerprints_survive_a_checkpoint(path):
    facts = {name: fingerprint(obj) for name, obj in VARIANTS.items()}
    checkpoint.write(path, {}, facts)
    assert checkpoint.difference(facts, checkpoint.read(path)[1]) == ""
    a, b = ({"kernel": fingerprint(pf.Langevin(h))} for h in (0.5, 0.25))
    assert checkpoint.difference(a, b) == textwrap.dedent("""
        kernel.step_size: the checkpoint has "0x1.0000000000000p-2", this call has
        "0x1.0000000000000p-1"
    """).strip().replace("\n", " ")
