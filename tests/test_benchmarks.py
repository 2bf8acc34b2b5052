# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own machinery: order, ratios, gates, files and tables. JAX is not needed."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gates  # noqa: E402
import harness  # noqa: E402
import machine  # noqa: E402
import make_tables  # noqa: E402
import peers  # noqa: E402
import peers_lattice  # noqa: E402
import peers_mixture  # noqa: E402
from harness import Absent, Case, Contender, GateError  # noqa: E402
from lattice_reference import enumerate_ising  # noqa: E402


def passes(samples: Any, calls: int) -> None:
    """A gate that lets everything through."""


def fails(samples: Any, calls: int) -> None:
    raise GateError("wrong law")


def fixed(name: str, seconds: list[float], **more: Any) -> Contender:
    """A contender that says it took these seconds, after two calls to warm up."""
    left = iter([9.0, 9.0, *seconds])
    return Contender(name, lambda: (next(left), None), 1, passes, times_itself=True, **more)


def case_of(*contenders: Contender | Absent, **more: Any) -> Case:
    return Case("a claim", "things", contenders, **more)


def record_of(*cases: dict[str, Any], cpu: str = "A CPU (R) 9000 @ 3 GHz") -> dict[str, Any]:
    software = dict.fromkeys(("pushforward", "torch", "jax", "Python", "CPU level", "date"), "1")
    run = {"load_before": 0.5, "share_of_others": 0.0, "seconds": 1.0, "rounds": 3, "quick": False}
    hardware = {"CPU": cpu, "cores": 2, "threads": 2}
    head = {"benchmark": "noise", "command": "python x.py", "machine": {**hardware, **software}}
    return {**head, "run": run, "cases": list(cases)}


def test_rotation_puts_each_first_once() -> None:
    orders = [harness.rotated("abcd", i) for i in range(4)]
    assert [o[0] for o in orders] == list("abcd")
    assert all(sorted(o) == list("abcd") for o in orders)
    assert harness.rotated("abcd", 5) == list("bcda")
    assert harness.rotated([], 3) == []


def test_rounds_interleave_and_rotate() -> None:
    seen: list[str] = []

    def logging(name: str, **more: Any) -> Contender:
        return Contender(name, lambda: seen.append(name), 1, passes, **more)

    harness.measure("c", case_of(logging("a", role="ours"), logging("b"), logging("c")), 3)
    # Twice each to warm up; then short calls are made once untimed before the timed one.
    assert "".join(seen) == "aabbcc" + "aabbcc" + "bbccaa" + "ccaabb"


def test_long_calls_are_not_made_twice() -> None:
    seen: list[str] = []
    slow = Contender(
        "a", lambda: (seen.append("a") or 1.0, None), 1, passes, role="ours", times_itself=True
    )
    harness.measure("c", case_of(slow), 3)
    assert "".join(seen) == "aa" + "aaa"


def test_quartiles() -> None:
    assert harness.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert harness.quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_ratios_are_taken_within_a_round() -> None:
    """A host that slows down by ten halfway leaves every ratio at 3."""
    ours, peer = fixed("ours", [1.0, 10.0], role="ours"), fixed("peer", [3.0, 30.0], bar=2.5)
    found = harness.measure("c", case_of(ours, peer), 2)["contenders"]
    own, other = (c["seconds_per_unit"] for c in found)
    assert harness.ratios(other, own) == [3.0, 3.0]


def test_ceiling_is_a_share_by_round() -> None:
    ours, limit = fixed("ours", [4.0, 8.0], role="ours"), fixed("top", [1.0, 4.0], role="ceiling")
    case = case_of(ours, limit, ceilings={"x": lambda seconds: 2 * seconds["top"]})
    assert harness.measure("c", case, 2)["measured_over_ceiling"] == {"x": [0.5, 1.0]}


def test_failing_gate_aborts_with_its_name() -> None:
    bad = Contender("a wrong peer", lambda: None, 1, fails)
    with pytest.raises(GateError, match="some case: a wrong peer: wrong law"):
        harness.measure("some case", case_of(fixed("ours", [1.0], role="ours"), bad), 1)


def test_gate_sees_every_timed_call_and_aborts_in_any_round() -> None:
    calls_seen: list[int] = []

    def late(samples: Any, calls: int) -> None:
        calls_seen.append(calls)
        if calls == 6:
            raise GateError("late")

    with pytest.raises(GateError, match="late"):
        harness.measure("c", case_of(Contender("o", int, 1, late, role="ours")), 9)
    assert calls_seen == [1, 2, 4, 6]


