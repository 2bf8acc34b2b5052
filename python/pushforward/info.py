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
        >>> pf.build_info()["CUDA backend"]
        'not built'

    """
    return {
        "pushforward": version("pushforward"),
        "noise contract": str(random.CONTRACT_VERSION),
        "CPU level": _ops.cpu_level,
        "threads": str(torch.get_num_threads()),
        "CUDA backend": "not built",
        "CUDA in torch": torch.version.cuda or "none",
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
