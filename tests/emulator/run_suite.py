# SPDX-License-Identifier: Apache-2.0
"""Run tests on the emulated CUDA backend, under AddressSanitizer and UndefinedBehaviorSanitizer.

``python tests/emulator/run_suite.py tests/test_noise.py -q`` builds the module and hands the
arguments to pytest. ``PF_EMULATOR_SEED`` chooses the order in which threads run.
"""

import importlib.util
import os
import re
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


def environment(seed=None, sanitized=True):
    """Return the variables under which the emulated module can be loaded and is used."""
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # torch's own threads would spin while the emulator works
        "PUSHFORWARD_CPU_LEVEL": "emulator",
    }
    if sanitized:
        # Python itself is not sanitized, so the sanitizers must be there before it.
        variables["LD_PRELOAD"] = f"{library('libasan.so')} {library('libubsan.so')}"
        # Python keeps much until it exits, and leak checks need rights that containers lack.
        variables["ASAN_OPTIONS"] = "detect_leaks=0"
        variables["UBSAN_OPTIONS"] = "print_stacktrace=1"
    if seed is not None:
        variables["PF_EMULATOR_SEED"] = str(seed)
    return variables


def command(module, arguments):
    """Return the command that runs pytest on a built module, in environment()."""
    return [sys.executable, __file__, "--inside", module, *arguments]


def count_passed(module, arguments, seed=0, sanitized=True, **variables):
    """Run pytest on a built module; return how many tests passed, of which none may fail."""
    done = subprocess.run(
        command(module, [*arguments, "-q", "-p", "no:cacheprovider"]),
        env={**environment(seed, sanitized), **variables},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout[-6000:] + done.stderr[-6000:]
    assert done.returncode == 0, said
    assert "CPU level: emulator" in done.stdout, said
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, said
    return int(passed[1])


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
