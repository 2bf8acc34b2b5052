# SPDX-License-Identifier: Apache-2.0
"""Build the native module with the emulated CUDA backend.

``python tests/emulator/build.py`` builds it under the sanitizers, in ``build/emulator/sanitized``,
and prints where it is. ``build.py every-kernel`` builds it without them and with all kernels: those
for few coordinates are many, and under the sanitizers the compiler takes too long over them. What
has been built is kept, so that a second run takes seconds.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "emulator"
# Folders in it, and the flags of the backend there.
FLAGS = {
    "sanitized": [
        "-fsanitize=address",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
        "-DPF_EMULATOR_FEW_KERNELS",
    ],
    "every-kernel": [],
}


def tool(name):
    """Return the path of a program of this Python's environment or of the system, or None."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def missing():
    """Return what a build needs and this machine lacks, in words, or the empty string."""
    lacking = [name for name in ("cmake", "ninja", "g++") if not tool(name)]
    if not (ROOT / "csrc").exists():
        lacking.append("a checkout")
    try:
        import pybind11  # noqa: F401
    except ImportError:
        lacking.append("pybind11")
    return " and ".join(lacking)


def run(command, log):
    """Run a command with its output in a file; raise RuntimeError with the end of it."""
    with log.open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        end = "".join(log.read_text().splitlines(keepends=True)[-60:])
        raise RuntimeError(f"{' '.join(map(str, command))}\n{end}")


def build(name="sanitized"):
    """Build what changed and return the path of the module."""
    import pybind11

    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two runs of the tests may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = {
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "CMAKE_CXX_COMPILER": tool("g++"),
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "PF_CUDA": "OFF",
            "PF_EMULATOR": "ON",
            "PF_EMULATOR_FLAGS": ";".join(FLAGS[name]),
        }
        configure = [tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja"]
        configure += [f"-D{name}={value}" for name, value in settings.items()]
        run(configure, folder / "configure.log")
        run([tool("cmake"), "--build", folder, "--target", "_native"], folder / "build.log")
    (module,) = folder.glob("_native*.so")
    return module


if __name__ == "__main__":
    if missing():
        sys.exit(f"needs {missing()}")
    print(build(*sys.argv[1:2]))
