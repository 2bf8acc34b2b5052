# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmark without a GPU: it says so, its contenders follow their laws on the CPU, and what
it has measured stays.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench_cuda  # noqa: E402
import cases_cuda  # noqa: E402
from harness import Case, Contender, GateError  # noqa: E402


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured():
    command = [sys.executable, "bench_cuda.py"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no GPU: nothing measured\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["update", "normals", "mixture"])
def test_contenders_follow_their_laws(name, monkeypatch):
    monkeypatch.setattr(cases_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with torch.no_grad():
        case = cases_cuda.cases(True)[name]()
        live = [c for c in case.contenders if isinstance(c, Contender)]
        assert live[0].role == "ours"
        for contender in live:
            if contender.prepare is not None:
                contender.prepare()
            contender.gate(contender.call(), 1)


def test_the_network_is_the_score_of_a_standard_normal():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    net = cases_cuda.exact_network(2, 64)
    assert bool((net(x) + x).abs().max() < 1e-5)
    assert [tuple(layer.weight.shape) for layer in net[::2]] == [(64, 2), (64, 64), (2, 64)]


# ---- what stays of a run that does not end well --------------------------------------------------


def case(gate=lambda samples, calls: None, call=lambda: None):
    ours = Contender("pushforward", call, 1, gate, role="ours")
    return Case(claim="a claim", unit="things", contenders=[ours])


def wrong(samples, calls):
    raise GateError("wrong law")


def interrupted():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Run the benchmark on these cases as if there were a GPU: (exit status, what is written)."""
    file = tmp_path / "a-gpu" / "cuda.json"

    def written():
        return json.loads(file.read_text()) if file.exists() else None

    def run(cases, *options):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
        built = {**bench_cuda.pf.build_info(), "CUDA backend": "90"}
        monkeypatch.setattr(bench_cuda.pf, "build_info", lambda: built)
        monkeypatch.setattr(bench_cuda, "cases", lambda quick: cases)
        monkeypatch.setattr(sys, "argv", ["bench_cuda.py", "--rounds", "2", *options])
        with pytest.raises(SystemExit) as ended:
            bench_cuda.main()
        return ended.value.code, written()

    monkeypatch.setenv("OUT", str(tmp_path))
    run.written = written
    return run


def test_the_record_grows_case_by_case(run_main, capsys):
    seen = []

    def watching():
        seen.append(run_main.written())
        return case()

    status, record = run_main(dict.fromkeys(("one", "two", "three"), watching))
    assert status == 0
    assert seen[0] is None
    names = [[c["name"] for c in r["cases"]] for r in (*seen[1:], record)]
    assert names == [["one"], ["one", "two"], ["one", "two", "three"]]
    assert record["run"]["seconds"] > seen[1]["run"]["seconds"]
    assert record["machine"] == seen[1]["machine"]
    assert record["machine"]["CPU"] == "A GPU"
    assert "failed" not in record
    assert "failed" not in capsys.readouterr().out


def test_a_gate_that_fails_costs_its_own_case(run_main, capsys):
    cases = {"one": case, "two": lambda: case(gate=wrong), "three": case}
    status, record = run_main(cases)
    assert status == 1
    assert [c["name"] for c in record["cases"]] == ["one", "three"]
    assert record["failed"] == ["two: GateError: two: pushforward: wrong law"]
    said = capsys.readouterr().out
    assert "failed: two: GateError: two: pushforward: wrong law\n" in said
    assert said.count("#### a claim") == 2


def test_an_interrupt_keeps_what_came_before(run_main, capsys):
    cases = {"one": case, "two": lambda: case(call=interrupted), "three": case}
    status, record = run_main(cases)
    assert status == 1
    assert [c["name"] for c in record["cases"]] == ["one"]
    assert record["failed"] == ["two: interrupted"]
    assert "failed: two: interrupted\n" in capsys.readouterr().out


def test_where_nothing_was_measured_nothing_is_written(run_main):
    assert run_main({"one": lambda: case(gate=wrong)}) == (1, None)


def test_results_without_a_folder_are_published_whole_or_not_at_all(
    run_main, monkeypatch, tmp_path
):
    published = []
    monkeypatch.delenv("OUT")
    monkeypatch.setattr(bench_cuda, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_cuda, "publish", lambda record, options: published.append(record))
    status, record = run_main({"one": case, "two": lambda: case(gate=wrong)})
    assert (status, len(record["cases"]), published) == (1, 1, [])
    status, record = run_main({"one": case, "two": case})
    assert (status, len(record["cases"]), len(published)) == (0, 2, 1)
    _, still = run_main({"one": case}, "--quick")
    assert still == record
    _, still = run_main({"one": case, "two": case}, "--only", "one")
    assert still == record
