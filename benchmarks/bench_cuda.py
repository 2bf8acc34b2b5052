# SPDX-License-Identifier: Apache-2.0
"""Everything on a GPU: ``python benchmarks/bench_cuda.py [--quick]``.

Results go to ``benchmarks/results/``, or to the folder that the environment variable OUT names,
after each case: what has been measured stays when a later case fails its gate or the time is up.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import pushforward as pf
from cases_cuda import cases
from harness import RESULTS, Case, arguments, run, write
from make_tables import benchmark, publish


def named_after_gpu(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with the GPU where others have the CPU."""
    host, gpu = record["machine"]["CPU"], torch.cuda.get_device_name()
    return {**record, "machine": {**record["machine"], "CPU": gpu, "host": host,
                                  "CUDA": torch.version.cuda}}  # fmt: skip


def grown(record: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the cases so far with that of one more."""
    if record is None:
        return more
    before, after = record["run"], more["run"]
    shares = [r["share_of_others"] for r in (before, after)]
    together = {
        "share_of_others": None if None in shares else max(shares),
        "seconds": before["seconds"] + after["seconds"],
    }
    return {**record, "run": {**before, **together}, "cases": [*record["cases"], *more["cases"]]}


def measured(
    cases: Mapping[str, Callable[[], Case]],
    options: argparse.Namespace,
    keep: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any] | None, list[str]]:
    """Measure case after case; return the record, if there is any, and what failed.

    ``keep`` is given the record so far after each case. A case that fails is left out and told,
    and the next one is measured; an interrupt ends them all.
    """
    record, failed = None, []
    for name, build in cases.items():
        if options.only is not None and options.only not in name:
            continue
        try:
            record = grown(record, named_after_gpu(run("cuda", {name: build}, options)))
            if failed:
                record["failed"] = failed
            keep(record)
        except KeyboardInterrupt:
            failed.append(f"{name}: interrupted")
            break
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {error}")
    return record, failed


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__ or "")
    if not (torch.cuda.is_available() and pf.build_info()["CUDA backend"] != "not built"):
        print("no GPU: nothing measured")
        sys.exit(0)
    whole = options.only is None and (options.write or not options.quick)
    root = Path(os.environ["OUT"]) if "OUT" in os.environ else RESULTS if whole else None

    def keep(record: dict[str, Any]) -> None:
        if root is not None:
            write(record, root)

    with torch.no_grad():
        record, failed = measured(cases(options.quick), options, keep)
    if record is not None and failed:
        record["failed"] = failed
        keep(record)
    if record is not None and "OUT" not in os.environ and not failed:
        publish(record, options)
    elif record is not None:  # pages are for whole results
        print("\n".join(benchmark(record)))
    for fault in failed:
        print(f"failed: {fault}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
