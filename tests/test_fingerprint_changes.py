# SPDX-License-Identifier: Apache-2.0
"""What a user changes between a run and its resumption is noticed; what a run changes is not."""

import subprocess
import sys

import pytest
import torch

from test_fingerprints import text_of

# What a user changes between a run and its resumption, as the text of a module that makes `law`.
SOURCES = {
    "a helper": """
def helper(x): return {}
def law(x): return -helper(x).sum(1)
""",
    "a helper's helper": """
def inner(x): return {}
def helper(x): return inner(x)
law = lambda x: -helper(x).sum(1)
""",
    "a list": """
scales = ["{0}"]
def law(x): return -(x * len(scales[0])).sum(1)
""",
    "a dict in a closure": """
def make():
    options = dict(scale="{0}")
    return lambda x: -x.sum(1) * len(options["scale"])
law = make()
""",
    "an object": """
class Options:
    def __init__(self): self.scale = "{0}"
options = Options()
def law(x): return -x.sum(1) * len(options.scale)
""",
    "a method": """
class Law:
    def log_density(self, x): return -self._half(x).sum(1)
    def _half(self, x): return {}
law = Law()
""",
    "a method of a base": """
class Base:
    def log_density(self, x): return -({}).sum(1)
class Law(Base): pass
law = Law()
""",
    "an attribute of a class": """
class Law:
    scale = "{0}"
    def log_density(self, x): return -x.sum(1) * len(self.scale)
law = Law()
""",
    "a property": """
class Law:
    @property
    def scale(self): return lambda x: {}
    def log_density(self, x): return -self.scale(x).sum(1)
law = Law()
""",
    "a module's method": """
import torch
class Law(torch.nn.Module):
    def half(self, x): return {}
    def forward(self, x): return -self.half(x).sum(1)
law = Law()
""",
    "a module's private setting": """
import torch
class Law(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self._scale = "{0}"
    def forward(self, x): return -x.sum(1) * len(self._scale)
law = Law()
""",
    "a module's buffer that is not kept": """
import torch
class Law(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(len("{0}")), persistent=False)
    def forward(self, x): return -x.sum(1) * self.scale.sum()
law = Law()
""",
    "a method that is remembered": """
import functools
class Law:
    def log_density(self, x): return -self.half(x).sum(1)
    @functools.lru_cache
    def half(self, x): return {}
law = Law()
""",
    "a partial method": """
import functools
class Law:
    def power(self, x, kind): return -x.sum(1) * len(kind)
    log_density = functools.partialmethod(power, kind="{0}")
law = Law()
""",
    "a dict of a class": """
class Law:
    options = dict(scale="{0}")
    def log_density(self, x): return -x.sum(1) * len(self.options["scale"])
law = Law()
""",
    "a hook": """
import torch
law = torch.nn.Identity()
law.register_forward_hook(lambda module, given, x: ({}).sum(1))
""",
    "a tensor that is added to": """
import torch
mu = torch.full((2,), float(len("{0}")))
def law(x): return -mu.add(-x).square().sum(1)
""",
    "a number in a comparison": """
low = len("{0}")
def law(x): return x.sum(1) if low < float(x.mean()) < 100 else -x.sum(1)
""",
    "a number beside a walrus": """
import torch
scale = len("{0}")
def law(x): return -scale * (r := x.norm(dim=1)) * r
""",
    "an object with a method called update": """
class Model:
    def update(self, x): return {}
model = Model()
def law(x): return -model.update(x).sum(1)
""",
    "a tenth helper": "def f0(x): return {}\n"
    + "".join(f"def f{i}(x): return f{i - 1}(x)\n" for i in range(1, 10))
    + "def law(x): return -f9(x).sum(1)\n",
    "a frame": """
pandas = __import__("pandas")
data = pandas.DataFrame(dict(y=[1.0, float(len("{0}"))]))
def law(x): return -(x - float(data.y.sum())).square().sum(1)
""",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_changed_target_has_another_fingerprint(source):
    if "pandas" in source:
        pytest.importorskip("pandas")

    def law(text):
        space = {"__name__": "somebody_s"}
        exec(source.format(text), space)
        return space["law"]

    assert text_of(law("x * x")) == text_of(law("x * x"))
    assert text_of(law("x * x")) != text_of(law("x + x + x"))


COUNTERS = {
    "append": "seen = []\ndef law(x):\n    seen.append(len(x))\n    return -x.square().sum(1)",
    "item": "seen = {'n': 0}\ndef law(x):\n    seen['n'] += 1\n    return -x.square().sum(1)",
    "nested": "seen = {'n': []}\ndef law(x):\n    seen['n'].append(1)\n    return -x.sum(1)",
    "new item": "seen = {}\ndef law(x):\n    seen[len(seen)] = x.sum()\n    return -x.sum(1)",
    "global": "n = 0\ndef law(x):\n    global n\n    n += 1\n    return -x.square().sum(1)",
    "tensor": "import torch\nn = torch.zeros(1)\ndef law(x):\n    n.add_(1)\n    return -x.sum(1)",
    "attribute": "class Law:\n    calls = 0\n    def __call__(self, x):\n        self.calls += 1\n"
    "        return -x.sum(1)\nlaw = Law()",
    "logger": "import logging\nlog = logging.getLogger('a')\ndef law(x):\n    log.info('call')\n"
    "    log.setLevel(40)\n    return -x.square().sum(1)",
}


@pytest.mark.parametrize("source", COUNTERS.values(), ids=COUNTERS)
def test_records_outside_a_function_do_not_count(source):
    space = {"__name__": "somebody_s"}
    exec(source, space)
    before = text_of(space["law"])
    space["law"](torch.zeros(3, 1))
    assert text_of(space["law"]) == before


MODULE = """
import sys
sys.path.insert(0, sys.argv[1])
import helpers, json
from pushforward.fingerprints import fingerprint
def law(x): return -helpers.inner.energy(x).sum(1)
print(json.dumps(fingerprint(law)))
"""


def test_functions_of_a_module_of_the_user_count(tmp_path):
    def printed(text):
        (tmp_path / "inner.py").write_text(f"def energy(x):\n    return {text}\n")
        (tmp_path / "helpers.py").write_text("import inner\n")
        call = [sys.executable, "-B", "-c", MODULE, str(tmp_path)]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    assert printed("x * x") == printed("x * x")
    assert printed("x * x") != printed("x + x + x")
