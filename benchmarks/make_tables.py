# SPDX-License-Identifier: Apache-2.0
"""Write ``benchmarks/README.md`` from the results: ``python benchmarks/make_tables.py``."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, quartiles, ratios, write
from machine import device

README = Path(__file__).parent / "README.md"
FRONT = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- table: begin (written by benchmarks/make_tables.py) -->"
END = "<!-- table: end -->"
QUIET = 0.1  # share of the machine from which other work spoils the figures
Record = Mapping[str, Any]

HEAD = """\
# Benchmarks

<!-- Written by `python benchmarks/make_tables.py` from `benchmarks/results/`. Do not edit. -->

Every figure below was measured and written by a script: a benchmark times its contenders side by
side and writes its raw times to `benchmarks/results/`, and `python benchmarks/make_tables.py` turns
those into this page.

- All contenders have the same cores, the same number of threads, the same precision and the same
  work; what compiles is compiled. The first call, which compiles or loads what was
  compiled before, is timed apart.
- Each round calls every contender once, in rotating order. A *ratio* is taken within each round;
  it says how many times as long as pushforward the contender took. All entries are the median
  over the rounds, with the quartiles in brackets.
- The samples of every timed call pass a test of their law before the time counts; a contender that
  fails it ends the benchmark, or on a GPU its case, which is then named. A test raises a false
  alarm with probability 1e-9.
- *Measured / ceiling* is the share of what the machine can do at all, measured in the same rounds.
- A bar is what we ask of pushforward against that contender. A benchmark fails its bar in public.
"""


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def bracketed(values: Sequence[float], unit: str = "") -> str:
    """Return ``median unit [first quartile – third quartile]``."""
    low, median, high = quartiles(values)
    return f"{number(median)}{unit} [{number(low)} – {number(high)}]"


def duration(values: Sequence[float]) -> str:
    """Return a time, with quartiles where there are several, in the unit that suits it."""
    median = quartiles(values)[1]
    scales = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))
    size, unit = next((s for s in scales if median >= s[0]), scales[-1])
    scaled = [v / size for v in values]
    return bracketed(scaled, unit) if len(values) > 1 else f"{number(scaled[0])}{unit}"


def rate(seconds: Sequence[float]) -> str:
    """Return how many units a second, with a decimal prefix."""
    rates = [1 / s for s in seconds]
    median = quartiles(rates)[1]
    scales = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))
    size, unit = next((s for s in scales if median >= s[0]), scales[-1])
    return bracketed([r / size for r in rates], unit)


def percent(values: Sequence[float]) -> str:
    """Return the median share in percent with the quartiles in brackets."""
    low, median, high = (f"{100 * v:.0f}" for v in quartiles(values))
    return f"{median} % [{low} – {high}]"


def ours_of(case: Record) -> Record:
    """Return the contender that is ours."""
    return next(c for c in case["contenders"] if c.get("role") == "ours")


def speed(seconds: Sequence[float], case: Record) -> str:
    """Return a contender's rate, or its time a unit where the bar is a time."""
    return rate(seconds) if case["limit"] is None else duration(seconds)


def verdict(passed: bool) -> str:
    """Return how a table says it."""
    return "pass" if passed else "**fail**"


def judged(case: Record) -> list[tuple[float, str, str, bool]]:
    """Return (margin, contender or nothing, measured against bar, passed) for each bar."""
    own = ours_of(case)["seconds_per_unit"]
    found = []
    if case["limit"] is not None:
        median = quartiles(own)[1]
        words = f"at most {duration([case['limit']])}"
        found.append((case["limit"] / median, "", words, median <= case["limit"]))
    for c in case["contenders"]:
        if c.get("bar") is not None:
            median = quartiles(ratios(c["seconds_per_unit"], own))[1]
            words = f"at least {c['bar']:g}x"
            found.append((median / c["bar"], c["name"], words, median >= c["bar"]))
    return sorted(found)