def test_missing_package_and_failing_peer_are_rows() -> None:
    def build() -> Contender:
        raise ImportError(name="nowhere.inside")

    def broken() -> None:
        raise RuntimeError("cannot compile")

    case = case_of(
        fixed("ours", [1.0], role="ours"),
        harness.attempt("gone", build),
        Contender("broken", broken, 1, passes, bar=2.0),
    )
    record = harness.measure("c", case, 1)
    assert [c.get("absent") for c in record["contenders"]] == [
        None,
        "nowhere is not installed",
        "failed here with RuntimeError",
    ]
    page = make_tables.page([record_of(record)])
    assert "| gone | nowhere is not installed |" in page
    with pytest.raises(RuntimeError, match="cannot compile"):
        harness.measure("c", case_of(Contender("ours", broken, 1, passes, role="ours")), 1)


def test_json_round_trip(tmp_path: Path) -> None:
    case = harness.measure("c", case_of(fixed("ours", [1 / 3, 2.0], role="ours")), 2)
    record = record_of(case)
    path = harness.write(record, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "a-cpu-r-9000-3-ghz-level-1/noise.json"
    assert make_tables.load(tmp_path) == [record]
    assert json.loads(path.read_text())["cases"][0]["contenders"][0]["seconds_per_unit"][1] == 2.0


def test_tables_say_pass_and_fail() -> None:
    case = case_of(
        fixed("ours", [1.0, 1.0], role="ours"),
        fixed("slow", [9.0, 9.0], bar=4.0),
        fixed("fast", [2.0, 2.0], bar=4.0),
    )
    page = make_tables.page([record_of(harness.measure("c", case, 2))])
    assert "| slow | 0.111 [0.111 – 0.111] | 9.00x [9.00 – 9.00] | at least 4x | pass |" in page
    assert "| 2.00x [2.00 – 2.00] fast | at least 4x | **fail** |" in page  # the hardest decides
    timed = case_of(fixed("ours", [4e-6], role="ours"), limit=5e-6)
    page = make_tables.page([record_of(harness.measure("c", timed, 1))])
    assert "| **ours** | 4.00 µs |  | at most 5.00 µs | pass |" in page


def test_cases_that_failed_are_named() -> None:
    record = record_of(harness.measure("c", case_of(fixed("ours", [1.0], role="ours")), 1))
    assert "failed" not in make_tables.page([record]).split("## A CPU")[1]
    page = make_tables.page([{**record, "failed": ["flow: GateError: a mean is off"]}])
    assert "Cases that failed: flow: GateError: a mean is off." in page


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0123, "0.0123"), (9.8, "9.80"), (123.4, "123"), (999.9, "1000"), (0, "0")],
)
def test_numbers_have_three_digits(value: float, words: str) -> None:
    assert make_tables.number(value) == words


def test_devices_are_apart_and_the_newest_record_is_in_front() -> None:
    """Two processors of one name, at two levels; the page has both."""
    case = harness.measure("c", case_of(fixed("ours", [4e-6], role="ours"), limit=5e-6), 1)
    records = [record_of(case), record_of(case)]
    for record, level, date in zip(
        records, ("v4", "v3"), ("2026-01-02", "2026-01-03"), strict=True
    ):
        record["machine"].update({"CPU level": level, "date": date})
    page, front = make_tables.page(records), make_tables.front_table(records)
    assert "## A CPU (R) 9000 @ 3 GHz, level v3\n" in page
    assert "level v4\n" in page
    assert "2026-01-03" in front
    assert "2026-01-02" not in front
    on_gpu = {**records[0]["machine"], "CPU": "A GPU", "host": "A CPU"}
    assert machine.device(on_gpu) == "A GPU"


def test_page_is_what_the_script_writes() -> None:
    """No figure on the page was written by hand."""
    records = make_tables.load()
    assert records, "no results under benchmarks/results"
    assert make_tables.README.read_bytes() == make_tables.page(records).encode()
    front = make_tables.FRONT.read_text(encoding="utf-8")
    assert front == make_tables.with_front_table(front, records)
    assert make_tables.front_table(records) in front


def test_outputs_name_no_folder_of_the_machine() -> None:
    for path in [make_tables.README, *harness.RESULTS.glob("*/*.json")]:
        assert not re.search(r"(^|[\s\"'`(])/\w+/", path.read_text(encoding="utf-8")), path.name


def test_machine_is_described() -> None:
    described = machine.machine()
    assert described["CPU"]
    assert described["threads"] == torch.get_num_threads()
    assert machine.slug("AMD EPYC 9R14 (96-Core)") == "amd-epyc-9r14-96-core"
    share = machine.Load.now().share_of_others()
    assert share is None or share >= 0


GENERATOR = torch.Generator().manual_seed(0)


def test_normal_gate() -> None:
    z = torch.randn(200_000, generator=GENERATOR)
    gates.standard_normal(z)
    for wrong in (1.02 * z, z + 0.02, z.abs(), z.sort().values, z.clamp(-2, 2), z / 0):
        with pytest.raises(GateError):
            gates.standard_normal(wrong)


def test_uniform_gate() -> None:
    u = torch.rand(200_000, generator=GENERATOR)
    gates.uniform(u)
    for wrong in (0.98 * u, u + 0.5, u**1.02, u.sort().values, u * torch.nan):
        with pytest.raises(GateError):
            gates.uniform(wrong)


