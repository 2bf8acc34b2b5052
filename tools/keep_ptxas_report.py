# SPDX-License-Identifier: Apache-2.0
"""Run a compiler and keep what it says beside its output: ``keep_ptxas_report.py nvcc ...``.

CMake calls this in front of nvcc. The report of ptxas (registers, spills, local memory) goes to
``<object>.ptxas``, the seconds of processor time that it all took to ``<object>.seconds``; the
tests read them there. What is no report, such as a warning, is passed on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

# A report: "ptxas info ...", and below it bytes of stack and spills, and how long it took.
_REPORT = re.compile(r"\s*(ptxas info|\d+ bytes stack frame|Function properties for )")


def main() -> int:
    """Run the command line and return its exit status."""
    command = sys.argv[1:]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    rest = [line for line in said.splitlines(keepends=True) if not _REPORT.match(line)]
    if "-o" in command and done.returncode == 0:
        output = Path(command[command.index("-o") + 1])
        output.with_name(output.name + ".ptxas").write_text(said)
        spent = os.times()
        seconds = spent.children_user + spent.children_system
        output.with_name(output.name + ".seconds").write_text(f"{seconds:.2f}\n")
    sys.stderr.writelines(rest)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
