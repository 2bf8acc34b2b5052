# SPDX-License-Identifier: Apache-2.0
"""Run tests on the emulated CUDA backend, under AddressSanitizer and UndefinedBehaviorSanitizer.

``python tests/emulator/run_suite.py tests/test_noise.py -q`` builds the module and hands the
arguments to pytest. ``PF_EMULATOR_SEED`` chooses the order in which threads run.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def library(name):
    """Return the path of a library of the compiler's."""
    done = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def environment(seed=None):
    """Return the variables under which the emulated module can be loaded and is used."""
    variables = {
        **os.environ,
        # Python itself is not sanitized, so the sanitizers must be there before it.
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        # Python keeps much until it exits, and leak checks need rights that containers lack.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",  # torch's own threads would spin while the emulator works
        "PUSHFORWARD_CPU_LEVEL": "emulator",
    }
    if seed is not None:
        variables["PF_EMULATOR_SEED"] = str(seed)
    return variables


def command(module, arguments):
    """Return the command that runs pytest on a built module, in environment()."""
    return [sys.executable, __file__, "--inside", module, *arguments]


def inside(module, arguments):
    """Run pytest here, with the emulated module in the place of the installed one."""
    import torch  # noqa: F401  # the module asks it for its exchange table

    spec = importlib.util.spec_from_file_location("pushforward._native", module)
    native = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = native
    spec.loader.exec_module(native)

    import pytest

    import pushforward as pf

    print("CPU level:", pf.build_info()["CPU level"], flush=True)
    return pytest.main(arguments)


def main(arguments):
    """Build, and run pytest in a process that the sanitizers watch."""
    sys.path.insert(0, str(HERE.parent))
    from emulator.build import build

    done = subprocess.run(command(build(), arguments), env=environment(), check=False)
    return done.returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(inside(sys.argv[2], sys.argv[3:]))
    sys.exit(main(sys.argv[1:]))