def mixture_law() -> gates.MixtureLaw:
    means = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    return gates.MixtureLaw(means, torch.tensor([0.4, 0.5, 0.3]), 0.02)


def gaussian_law() -> gates.GaussianLaw:
    basis = torch.linalg.qr(torch.randn(5, 5, generator=GENERATOR, dtype=torch.float64))[0]
    return gates.GaussianLaw(basis, torch.linspace(0.5, 3, 5, dtype=torch.float64), 0.1)


FORMS = [peers_mixture.textbook, peers_mixture.products, peers_mixture.autograd]


@pytest.mark.parametrize("form", FORMS)
def test_mixture_law_against_torch_peers(form: Any) -> None:
    law = mixture_law()
    problem = peers_mixture.Mixture(law.means, law.stds, law.step_size, law.start(9000))
    walk = form(problem, 7)
    torch.manual_seed(0)
    for calls in (1, 2, 3):
        x = walk()
        law.check(x, 7 * calls)
    for wrong in (1.06 * (x - x.mean()) + x.mean(), x + 0.1, x.flip(0)):
        with pytest.raises(GateError):
            law.check(wrong, 21)
    with pytest.raises(GateError):  # after too few steps the variances are not there yet
        law.check(x, 7)


def test_gaussian_law_against_torch_peer() -> None:
    law = gaussian_law()
    torch.manual_seed(0)
    walk = peers.gaussian_eager(law.precision, law.step_size, law.start(9000), 5)
    for calls in (1, 2, 3):
        x = walk()
        law.check(x, 5 * calls)
    target = torch.randn(9000, 5, dtype=torch.float64, generator=GENERATOR)
    target = (target / law.eigenvalues.sqrt()) @ law.basis.mT
    for wrong in (1.06 * x, x.flip(1), target):  # the law of the target is not that of the scheme
        with pytest.raises(GateError):
            law.check(wrong, 15)


@pytest.mark.parametrize("how", ["fresh", "buffered"])
def test_update_peers_move_by_the_law(how: str) -> None:
    torch.manual_seed(0)
    start = torch.randn(500, 20)
    x = start.clone()
    moved = peers.updates(x, -start, 0.1, 3)[how]()
    gates.increments(moved, start, -start, 0.1, 3)
    with pytest.raises(GateError):
        gates.increments(moved, start, -start, 0.1, 4)


@pytest.mark.parametrize("name", peers_lattice.ISING)
def test_lattice_peers_have_the_exact_energy(name: str) -> None:
    """On the torus of 4 x 4, where the energy at a temperature 4 percent higher is refused."""
    torch.manual_seed(0)
    n, temperature = 4096, 2.5
    start = torch.ones(n, 4, 4, dtype=torch.int8)
    made = harness.attempt(name, lambda: peers_lattice.ISING[name](start, temperature, 20))
    if isinstance(made, Absent):
        pytest.skip(made.reason)
    made()  # to equilibrium
    energies = []
    for _ in range(5):
        x = gates.as_torch(made()).double()
        energies.append(-(x * (x.roll(1, 1) + x.roll(1, 2))).mean((1, 2)))
    mean = torch.stack(energies).mean().reshape(1)

    def deviation(temperature: float) -> torch.Tensor:
        exact = enumerate_ising((4, 4), temperature)
        return (mean - exact["e"]) / math.sqrt(temperature**2 * exact["C"] / (16 * 5 * n))

    gates.require(deviation(temperature), "energy")
    with pytest.raises(GateError):
        gates.require(deviation(1.04 * temperature), "energy")


def test_pooled_statistics_gate() -> None:
    law, steps, n = mixture_law(), 30, 9000
    within = torch.stack([law.variances(k + 1) for k in range(steps)]).mean()
    mean, var = law.means.mean(0), within + law.means.square().mean(0) - law.means.mean(0) ** 2
    centred = gates.MixtureLaw(law.means - mean, law.stds, law.step_size)
    centred.check_pooled(0 * mean, var, n, steps)
    for wrong in ((mean + 1, var), (0 * mean, 1.05 * var + 0.2)):
        with pytest.raises(GateError):
            centred.check_pooled(*wrong, n, steps)


def test_variance_statistic_is_standard_normal_at_the_median() -> None:
    n = 40
    median = torch.tensor(n * (1 - 2 / (9 * n)) ** 3)  # of the chi-square law
    assert math.isclose(float(gates.variance_statistic(median, n)), 0, abs_tol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "only"), [("noise", "uniform"), ("langevin", "overhead"), ("ops", "call")]
)
def test_quick_benchmark_runs(script: str, only: str) -> None:
    command = [sys.executable, f"bench_{script}.py", "--quick", "--rounds", "1", "--only", only]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/bench_{script}.py" in done.stdout
    assert "**pushforward**" in done.stdout
