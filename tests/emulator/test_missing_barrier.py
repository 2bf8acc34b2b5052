# SPDX-License-Identifier: Apache-2.0
"""Barriers taken out of the real kernels: the golden digests must change."""

import json
import re
import shlex
import subprocess

import pytest

from emulator import build, run_suite

CSRC, FOLDER = build.ROOT / "csrc", build.FOLDER / "sanitized"
SOURCE = "csrc/ops/langevin_run.cpp"
KINDS = ["DoubleWell", "Banana"]  # the only ones compiled here, which takes a fifth of the time
DIGEST_DIFFERS = 1  # what pytest returns when a test has failed

# A golden case that must notice, a header, and the text with the barrier and without. Of each
# barrier there is one side on which lanes write what others read on the other side.
BROKEN = {
    "the noise is read before it is made": (
        "native double_well f64 33",
        "backend/cuda.cuh",
        "    dim.sync();\n    next_ +=",
        "    next_ +=",
    ),
    "the state is read before it is moved": (
        "native banana f64 33",
        "ops/with_target.hpp",
        "    dim.sync();\n    const Real value = target.evaluate",
        "    const Real value = target.evaluate",
    ),
}


def replaced(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def changed_headers(folder, header=None, old="", new=""):
    """Write what differs from csrc/ into a folder that comes before it in the search."""
    other_kind = r"\bX\(k(?!(?:" + "|".join(KINDS) + r")\b)\w+, [^\\\n]*"
    texts = {"ops/with_target.hpp": (CSRC / "ops/with_target.hpp").read_text()}
    texts["ops/with_target.hpp"], n_left_out = re.subn(other_kind, "", texts["ops/with_target.hpp"])
    assert n_left_out > 4
    if header:
        text = texts.get(header) or (CSRC / header).read_text()
        texts[header] = replaced(text, old, new)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def start_compiling(folder):
    """Compile the op against the changed headers, as the emulated module does otherwise."""
    entries = json.loads((FOLDER / "compile_commands.json").read_text())
    (entry,) = [e for e in entries if e["file"].endswith(SOURCE) and "pf_emulated" in e["command"]]
    words = shlex.split(entry["command"])
    words[words.index("-o") + 1] = str(folder / "langevin_run.o")
    return subprocess.Popen([words[0], f"-I{folder}", *words[1:]], cwd=entry["directory"])


def link(folder, module):
    """Link the module with the changed op in the place of the right one."""
    listing = subprocess.run(
        [build.tool("ninja"), "-C", FOLDER, "-t", "commands", "_native"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = listing.strip().splitlines()[-1]
    (right,) = re.findall(rf"\S*pf_emulated\S*{SOURCE}\.o", command)
    command = replaced(command, right, str(folder / "langevin_run.o"))
    command = replaced(command, f"-o {module.name}", f"-o {folder / module.name}")
    subprocess.run(command, shell=True, cwd=FOLDER, check=True)
    return folder / module.name


def golden(module, case, seed):
    """Return what pytest returns for one golden case."""
    arguments = [f"tests/test_golden.py::test_digests[{case}]", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        run_suite.command(module, arguments),
        env=run_suite.environment(seed),
        cwd=build.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CPU level: emulator" in done.stdout, done.stderr
    assert ("1 passed" in done.stdout) == (done.returncode == 0), done.stdout
    assert ("AssertionError: assert '" in done.stdout) == (done.returncode == DIGEST_DIFFERS)
    return done.returncode


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """Return the broken modules by name, and under None the same without a fault."""
    if build.missing():
        pytest.skip(f"needs {build.missing()}")
    right = build.build()
    folders = {name: tmp_path_factory.mktemp("kernels") for name in [None, *BROKEN]}
    for name, folder in folders.items():
        changed_headers(folder, *BROKEN.get(name, ())[1:])
    compilers = [start_compiling(folder) for folder in folders.values()]
    assert [c.wait() for c in compilers] == [0] * len(compilers)
    return {name: link(folder, right) for name, folder in folders.items()}


@pytest.mark.slow  # compiles an op three times
@pytest.mark.parametrize("name", BROKEN)
def test_a_missing_barrier_changes_the_digest(modules, name):
    case = BROKEN[name][0]
    assert golden(modules[None], case, seed=0) == 0
    assert DIGEST_DIFFERS in (golden(modules[name], case, seed) for seed in range(8))
