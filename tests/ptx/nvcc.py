# SPDX-License-Identifier: Apache-2.0
"""Runs nvcc for the tests, with the flags that the promise of equal bits needs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PTX, ARCHITECTURE = "compute_80", "sm_90"  # what CMakeLists.txt makes code of, and the usual code
EXACT_FLAGS = ("--fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")


def find_nvcc():
    """nvcc's path: $CUDACXX, on the PATH, in $CUDA_HOME, or where NVIDIA installs it; or None."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    names = [os.environ.get("CUDACXX"), "nvcc", *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((path for name in names if name and (path := shutil.which(name))), None)


needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, of the CUDA toolkit")


def nvcc(source, output, *flags):
    """Compile a file as CUDA and return what nvcc says."""
    chosen = "-ptx" in flags or any(str(flag).startswith("-code=") for flag in flags)
    code = [] if chosen else [f"-code={ARCHITECTURE}"]
    command = [find_nvcc(), "-std=c++17", f"-arch={PTX}", *code, *flags, "-x", "cu", "-o", output, source]  # fmt: skip
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"nvcc failed on {source}:\n{done.stderr}")
    return done.stdout + done.stderr


def ptx_of(code, folder, *flags):
    """The PTX of CUDA source text."""
    source, output = folder / "snippet.cu", folder / "snippet.ptx"
    source.write_text(code)
    nvcc(source, output, "-ptx", *flags)
    return output.read_text()