def case_rows(case: Record) -> list[str]:
    """Return the rows of a case's table."""
    own = ours_of(case)["seconds_per_unit"]
    bars = {name: (words, passed) for _, name, words, passed in judged(case)}
    rows = []
    for c in case["contenders"]:
        if "absent" in c:
            rows.append(f"| {c['name']} | {c['absent']} | | | | |")
            continue
        is_ours = c["role"] == "ours"
        label = {"ours": f"**{c['name']}**", "ceiling": f"*{c['name']}* (ceiling)"}
        peer = c["role"] == "peer"
        ratio = bracketed(ratios(c["seconds_per_unit"], own), "x") if peer else ""
        words, passed = bars.get("" if is_ours else c["name"], ("", None))
        cells = [
            label.get(c["role"], c["name"]), speed(c["seconds_per_unit"], case), ratio, words,
            "" if passed is None else verdict(passed), duration([c["first_call"]]),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def case_table(case: Record) -> list[str]:
    """Return the lines of a case: claim, table, ceilings, note."""
    title = f"{case['unit']} a second" if case["limit"] is None else "time"
    lines = [f"#### {case['claim']}", ""]
    lines += [f"| contender | {title} | ratio | bar | | first call |", "|---|---|---|---|---|---|"]
    lines += case_rows(case)
    if case["limit"] is not None:
        best = duration([min(ours_of(case)["seconds_per_unit"])])
        lines += ["", f"Least time of pushforward: {best}."]
    shares = [f"{name} {percent(v)}" for name, v in case["measured_over_ceiling"].items()]
    if shares:
        lines += ["", f"Measured / ceiling: {'; '.join(shares)}."]
    if case["note"]:
        lines += ["", case["note"]]
    return [*lines, ""]


def summary_row(case: Record) -> str:
    """Return the row of a case in the summary: its hardest bar decides."""
    own = ours_of(case)["seconds_per_unit"]
    shares = "; ".join(f"{k} {percent(v)}" for k, v in case["measured_over_ceiling"].items())
    fast = speed(own, case) + (f" {case['unit']}/s" if case["limit"] is None else "")
    ratio = bar = word = ""
    bars = judged(case)
    if bars:
        _, name, bar, passed = bars[0]
        word = verdict(passed)
        by_name = {c["name"]: c for c in case["contenders"]}
        if name:
            against = bracketed(ratios(by_name[name]["seconds_per_unit"], own), "x")
            ratio = f"{against} {name}"
    return f"| {case['claim']} | {fast} | {ratio} | {bar} | {word} | {shares} |"


def machine_line(record: Record) -> str:
    """Return where, with what and how quietly a benchmark ran."""
    m, r = record["machine"], record["run"]
    software = ", ".join(f"{k} {m[k]}" for k in ("pushforward", "torch", "jax", "Python"))
    others = r["share_of_others"]
    busy = "unknown" if others is None else f"{100 * others:.0f} %"
    loud = "" if others is None or others < QUIET else ". **Not a quiet machine: do not quote**"
    return (
        f"{m['CPU']}, {m['cores']} cores, {m['threads']} threads used, CPU level "
        f"{m['CPU level']}; {software}; {m['date']}; {r['rounds']} rounds; load average before: "
        f"{r['load_before']:.2f}; share of the machine that other work took: {busy}{loud}."
    )


def benchmark(record: Record) -> list[str]:
    """Return the lines of a benchmark: command, machine, summary, tables."""
    lines = [f"### {record['benchmark'].capitalize()}", ""]
    lines += ["```", record["command"], "```", "", machine_line(record), ""]
    head = "| claim | pushforward | hardest ratio | bar | | measured / ceiling |"
    lines += [head, "|---|---|---|---|---|---|"]
    lines += [summary_row(case) for case in record["cases"]]
    lines += [""]
    if "failed" in record:
        lines += ["Cases that failed: " + "; ".join(record["failed"]) + ".", ""]
    for case in record["cases"]:
        lines += case_table(case)
    return lines


def page(records: Sequence[Record]) -> str:
    """Return the whole page."""
    lines = [HEAD]
    for name in sorted({device(r["machine"]) for r in records}):
        lines += [f"## {name}", ""]
        for record in records:
            if device(record["machine"]) == name:
                lines += benchmark(record)
    return "\n".join(lines).rstrip() + "\n"


def load(root: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the records of all results, in the order of their paths."""
    return [json.loads(path.read_text()) for path in sorted(root.glob("*/*.json"))]


def publish(record: Record, options: argparse.Namespace) -> None:
    """Print a benchmark's tables, and write them unless the run was a partial one."""
    print("\n".join(benchmark(record)))
    if options.only is None and (options.write or not options.quick):
        write(record)
        main()


def front_table(records: Sequence[Record]) -> str:
    """Return the table of the project's README: the claims that have a bar, as last measured."""
    lines = [BEGIN]
    newest = {r["benchmark"]: r for r in sorted(records, key=lambda r: r["machine"]["date"])}
    for _, record in sorted(newest.items()):
        rows = [summary_row(case) for case in record["cases"] if judged(case)]
        if rows:
            head = "| claim | pushforward | hardest ratio | bar | | measured / ceiling |"
            lines += ["", machine_line(record), "", head, "|---|---|---|---|---|---|", *rows]
    return "\n".join([*lines, "", END])


def with_front_table(text: str, records: Sequence[Record]) -> str:
    """Return the project's README with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    return before + front_table(records) + rest.partition(END)[2]


def main() -> None:
    """Write the page, and the table of the project's README."""
    records = load()
    README.write_text(page(records), encoding="utf-8")
    front = with_front_table(FRONT.read_text(encoding="utf-8"), records)
    FRONT.write_text(front, encoding="utf-8")


if __name__ == "__main__":
    main()
