# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark without a GPU: it says so, and its contenders follow their laws on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench_cuda  # noqa: E402
from harness import Contender  # noqa: E402


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured():
    command = [sys.executable, "bench_cuda.py"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no GPU: nothing measured\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["update", "normals", "mixture"])
def test_contenders_follow_their_laws(name, monkeypatch):
    monkeypatch.setattr(bench_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with torch.no_grad():
        case = bench_cuda.cases(True)[name]()
        live = [c for c in case.contenders if isinstance(c, Contender)]
        assert live[0].role == "ours"
        for contender in live:
            if contender.prepare is not None:
                contender.prepare()
            contender.gate(contender.call(), 1)


def test_the_network_is_the_score_of_a_standard_normal():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    net = bench_cuda.exact_network(2, 64)
    assert bool((net(x) + x).abs().max() < 1e-5)
    assert [tuple(layer.weight.shape) for layer in net[::2]] == [(64, 2), (64, 64), (2, 64)]
