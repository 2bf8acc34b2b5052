# SPDX-License-Identifier: Apache-2.0
"""The machine under a benchmark: its name, its software, its cores, how quiet it was."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def pin(threads: int) -> None:
    """Keep this process and its children on ``threads`` cores, and torch at as many threads.

    The other libraries take as many threads as they see cores. Of a core's hardware threads the
    first is taken before any second. torch compiles in this process, so that what it costs is not
    mistaken for other work.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0), key=lambda cpu: (_sibling_rank(cpu), cpu))
        os.sched_setaffinity(0, allowed[:threads])
    torch.set_num_threads(threads)


def _sibling_rank(cpu: int) -> int:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not path.exists():
        return 0
    return int(re.findall(r"\d+", path.read_text())[0]) != cpu


def _cpu_model() -> str:
    """Return the processor's name, with the numbers of its generation where a name hides that."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+?)\s*$", text, re.M))
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    if "cpu family" not in facts or "model" not in facts:
        return facts["model name"]
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, Any]:
    """Return what the tables say of this machine and its software."""
    import pushforward as pf

    info = pf.build_info()
    kept = ("pushforward", "noise contract", "CPU level", "torch", "Python")
    return {
        "CPU": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **{name: info[name] for name in kept},
        "jax": _installed("jax"),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


@dataclass(frozen=True)
class Load:
    """How busy the machine was at one moment."""

    average: float  # load average over the last minute
    clock: float  # time.perf_counter()
    everybody: float | None  # CPU seconds of the whole machine, stolen ones included, if known
    own: float  # CPU seconds of this process and its children

    @classmethod
    def now(cls) -> Load:
        """Return the load at this moment."""
        everybody, stat = None, Path("/proc/stat")
        if stat.exists():
            user, nice, system, _idle, _wait, *rest = (
                int(n) for n in stat.read_text().split()[1:9]
            )
            everybody = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        own = sum(os.times()[:4])
        return cls(os.getloadavg()[0], time.perf_counter(), everybody, own)

    def share_of_others(self) -> float | None:
        """Return the share of the machine that other work took since then."""
        after = Load.now()
        if self.everybody is None or after.everybody is None:
            return None
        spent = (after.everybody - self.everybody) - (after.own - self.own)
        return max(0.0, spent) / ((after.clock - self.clock) * (os.cpu_count() or 1))


def device(described: Mapping[str, Any]) -> str:
    """Return the name of what a record was measured on: a GPU, or a CPU at the level it runs.

    Where no generation is known, the level tells some apart that go by one name.
    """
    name = str(described["CPU"])
    return name if "host" in described else f"{name}, level {described['CPU level']}"


def slug(model: str) -> str:
    """Return a device's name as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "unknown"
