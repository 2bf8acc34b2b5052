# SPDX-License-Identifier: Apache-2.0
"""Golden digests: every op gives the bits on record, at each CPU level, emulated and on a GPU.

``python tests/test_golden.py --write`` records them in ``golden.json``, ``--print`` prints them.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pushforward as pf
from golden_cases import CASES

RECORD = Path(__file__).with_name("golden.json")


def digest(tensors):
    """sha256 of the tensors' bytes; every NaN counts as one, since machines differ in theirs."""
    h = hashlib.sha256()
    for t in tensors:
        t = t.detach().cpu()
        if t.is_floating_point():
            t = torch.where(t.isnan(), torch.full_like(t, torch.nan), t)
        h.update(t.contiguous().numpy().tobytes())
    return h.hexdigest()


def record(device="cpu"):
    digests = {name: digest(case(device)) for name, case in CASES.items()}
    return {"noise contract": pf.random.CONTRACT_VERSION, "digests": digests}


# ---- tests ---------------------------------------------------------------------------------------

GOLDEN = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"digests": {}}


@pytest.mark.parametrize("name", CASES)
def test_digests(name):
    assert digest(CASES[name]("cpu")) == GOLDEN["digests"][name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_digests_on_a_gpu(name):
    assert digest(CASES[name]("cuda")) == GOLDEN["digests"][name]


def test_the_record_is_of_these_cases_and_this_contract():
    assert GOLDEN["digests"].keys() == CASES.keys()
    assert GOLDEN["noise contract"] == pf.random.CONTRACT_VERSION
    assert len(set(GOLDEN["digests"].values())) == len(CASES)


@pytest.mark.parametrize("level", ["baseline", "v3", "v4"])
def test_cpu_levels(level):
    done = subprocess.run(
        [sys.executable, __file__, "--print"],
        env={**os.environ, "PUSHFORWARD_CPU_LEVEL": level},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        assert "is not a level of this processor" in done.stderr, done.stderr
        pytest.skip("this processor lacks the level")
    assert json.loads(done.stdout) == GOLDEN


def test_a_digest_sees_each_bit_and_no_kind_of_nan():
    x = torch.linspace(0, 1, 9)
    bits = x.view(torch.int32)
    seen = {digest([x])}
    for bit in range(32):
        seen.add(digest([(bits ^ torch.tensor([0] * 8 + [1 << bit]).int()).view(torch.float32)]))
    assert len(seen) == 33
    quiet, signed = (torch.tensor([b]).int().view(torch.float32) for b in (0x7FC00000, -0x3FFFFF))
    assert quiet.isnan()
    assert signed.isnan()
    assert digest([quiet]) == digest([signed])


if __name__ == "__main__":
    text = json.dumps(record(), indent=1)
    if sys.argv[1:] == ["--write"]:
        RECORD.write_text(text + "\n", encoding="utf-8")
    elif sys.argv[1:] == ["--print"]:
        print(text)
    else:
        sys.exit(__doc__)
