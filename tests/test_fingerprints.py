# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: different things differ, the same thing is the same in every process."""

import dataclasses
import decimal
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
import torch
from scipy import interpolate

import pushforward as pf
from conftest import ZOO
from pushforward import checkpoint
from pushforward.fingerprints import fingerprint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


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


def scale(x):
    return 2 * x


def prior(x):
    return scale(x)


def likelihood(x):
    return scale(x) + 1


def both(x):  # two functions that share a third
    return -(prior(x) + likelihood(x)).sum(1)


class Slotted:
    __slots__ = ("mu", "unused")

    def __init__(self, mu):
        self.mu = mu


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
    "energy-other": pf.Energy(with_global, beta=2.0),
    "partial": functools.partial(with_closure, 1.0),
    "partial-other": functools.partial(with_closure, 2.0),
    "method": Plain(1.0).log_density,
    "method-other": Plain(2.0).log_density,
    "plain": Plain(1.0),
    "both": both,
    "functions": {prior, likelihood, scale},
    "decimal": decimal.Decimal("0.1"),
    "decimal-other": decimal.Decimal("0.2"),
    "spline": interpolate.CubicSpline([0.0, 1.0, 2.0], [0.0, 1.0, 4.0]),
    "spline-other": interpolate.CubicSpline([0.0, 1.0, 2.0], [0.0, 1.0, 5.0]),
    "bound": torch.eye(2).mv,
    "bound-other": torch.ones(2, 2).mv,
    "slotted": Slotted(1.0),
    "slotted-other": Slotted(2.0),
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
import test_fingerprints as t
for name, obj in t.VARIANTS.items():
    print(name, hashlib.sha256(t.text_of(obj).encode()).hexdigest())
"""


def test_fingerprints_are_the_same_in_every_process():
    for hash_seed in ("1", "2", "3"):
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


def test_many_objects_that_know_each_other():
    nodes = [Plain(float(i)) for i in range(200)]
    for node in nodes:
        node.others = nodes
    assert len(text_of(nodes[0])) < 100_000
    assert text_of(nodes[0]) == text_of(nodes[0])
    before = text_of(nodes[0])
    nodes[199].mu = -1.0
    assert text_of(nodes[0]) != before
    long = list(range(300_000))
    assert len(text_of(long)) < 1000
    assert text_of(long) != text_of([*long[:-1], 0])


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
