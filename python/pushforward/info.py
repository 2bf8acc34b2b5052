# SPDX-License-Identifier: Apache-2.0
"""What this installation is and what it found on this machine."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from pushforward import _ops, random


def build_info() -> dict[str, str]:
    """Return version, CPU level, threads and CUDA state, as ``pushforward info`` prints them.

    Example:
        >>> import pushforward as pf
        >>> pf.build_info()["CPU level"] in ("baseline", "v3", "v4", "emulator")
        True

    """
    return {
        "pushforward": version("pushforward"),
        "noise contract": str(random.CONTRACT_VERSION),
        "CPU level": _ops.cpu_level,
        "threads": str(torch.get_num_threads()),
        "CUDA backend": _cuda_state(),
        "CUDA in torch": torch.version.cuda or "none",
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }


def _cuda_state() -> str:
    """Return whether the CUDA backend is there and what it would run on."""
    if not _ops.cuda_architectures:
        return "not built"
    built = f"built for {_ops.cuda_architectures}"
    if not torch.cuda.is_available():
        return f"{built}; torch finds no device"
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return f"{built}; {', '.join(sorted(names))}"
